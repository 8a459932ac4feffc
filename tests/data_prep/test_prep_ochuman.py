import json
import subprocess
import sys

import built
import cv2
import numpy as np
import pytest
from faster_coco_eval.core import mask as run_lengths

from data_prep import ochuman
from occjax import skeletons
from occjax.errors import UserError


@pytest.fixture
def sample(photographs):
    folder = photographs / "ochuman"
    file = folder / "annotations" / "ochuman.json"
    return folder / "images", file, json.loads(file.read_text())


def originals(content):
    return [one for image in content["images"] for one in image["annotations"]]


def test_all_joints_come_back_from_the_file_of_its_own(sample, tmp_path):
    images, file, content = sample
    account, source = built.build(tmp_path, images, ochuman.read(file, joints=19))
    assert account.given == account.kept == {"images": 10, "persons": 29}
    assert source.skeleton is skeletons.OCHUMAN
    assert content["keypoint_names"] == list(source.skeleton.joints)
    people = built.people_of(source)
    seen = {1: 2, 2: 1, 3: 1}
    for number, original in enumerate(originals(content), start=1):
        person = people[number]
        x0, y0, x1, y1 = original["bbox"]
        np.testing.assert_array_equal(person["bbox"], [x0, y0, x1 - x0, y1 - y0])
        assert person["area"] == (x1 - x0) * (y1 - y0)
        assert person["is_target"] == (original["keypoints"] is not None)
        if original["keypoints"] is None:
            assert not person["joints"].any()
            continue
        joints = np.reshape(original["keypoints"], (19, 3))
        expected = [(x, y, seen[v]) if v else (0, 0, 0) for x, y, v in joints]
        np.testing.assert_array_equal(person["joints"], np.float32(expected))


def test_coco_joints_of_both_files_are_the_same(sample, photographs, tmp_path):
    """The shared COCO-format file has self-occluded joints as occluded."""
    images, file, _ = sample
    other = photographs / "ochuman" / "annotations" / "ochuman_coco17.json"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    own = built.build(tmp_path / "a", images, ochuman.read(file))[1]
    coco = built.build(tmp_path / "b", images, ochuman.read(other))[1]
    assert own.skeleton is coco.skeleton is skeletons.COCO
    content = json.loads(other.read_text())
    ours, theirs = built.people_of(own), built.people_of(coco)
    assert list(ours) == list(theirs) == [a["id"] for a in content["annotations"]]
    for original in content["annotations"]:
        number = original["id"]
        joints = np.float32(original["keypoints"]).reshape(17, 3)
        np.testing.assert_array_equal(ours[number]["joints"], joints)
        for name in ("joints", "bbox", "area", "is_target"):
            np.testing.assert_array_equal(ours[number][name], theirs[number][name])


def test_self_occluded_joints_can_be_visible_as_in_the_official_coco_files(sample):
    _, file, content = sample
    flat = [one["keypoints"] for one in originals(content) if one["keypoints"]]
    native = np.reshape(flat, (-1, 19, 3))[..., 2]
    for option, hidden in (("occluded", {2, 3}), ("visible", {3})):
        download = ochuman.read(file, joints=19, self_occluded=option)
        people = download.content["annotations"]
        joints = [one["keypoints"] for one in people if "keypoints" in one]
        marks = np.reshape(joints, (-1, 19, 3))[..., 2]
        np.testing.assert_array_equal(marks == 1, np.isin(native, list(hidden)))
        np.testing.assert_array_equal(marks == 0, native == 0)
        assert download.facts["self_occluded"] == option


def test_masks_are_the_outer_polygons_less_the_inner_ones(sample, tmp_path):
    images, file, content = sample
    _, source = built.build(tmp_path, images, ochuman.read(file))
    people = built.people_of(source)
    sizes = {int(source[i]["image_id"]): (source[i]["height"], source[i]["width"])
             for i in range(len(source))}  # fmt: skip
    number, holes = 0, 0
    for image in content["images"]:
        for original in image["annotations"]:
            number += 1
            counts = people[number]["segmentation"]
            assert bool(counts) == bool(original["segms"])
            if counts:
                size = [int(n) for n in sizes[int(image["image_id"])]]
                mask = run_lengths.decode({"size": size, "counts": counts})
                drawn = np.zeros(size, np.uint8)
                for value, name in ((1, "outer"), (0, "inner")):
                    for corners in original["segms"][name]:
                        points = (
                            np.reshape(corners, (-1, 1, 2)).round().astype(np.int32)
                        )
                        cv2.fillPoly(drawn, [points], value)
                        holes += name == "inner"
                assert np.sum(mask & drawn) > 0.88 * np.sum(mask | drawn)
    assert holes > 0


def test_holes_are_cut_out(tmp_path):
    square = [2, 2, 18, 2, 18, 18, 2, 18]
    hole = [6, 6, 12, 6, 12, 12, 6, 12]
    segms = {"outer": [square], "inner": [hole], "height": 20, "width": 30}
    person = {"bbox": [2, 2, 18, 18], "keypoints": None, "segms": segms}
    image = {"image_id": "000007", "file_name": "a.jpg", "annotations": [person]}
    file = tmp_path / "ochuman.json"
    file.write_text(json.dumps({"images": [image]}))
    (found,) = ochuman.read(file).content["annotations"]
    mask = run_lengths.decode(
        {**found["segmentation"], "counts": found["segmentation"]["counts"].encode()}
    )
    assert mask.shape == (20, 30)
    assert mask[4, 4] == mask[15, 15] == 1
    assert not mask[8:11, 8:11].any()
    assert found["image_id"] == 7


def test_parts_are_the_official_validation_and_test_images(tmp_path):
    """The first 2,500 images that have somebody with joints and a mask; the rest."""
    person = {"bbox": [0, 0, 9, 9], "keypoints": [5, 5, 1] * 19, "segms": {"outer": []}}
    images = [
        {
            "image_id": f"{number:06d}",
            "file_name": f"{number:06d}.jpg",
            "annotations": [
                {**person, "segms": None if number % 10 == 0 else {"a": 1}}
            ],
        }
        for number in range(1, 3001)
    ]
    file = tmp_path / "ochuman.json"
    file.write_text(json.dumps({"images": images}))
    ids = {
        part: [i["id"] for i in ochuman.read(file, part=part).content["images"]]
        for part in ("all", "val", "test")
    }
    assert len(ids["all"]) == 3000
    scored = [number for number in range(1, 3001) if number % 10]
    assert ids["val"] == scored[:2500]
    assert ids["test"] == scored[2500:]
    assert ochuman.read(file, part="val").remarks == {"images of another --part": 500}


def test_what_the_coco_format_file_does_not_have_is_refused(photographs, tmp_path):
    file = photographs / "ochuman" / "annotations" / "ochuman_coco17.json"
    for options in ({"joints": 19}, {"part": "val"}):
        with pytest.raises(UserError, match="is in COCO's format, so --"):
            ochuman.read(file, **options)
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps({"images": [], "keypoint_names": ["nose"]}))
    with pytest.raises(UserError, match="has the joints"):
        ochuman.read(odd)
    odd.write_text("[]")
    with pytest.raises(UserError, match="is no file of OCHuman"):
        ochuman.read(odd)


def test_bad_entries_reach_the_account(sample, tmp_path):
    images, _, content = sample
    image = content["images"][0]
    good = image["annotations"][0]
    image["annotations"] += [
        {**good, "bbox": [1, 2, 3]},
        {**good, "bbox": [90, 90, 10, 10]},
        {**good, "keypoints": good["keypoints"][:51]},
        {**good, "keypoints": [9, 9, 4] * 19},
        {**good, "keypoints": ["a"] * 57},
        7,
    ]
    file = tmp_path / "ochuman.json"
    file.write_text(json.dumps({**content, "images": [image]}))
    account, _ = built.build(tmp_path, images, ochuman.read(file))
    assert account.kept == {"images": 1, "persons": 2}
    assert account.dropped["persons"] == {
        "wrong number of box": 1,
        "box of negative size": 1,
        "wrong number of joints": 1,
        "visibility other than 0, 1, 2": 1,
        "joints not finite numbers": 1,
        "box missing": 1,
    }


def test_command_keeps_the_name_for_seventeen_joints(sample, tmp_path):
    images, file, _ = sample
    command = [sys.executable, "-m", "data_prep.ochuman", "--joints", "19"]
    command += ["--images", str(images), "--annotations", str(file)]
    command += ["--out", str(tmp_path)]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: --joints 19 needs another --name")
    command += ["--name", "ochuman19"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "persons   in       29  kept       29" in done.stdout
