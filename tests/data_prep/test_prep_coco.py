import copy
import gzip
import json
import math
import subprocess
import sys

import built
import cv2
import numpy as np
import pytest
from faster_coco_eval.core import mask as run_lengths

from data_prep import coco
from occjax import skeletons
from occjax.data import records, sources
from occjax.errors import UserError

JOINTS = [10, 12, 2, *[15, 20, 1] * 3, *[0, 0, 0] * 13]


def annotation(number: int, image: int = 1, **changes) -> dict:
    plain = {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [4, 6, 20, 30],
        "area": 300.0,
        "num_keypoints": 4,
        "keypoints": JOINTS,
        "segmentation": [[4, 6, 24, 6, 24, 36, 4, 36]],
    }
    return {**plain, **changes}


def entry(number: int, **changes) -> dict:
    plain = {"id": number, "file_name": f"{number}.png", "height": 50, "width": 60}
    return {**plain, **changes}


@pytest.fixture
def folder(tmp_path):
    """Three images of 50 x 60 pixels."""
    (tmp_path / "images").mkdir()
    for number in (1, 2, 3):
        image = np.full((50, 60, 3), 20 * number, np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), image)
    return tmp_path


def prepare(folder, images, annotations, skeleton=skeletons.COCO, **more):
    file = folder / "annotations.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, **more}))
    account = coco.prepare(
        folder / "datasets", "small", "train", folder / "images", file, skeleton
    )
    data = {"dataset": "small", "dir": str(folder / "datasets")}
    return account, sources.load(data, "train")


def one_person(folder, **changes) -> dict:
    """The only person of a dataset with one annotation."""
    account, source = prepare(folder, [entry(1)], [annotation(1, **changes)])
    assert account.kept == {"images": 1, "persons": 1}
    return {name: column[0] for name, column in source[0]["persons"].items()}


@pytest.mark.parametrize(
    ("name", "file", "images", "persons", "labelled", "crowd", "joints"),
    [
        ("coco", "person_keypoints_shared.json", 152, 848, 660, 12, (5825, 1015)),
        ("ochuman", "ochuman_coco17.json", 10, 29, 20, 0, None),
        ("crowdpose", "crowdpose_images_1.json", 6, 31, 28, 0, None),
    ],
)
def test_photographs_are_kept_and_counted_in_full(
    photographs, tmp_path, name, file, images, persons, labelled, crowd, joints
):
    folder = photographs / name
    skeleton = skeletons.CROWDPOSE if name == "crowdpose" else skeletons.COCO
    path = folder / "annotations" / file
    account = coco.prepare(tmp_path, name, "train", folder / "images", path, skeleton)
    assert account.given == account.kept == {"images": images, "persons": persons}
    source = sources.load({"dataset": name, "dir": str(tmp_path)}, "train")
    found = [source[index] for index in range(len(source))]
    people = [record["persons"] for record in found]
    seen = np.concatenate([p["joints"][..., 2] for p in people])
    assert int(np.sum(np.any(seen > 0, axis=1))) == labelled
    assert sum(int(p["is_crowd"].sum()) for p in people) == crowd
    if joints:
        assert (int(np.sum(seen == 2)), int(np.sum(seen == 1))) == joints
    content = json.loads(path.read_text())
    originals = {image["id"]: image for image in content["images"]}
    for record in found:
        original = originals[int(record["image_id"])]
        data = (folder / "images" / original["file_name"]).read_bytes()
        assert record["image"] == data  # never encoded anew
        assert record["crowd_index"] == pytest.approx(original.get("crowdIndex", -1))
        ids = [a["id"] for a in content["annotations"]
               if a["image_id"] == original["id"]]  # fmt: skip
        assert list(record["persons"]["id"]) == ids
    everyone = built.people_of(source)
    for original in content["annotations"]:
        person = everyone[original["id"]]
        joints = np.float32(original["keypoints"]).reshape(-1, 3)
        np.testing.assert_array_equal(person["joints"], joints)
        np.testing.assert_array_equal(person["bbox"], np.float32(original["bbox"]))


def test_segments_of_photographs_have_their_area(photographs, tmp_path):
    folder = photographs / "coco"
    file = folder / "annotations" / "person_keypoints_shared.json"
    coco.prepare(tmp_path, "coco", "train", folder / "images", file)
    source = sources.load({"dataset": "coco", "dir": str(tmp_path)}, "train")
    exact = {a["id"] for a in json.loads(file.read_text())["annotations"]
             if not a["area_estimated"]}  # fmt: skip
    ratios = []
    for index in range(40):
        record, people = source[index], source[index]["persons"]
        size = [int(record["height"]), int(record["width"])]
        for number, counts, area in zip(
            people["id"], people["segmentation"], people["area"], strict=True
        ):
            if counts and int(number) in exact and area > 1000:
                mask = run_lengths.decode({"size": size, "counts": counts})
                ratios.append(mask.sum() / area)
    assert len(ratios) > 50
    assert abs(np.median(ratios) - 1) < 0.02


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bbox": [4, 6, -20, 30]}, "box of negative size"),
        ({"bbox": [4, 6, math.nan, 30]}, "box not finite numbers"),
        ({"bbox": [4, 6, 20]}, "wrong number of box"),
        ({"bbox": None}, "box missing"),
        ({"bbox": [70, 6, 20, 30]}, "box off the image"),
        ({"keypoints": JOINTS[:-3]}, "wrong number of joints"),
        ({"keypoints": [math.inf, *JOINTS[1:]]}, "joints not finite numbers"),
        ({"keypoints": ["1", *JOINTS[1:]]}, "joints not finite numbers"),
        ({"keypoints": [10, 12, 4, *JOINTS[3:]]}, "visibility other than 0, 1, 2"),
        ({"id": "a"}, "annotation without id"),
        ({"id": 1}, "annotation id used before"),
        ({"image_id": 9}, "annotation of an image that is not listed"),
    ],
)
def test_bad_annotation_is_dropped_under_its_reason(folder, changes, reason):
    bad = annotation(2, **changes)
    account, source = prepare(folder, [entry(1)], [annotation(1), bad])
    assert account.dropped["persons"] == {reason: 1}
    assert account.kept == {"images": 1, "persons": 1}
    assert list(source[0]["persons"]["id"]) == [1]


@pytest.mark.parametrize("cut", [0, 1, 40, -5])
def test_images_that_cannot_be_used_are_counted_with_their_people(folder, cut):
    path = folder / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:cut])
    images = [entry(1), entry(2), entry(3), entry(4), entry(1), {"id": 7}]
    people = [annotation(n, image) for n, image in enumerate((1, 2, 2, 3, 4), start=1)]
    account, source = prepare(folder, images, people)
    assert account.dropped["images"] == {
        "image unreadable": 1,
        "image file missing": 1,
        "image id used before": 1,
        "image without id or file_name": 1,
    }
    assert account.dropped["persons"] == {
        "image unreadable": 2, "image file missing": 1
    }  # fmt: skip
    assert account.kept == {"images": 2, "persons": 2}
    assert [int(source[i]["image_id"]) for i in range(2)] == [1, 3]


def test_crowd_regions_and_people_without_joints_are_kept_with_flags(folder):
    region = {"size": [50, 60], "counts": [100, 50, 2850]}
    people = [
        annotation(1),
        annotation(2, iscrowd=1, keypoints=[0] * 51, segmentation=region),
        annotation(3, keypoints=[0] * 51),
        {"id": 4, "image_id": 1, "bbox": [0, 0, 5, 5], "iscrowd": 1},
    ]
    _, source = prepare(folder, [entry(1), entry(2)], people)
    found = source[0]["persons"]
    assert list(found["is_crowd"]) == [False, True, False, True]
    assert list(found["is_target"]) == [True, False, False, False]
    assert source.max_persons == 1
    mask = run_lengths.decode({"size": [50, 60], "counts": found["segmentation"][1]})
    assert mask.sum() == 50
    kept = records.kept_pixels(source[0])
    assert kept[8, 1] == 255
    assert not kept[:, 2].any()  # the crowd region
    assert not kept[7:35, 5:23].any()  # person 3, who has a segment and no joints
    assert len(source[1]["persons"]["id"]) == 0
    assert source[1]["persons"]["joints"].shape == (0, 17, 3)


def test_missing_areas_are_estimated_and_noted(folder):
    people = [annotation(n) for n in (1, 2, 3)]
    del people[0]["area"]
    people[1]["area"] = math.nan
    account, source = prepare(folder, [entry(1)], people)
    expected = [0.53 * 600, 0.53 * 600, 300]
    np.testing.assert_allclose(source[0]["persons"]["area"], expected, rtol=1e-6)
    assert account.notes == {"areas estimated as 0.53 of the box": 2}


def test_swapped_sizes_are_taken_from_the_pixels(folder):
    images = [entry(1, height=60, width=50)]
    account, source = prepare(folder, images, [annotation(1, bbox=[52, 6, 5, 30])])
    assert account.kept["persons"] == 1
    assert (source[0]["height"], source[0]["width"]) == (50, 60)
    assert sum(account.notes.values()) == 1


def test_damaged_segments_are_left_out_and_noted(folder):
    bad = [
        [[4, 6, 24, 6]],
        [["a"] * 8],
        {"size": [9, 9], "counts": [81]},
        {"size": [50, 60], "counts": "!"},
        {"counts": [3000]},
        7,
    ]
    people = [annotation(n, segmentation=s) for n, s in enumerate(bad, start=1)]
    account, source = prepare(folder, [entry(1)], people)
    assert account.notes == {"segmentations left out as damaged": len(bad)}
    assert set(source[0]["persons"]["segmentation"]) == {b""}


def test_compressed_segments_stay_as_they_are(folder):
    mask = np.zeros((50, 60), np.uint8, order="F")
    mask[5:9, 7:30] = 1
    counts = run_lengths.encode(mask)["counts"]
    value = {"size": [50, 60], "counts": counts.decode()}
    assert one_person(folder, segmentation=value)["segmentation"] == counts


def test_guessed_joints_count_as_occluded(folder):
    joints = [10, 12, 3, *JOINTS[3:]]
    assert one_person(folder, keypoints=joints)["joints"][0, 2] == 1
    download = coco.read(folder / "annotations.json", skeletons.COCO)
    assert download.remarks == {"joints of visibility 3, taken as occluded": 1}


def test_joints_outside_their_image_are_kept_and_noted(folder):
    joints = [-5, 12, 2, 61, 12, 1, *JOINTS[6:]]
    account, source = prepare(folder, [entry(1)], [annotation(1, keypoints=joints)])
    assert account.notes == {"labelled joints outside their image": 2}
    np.testing.assert_array_equal(source[0]["persons"]["joints"][0, 0], [-5, 12, 2])


def test_crowd_index_and_facts_of_the_file_are_stored(folder):
    images = [entry(1, crowdIndex=0.4), entry(2), entry(3, crowdIndex=math.nan)]
    _, source = prepare(
        folder, images, [annotation(1)], licenses=[{"name": "CC BY 4.0", "id": 1}]
    )
    index = [float(source[i]["crowd_index"]) for i in range(3)]
    np.testing.assert_allclose(index, [0.4, -1, -1], rtol=1e-6)
    facts = json.loads((source.path / "metadata.json").read_text())["splits"]["train"]
    assert facts["licence"] == "CC BY 4.0"
    assert facts["annotations"] == "annotations.json"
    assert len(facts["sha256"]) == 64


def test_files_that_are_wrong_as_a_whole_are_one_line_each(folder):
    file = folder / "annotations.json"
    good = {"images": [entry(1)], "annotations": [annotation(1)]}

    def attempt(text: str | bytes, images="images", name=file, **options):
        name.write_bytes(text.encode() if isinstance(text, str) else text)
        out = folder / "datasets"
        coco.prepare(out, "small", "train", folder / images, name, **options)

    elsewhere = copy.deepcopy(good)
    elsewhere["images"][0]["file_name"] = "nowhere.jpg"
    packed = folder / "annotations.json.gz"
    cases = [
        ("there is no folder .*absent", {"images": "absent"}, json.dumps(good)),
        ("is no JSON file", {}, '{"images": [1, 2'),
        ("has no list 'annotations'", {}, '{"images": []}'),
        ("has no list 'images'", {}, "[]"),
        ("annotations.json.gz cannot be read", {"name": packed},
         gzip.compress(b"{}")[:-4]),
        ("has none of the images, such as 'nowhere.jpg'", {}, json.dumps(elsewhere)),
        ("has 17 joints a person, crowdpose has 14",
         {"skeleton": skeletons.CROWDPOSE}, json.dumps(good)),
    ]  # fmt: skip
    for message, options, text in cases:
        with pytest.raises(UserError, match=message) as caught:
            attempt(text, **options)
        assert "\n" not in str(caught.value)
    assert not list((folder / "datasets").rglob("*.json"))
    with pytest.raises(UserError, match="cannot be read"):
        coco.read_json(folder / "no.json")
    attempt(gzip.compress(json.dumps(good).encode()), name=packed)


def test_command_writes_a_dataset_or_one_line(folder):
    file = folder / "annotations.json"
    file.write_text(json.dumps({"images": [entry(1)], "annotations": [annotation(1)]}))

    def run(images: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "data_prep.coco", "--name", "small"]
        command += ["--images", images, "--annotations", str(file)]
        command += ["--out", str(folder / "datasets")]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    failed = run(str(folder / "absent"))
    assert failed.returncode == 1
    assert (
        failed.stderr == f"error: --images: there is no folder {folder / 'absent'}.\n"
    )
    done = run(str(folder / "images"))
    assert done.returncode == 0, done.stderr
    assert "images    in        1  kept        1" in done.stdout
