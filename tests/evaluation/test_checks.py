import copy
import gzip
import json
import math

import pytest

from occjax.errors import UserError
from occjax.evaluation import checks, coco
from occjax.skeletons import COCO

HUGE = 10**400  # json knows such integers; no float does


@pytest.fixture
def truth():
    """Five people on as many images."""
    person = {"category_id": 1, "iscrowd": 0, "num_keypoints": 17, "area": 50.0}
    person |= {"keypoints": [1, 2, 2] * 17, "bbox": [0, 0, 10.5, 10]}
    people = [
        {"id": i, "image_id": i + 10, **copy.deepcopy(person)} for i in range(1, 6)
    ]
    images = [{"id": i + 10} for i in range(1, 6)]
    return {"images": images, "annotations": people, "categories": [{"id": 1}]}


@pytest.fixture
def found():
    """One detection on each image."""
    pose = {"category_id": 1, "keypoints": [1.5, 2.0, 0.5] * 17, "score": 0.5}
    return [{"image_id": i + 10, **copy.deepcopy(pose)} for i in range(1, 6)]


def refused(truth, found, message):
    with pytest.raises(UserError, match=message) as caught:
        coco.Matches(truth, found, COCO, ("A.json", "D.json"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_sound_input_passes(truth, found):
    assert coco.evaluate(truth, found, COCO)["AP"] > 0
    found[2]["visible"] = "whatever"  # not of this evaluation
    assert coco.evaluate(truth, found, COCO)["AP"] > 0


def test_empty_list_is_sound_and_scores_zero(truth):
    metrics = coco.evaluate(truth, [], COCO)
    assert metrics["AP"] == metrics["AR"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": math.nan}, "item 3: .*finite.*nan as score"),
        ({"score": None}, "item 3: .*finite.*None as score"),
        ({"score": "0.5"}, "item 3: .*finite.*'0.5' as score"),
        ({"score": HUGE}, "item 3: a number of score is too large"),
        ({"score": [0.5]}, r"item 3: .*finite.*\[0.5\] as score"),
        ({"keypoints": [0.0] * 42}, "item 3: expected 51 numbers, got 42"),
        ({"keypoints": [math.inf] * 51}, "item 3: .*inf as keypoints"),
        ({"keypoints": "none"}, "item 3: expected 51 numbers, got str"),
        ({"keypoints": [1] * 50 + [None]}, "item 3: .*finite.*None"),
        ({"keypoints": [1] * 50 + ["1"]}, "item 3: .*finite.*'1'"),
        ({"keypoints": [1] * 50 + [HUGE]}, "item 3: a number of keypoints is too lar"),
        ({"keypoints": [1.5] * 50 + [HUGE]}, "item 3: a number of keypoints is too"),
        ({"keypoints": [[1, 2, 1]] * 17}, "item 3: expected 51 numbers, got 17"),
        ({"keypoints": [[1]] * 51}, r"item 3: .*finite.*\[1\]"),
        (
            {"image_id": 999},
            "item 3 has image_id 999; expected one of the 5 of the gro",
        ),
        ({"image_id": "14"}, "item 3 has image_id '14'"),
        ({"image_id": [14]}, r"item 3 has image_id \[14\]"),
        ({"category_id": 2}, r"item 3 has category_id 2; expected one of \[1\]"),
    ],
)
def test_bad_detection_is_named(truth, found, change, message):
    found[3] |= change
    refused(truth, found, f"D.json: {message}")


def test_every_detection_of_another_shape_is_seen_too(truth, found):
    for item in found:
        item["keypoints"] = [[1, 2, 1]] * 17
    refused(truth, found, "D.json: item 0: expected 51 numbers, got 17")


def test_bad_item_far_down_a_long_list_is_named(truth, found):
    many = found * 5000
    many[23456] = many[23456] | {"score": math.inf}
    refused(truth, many, "D.json: item 23456: .*inf")


def test_box_of_the_first_detection_asks_for_one_of_everybody(truth, found):
    found[0]["bbox"] = [0, 0, 1, 1]
    refused(truth, found, "D.json: item 1 lacks 'bbox'")
    for item in found:
        item["bbox"] = [0, 0, 1]
    refused(truth, found, "D.json: item 0: expected 4 numbers, got 3 as bbox")


def test_what_is_no_list_of_detections_is_named(truth, found):
    del found[1]["score"]
    refused(truth, found, "D.json: item 1 lacks 'score'")
    found[0] = 7
    refused(truth, found, "D.json: item 0: expected an object, got int")
    for other, kind in (({"a": 1}, "dict"), (None, "NoneType"), ("x", "str")):
        refused(truth, other, f"D.json: expected a COCO result list, got {kind}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"area": -1.0}, "annotation 2 has area -1.0; expected 0 or more"),
        ({"area": math.nan}, "annotation 2: .*nan"),
        ({"area": HUGE}, "annotation 2: a number of area is too large"),
        ({"iscrowd": None}, "annotation 2: .*None as iscrowd"),
        ({"num_keypoints": "17"}, "annotation 2: .*'17' as num_keypoints"),
        ({"bbox": [1, 2, 3]}, "annotation 2: expected 4 numbers, got 3"),
        ({"keypoints": [1] * 42}, "annotation 2: expected 51 numbers, got 42"),
        ({"image_id": 999}, "annotation 2 has image_id 999"),
        ({"category_id": 3}, "annotation 2 has category_id 3"),
        ({"id": 1}, "annotations: id 1 occurs more than once"),
        ({"id": 0}, "annotations: item 1 has id 0; expected an integer of 1 to"),
        ({"id": -7}, "annotations: item 1 has id -7"),
        ({"id": "2"}, "annotations: item 1 has id '2'; expected an integer"),
        ({"id": 2**53 + 1}, "annotations: item 1 has id 9007199254740993"),
        ({"id": None}, "annotations: item 1 has no id"),
    ],
)
def test_bad_annotation_is_named(truth, change, message):
    truth["annotations"][1] |= change
    refused(truth, [], f"A.json: {message}")


def test_bad_image_or_category_is_named(truth):
    truth["images"][0]["id"] = 2**60
    refused(truth, [], "A.json: images: item 0 has id 1152921504606846976; expected")
    truth["images"][0] = 3
    refused(truth, [], "A.json: images: item 0 has no id")
    truth["images"][0] = {"id": -11}
    refused(truth, [], "A.json: annotation 1 has image_id 11")
    truth["categories"][0] = {"id": "person"}
    refused(truth, [], "A.json: categories: item 0 has id 'person'")


def test_missing_key_of_the_ground_truth_is_named(truth):
    del truth["annotations"][4]["area"]
    refused(truth, [], "A.json: annotation 5 lacks 'area'")
    checks.check_ground_truth(truth, COCO, area=False)
    del truth["annotations"]
    refused(truth, [], "A.json: .*'annotations'")
    refused([], [], "A.json: expected a COCO json object")


def packed(content):
    return gzip.compress(json.dumps(content).encode(), mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.json", b'[{"image_id": 1,', "is not json: Expecting property name"),
        ("deep.json", b"[" * 100_000, "is not json"),
        ("binary.json", packed([]), "is not json: .*utf-8"),
        ("digits.json", b"[" + b"9" * 5000 + b"]", "is not json"),
        ("plain.json.gz", b"[]", "cannot be read: Not a gzipped file"),
        ("cut.json.gz", packed(list(range(999)))[:-20], "cannot be read: Compressed"),
        ("foul.json.gz", packed([1])[:10] + b"\xff" * 20, "cannot be read: .*[Ee]rror"),
        ("crc.json.gz", packed([1])[:-8] + b"\0" * 8, "cannot be read: CRC"),
        ("absent.json", None, "cannot be read: No such file"),
    ],
)
def test_unreadable_json_is_one_line_with_the_path(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        checks.read_json(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_json_is_read_plain_and_gzipped(tmp_path):
    content = {"names": ["Zoë"], "number": 0.1}
    (tmp_path / "a.json").write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    (tmp_path / "a.json.gz").write_bytes(packed(content))
    assert checks.read_json(tmp_path / "a.json") == content
    assert checks.read_json(str(tmp_path / "a.json.gz")) == content
