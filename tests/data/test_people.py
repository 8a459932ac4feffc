import json

import numpy as np
import pytest
import scenes

from data_prep import coco, crowd
from occjax.data import people, pipeline, results, sources
from occjax.data.crowd import Crowd
from occjax.errors import UserError

DATA = {"view": "person", "size": (64, 64), "max_persons": 1, "threads": 1}


class Listed(scenes.Scenes):
    """Scenes that must not be read to know who is in them."""

    def __init__(self, count=20):
        super().__init__(count)
        plain = scenes.Scenes(count)
        self.targets = np.array([len(plain[i]["persons"]["id"]) for i in range(count)])
        self.image_ids = np.arange(100, 100 + count)
        self.read = 0

    def __getitem__(self, index):
        self.read += 1
        return super().__getitem__(index)


def write(path, entries) -> str:
    path.write_text(json.dumps(entries))
    return str(path)


def detected(source, path, images=0) -> people.Detected:
    return people.Detected(
        source, results.read(path, "data.detections", source, images)[0]
    )


def entry(image_id=100, box=(4, 6, 20, 30), score=0.5, **more) -> dict:
    return {"image_id": image_id, "bbox": list(box), "score": score, **more}


def test_every_person_once_in_the_order_of_the_images():
    source = Listed()
    found = people.Annotated(source)
    assert source.read == 0
    seen = [
        (r["image_id"], r["row"]) for r in map(found.__getitem__, range(len(found)))
    ]
    counts = {100 + i: n for i, n in enumerate(source.targets)}
    assert seen == [(i, row) for i, n in counts.items() for row in range(n)]
    unlisted = people.Annotated(scenes.Scenes())
    assert len(unlisted) == len(found)
    assert len(people.Annotated(source, images=3)) == sum(source.targets[:3])


def test_squares_about_a_centre_stay_where_they_are():
    class Beyond(scenes.Scenes):
        def __getitem__(self, index):
            record = super().__getitem__(index)
            record["persons"]["bbox"][:] = (-30, -20, 70, 70)
            return record

    clipped, whole = (
        people.Annotated(Beyond(), clip=clip)[0] for clip in (True, False)
    )
    np.testing.assert_array_equal(clipped["box"], [0, 0, 69, 69])
    np.testing.assert_array_equal(whole["box"], [-30, -20, 70, 70])
    data = {**DATA, "clip_boxes": False}
    batch = next(pipeline.test_batches(Beyond(), data, 2))
    np.testing.assert_array_equal(batch.inputs.box[0], [-30, -20, 70, 70])


def test_joint_counts_are_those_of_the_persons():
    found = people.Annotated(scenes.Scenes())
    joints = (found[i]["persons"]["joints"][found[i]["row"]] for i in range(len(found)))
    counts = [np.sum(one[:, 2] > 0) for one in joints]
    np.testing.assert_array_equal(found.labelled_joints, counts)


def test_notes_that_do_not_fit_the_records_are_a_users_error():
    source = Listed()
    source.targets[0] += 1
    with pytest.raises(UserError, match=r"image 100 .* notes say .*prepare it again"):
        people.Annotated(source)[0]


def test_crowd_knows_its_people_without_rendering():
    scenes_of = Crowd(num_scenes=30, size=(64, 64), people=(1, 4))
    counts = [len(scenes_of[i]["persons"]["id"]) for i in range(30)]
    np.testing.assert_array_equal(scenes_of.targets, counts)
    assert [scenes_of[i]["image_id"] for i in (3, 7)] == list(
        scenes_of.image_ids[[3, 7]]
    )


def test_prepared_datasets_note_who_can_be_cropped(tmp_path):
    options = {"num_scenes": 12, "size": (64, 64), "people": (1, 4)}
    crowd.write(str(tmp_path), "scenes", "train", options)
    source = sources.Prepared(str(tmp_path), "scenes", "train")
    noted = people.Annotated(source)
    rendered = people.Annotated(Crowd(**options))
    np.testing.assert_array_equal(source.targets, rendered.source.targets)
    np.testing.assert_array_equal(source.image_ids, range(12))
    np.testing.assert_array_equal(noted.labelled_joints, rendered.labelled_joints)
    for name in ("targets", "image_ids", "target_joints"):  # as before they were noted
        delattr(source, name)
    older = people.Annotated(source)
    assert len(older) == len(noted)
    np.testing.assert_array_equal(older.labelled_joints, noted.labelled_joints)
    assert older[5]["row"] == noted[5]["row"]


def test_detected_boxes_keep_order_image_and_score(tmp_path):
    source = Listed()
    entries = [
        entry(107, (1.5, 2, 30, 40), 0.25),
        entry(103, (5, 5, 20, 20), 1),
        entry(107, (-4, 3, 200, 50), 0.75, category_id=1),
        entry(103, category_id=3),
        entry(999),
        entry(105, (5, 5, 0, 0)),
    ]
    path = write(tmp_path / "boxes.json", entries)
    found = detected(source, path)
    assert source.read == 0
    records = [found[i] for i in range(len(found))]
    assert [r["image_id"] for r in records] == [107, 103, 107]
    assert [r["box_score"] for r in records] == [0.25, 1, 0.75]
    np.testing.assert_array_equal(records[2]["box"], [-4, 3, 200, 50])
    assert {r["row"] for r in records} == {-1}
    _, dropped = results.read(path, "data.detections", source)
    assert sorted(dropped.values()) == [1, 1, 1]
    first = detected(source, path, images=4)
    assert [first[i]["image_id"] for i in range(len(first))] == [103]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "expected a list of boxes, found dict"),
        ([3], "entry 0: expected an object"),
        ([entry(), entry("7")], "entry 1: image_id: expected a number, found '7'"),
        ([entry(box=(1, 2, 3))], "entry 0: bbox: expected 4 numbers, found 3 of them"),
        ([entry(box=(1, 2, float("nan"), 3))], "entry 0: bbox"),
        ([entry(box=(1, 2, 10**400, 3))], "entry 0: bbox"),
        ([entry(score=None)], "entry 0: score: expected a number.*, found None"),
        ([entry(score=10**400)], "entry 0: score"),
        ([entry(1)], "no box of a person on an image of scenes"),
    ],
)
def test_faulty_detections_name_file_and_entry(tmp_path, entries, message):
    path = write(tmp_path / "boxes.json", entries)
    with pytest.raises(UserError, match=message) as error:
        detected(Listed(), path)
    assert path in str(error.value)
    assert "\n" not in str(error.value)


def test_detections_that_cannot_be_read_are_a_users_error(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        detected(Listed(), str(tmp_path / "none.json"))
    (tmp_path / "half.json").write_text("[{")
    with pytest.raises(UserError, match="half.json is no JSON"):
        detected(Listed(), str(tmp_path / "half.json"))


@pytest.fixture(scope="module")
def prepared(photographs, tmp_path_factory):
    """The shared photographs of COCO as a prepared dataset."""
    folder = tmp_path_factory.mktemp("datasets")
    annotations = photographs / "coco/annotations/person_keypoints_shared.json"
    coco.prepare(folder, "photos", "train", photographs / "coco/images", annotations)
    return sources.Prepared(str(folder), "photos", "train")


def test_photographs_give_a_crop_for_every_labelled_person(prepared, photographs):
    file = photographs / "coco/annotations/person_keypoints_shared.json"
    wanted = [
        (a["image_id"], a["id"])
        for a in json.loads(file.read_text())["annotations"]
        if not a["iscrowd"] and any(a["keypoints"][2::3]) and a["area"] > 0
    ]
    found = people.Annotated(prepared)
    seen = []
    for index in range(len(found)):
        record = found[index]
        seen.append((record["image_id"], record["persons"]["id"][record["row"]]))
    assert sorted(seen) == sorted(wanted)
    assert len(prepared.target_joints) == len(found)
    np.testing.assert_array_equal(
        found.labelled_joints,
        people.Annotated(sources.Cached(prepared)).labelled_joints,
    )


def test_real_detections_are_cropped_one_by_one(prepared, photographs):
    file = photographs / "coco/annotations/test_coco_det_AP_H_56.json"
    entries = json.loads(file.read_text())
    data = {**DATA, "detections": str(file), "size": (96, 96)}
    batches = list(pipeline.test_batches(prepared, data, 32))
    ids = np.concatenate([batch.image_id for batch in batches])
    boxes = np.concatenate([batch.inputs.box for batch in batches])
    scores = np.concatenate([batch.inputs.box_score for batch in batches])
    persons = [e for e in entries if e.get("category_id", 1) == 1]
    count = len(persons)
    assert list(ids) == [e["image_id"] for e in persons] + [-1] * (-count % 32)
    np.testing.assert_allclose(boxes[:count], [e["bbox"] for e in persons], rtol=1e-6)
    np.testing.assert_allclose(scores[:count], [e["score"] for e in persons], rtol=1e-6)
