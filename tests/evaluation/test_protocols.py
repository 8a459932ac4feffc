import copy
import json
import math

import numpy as np
import pytest

from occjax.errors import UserError
from occjax.evaluation import checks, coco, evaluators, pck, protocols
from occjax.skeletons import CROWDPOSE, OCPOSE


def person(joints, index, image=1, x=0.0, **more):
    """Somebody whose joints lie on a diagonal through his box of 100 x 50."""
    flat = np.stack([np.linspace(x, x + 100, joints), np.linspace(0, 50, joints)], -1)
    flat = np.concatenate([flat, np.full((joints, 1), 2.0)], axis=-1).reshape(-1)
    facts = {"id": index, "image_id": image, "category_id": 1, "num_keypoints": joints}
    facts |= {"bbox": [x, 0.0, 100.0, 50.0], "iscrowd": 0}
    return facts | {"keypoints": flat.tolist(), **more}


def pose(joints, image=1, x=0.0, score=0.5, **more):
    keypoints = person(joints, 1, image, x)["keypoints"]
    facts = {"image_id": image, "category_id": 1, "score": score}
    return facts | {"keypoints": keypoints, **more}


def labels(*people, images=(1,), **more):
    return {
        "images": [{"id": image, **more} for image in images],
        "annotations": list(people),
        "categories": [{"id": 1, "name": "person"}],
    }


def score(name, truth, found):
    protocol = protocols.BY_NAME[name]
    before = json.dumps([truth, found])
    truth_then, _, matches = protocol.match(truth, found)
    metrics = protocol.metrics(truth_then, matches)
    assert json.dumps([truth, found]) == before  # neither is changed
    return metrics


@pytest.fixture
def crowd(photographs):
    folder = photographs / "eval_reference"
    name = "xtcocotools_example_crowdpose"
    return (
        checks.read_json(folder / f"{name}.ground_truth.json"),
        checks.read_json(folder / f"{name}.detections.json"),
    )


def test_area_of_crowdpose_is_about_half_of_the_box():
    truth = labels(person(14, 1), crowdIndex=0.1)
    (item,) = protocols.BY_NAME["crowdpose"].truth(truth)["annotations"]
    assert item["area"] == pytest.approx(0.53 * 100 * 50)
    truth["annotations"][0]["area"] = 7.0  # whatever the file says
    assert protocols.BY_NAME["crowdpose"].truth(truth)["annotations"] == [item]


def test_levels_of_crowding_part_the_images_at_their_edges():
    indices = {1: 0.0, 2: 0.19, 3: 0.2, 4: 0.79, 5: 0.8, 6: 3}
    people = [person(14, image, image) for image in indices]
    truth = labels(*people, images=indices)
    for image in truth["images"]:
        image["crowdIndex"] = indices[image["id"]]
    expected = {"easy": (1, 2), "medium": (3, 4), "hard": (5, 6)}
    for level, images in expected.items():
        found = [pose(14, image) for image in images]
        metrics = score("crowdpose", truth, found)
        named = {name: metrics[f"AP_crowd_{name}"] for name in expected}
        assert named == pytest.approx({n: float(n == level) for n in expected})
        assert metrics["AR"] == pytest.approx(1 / 3)
    assert "AP_large" not in metrics
    assert score("coco", labels(person(17, 1, area=5e3)), [])["AP_large"] == -1


@pytest.mark.parametrize("index", [None, "0.1", math.nan, -1])
def test_image_without_a_crowd_index_is_named(index):
    truth = labels(person(14, 1), crowdIndex=index)
    with pytest.raises(UserError, match="A: image 1: crowdpose needs a crowdIndex"):
        protocols.BY_NAME["crowdpose"].truth(truth, "A")


def test_crowdpose_skips_poses_without_any_confidence():
    truth = labels(person(14, 1), crowdIndex=0.5)
    sure, unsure = pose(14, score=0.1), pose(14, x=500.0, score=0.9)
    unsure["keypoints"][2::3] = [0.0] * 14
    assert score("crowdpose", truth, [unsure, sure])["AP"] == pytest.approx(1)
    unsure["keypoints"][5] = 0.01
    assert score("crowdpose", truth, [unsure, sure])["AP"] == pytest.approx(0.5)


def test_twelve_joints_of_crowdpose_leave_head_and_neck_out(crowd):
    truth, found = crowd
    protocol = protocols.BY_NAME["crowdpose-12"]
    cut = protocol.truth(truth)
    assert [kind["keypoints"] for kind in cut["categories"]] == [list(OCPOSE.joints)]
    for item, whole in zip(cut["annotations"], truth["annotations"], strict=True):
        assert item["keypoints"] == whole["keypoints"][:36]
        assert item["num_keypoints"] == whole["num_keypoints"]
    metrics = score("crowdpose-12", truth, found)
    assert 0 < metrics["AP"] < 1
    moved = copy.deepcopy(found)
    for item in moved:  # head and neck far off
        item["keypoints"][36::3] = [9e4, 9e4]
    assert score("crowdpose-12", truth, moved) == metrics
    assert (
        score("crowdpose", truth, moved)["AP"] < score("crowdpose", truth, found)["AP"]
    )
    short = [item | {"keypoints": item["keypoints"][:36]} for item in found]
    assert score("crowdpose-12", truth, short) == metrics
    mixed = [*short, found[0]]
    with pytest.raises(UserError, match="expected 36 numbers, got 42"):
        protocol.match(truth, mixed)
    assert CROWDPOSE.joints[:12] == OCPOSE.joints


def test_ochuman_is_scored_with_the_area_in_the_file_or_with_that_of_the_mask():
    square = [[0.0, 0.0, 20.0, 0.0, 20.0, 20.0, 0.0, 20.0]]
    truth = labels(person(17, 1, area=5000.0), height=200, width=200)
    (item,) = truth["annotations"]
    found = [pose(17)]
    found[0]["keypoints"][0::3] = [x + 8 for x in found[0]["keypoints"][0::3]]
    as_it_is = score("ochuman", truth, found)["AP"]

    halves = [[0, 0, 10, 0, 10, 20, 0, 20], [10, 0, 20, 0, 20, 20, 10, 20]]
    runs = {"size": [200, 200], "counts": [0, *[20, 180] * 19, 20, 36180]}
    packed = {"size": [200, 200], "counts": "0"}
    from pycocotools import mask

    packed = mask.frPyObjects(runs, 200, 200)
    packed["counts"] = packed["counts"].decode()
    for shape in (square, halves, runs, packed):
        item["segmentation"] = shape
        (scored,) = protocols.BY_NAME["ochuman-mask"].truth(truth)["annotations"]
        assert scored["area"] == 400
        assert score("ochuman-mask", truth, found)["AP"] < as_it_is
    assert score("ochuman", truth, found)["AP"] == as_it_is


@pytest.mark.parametrize("shape", [None, [], [[1, 2]], {"counts": [1]}, "mask"])
def test_person_without_a_mask_is_named_unless_he_does_not_count(shape):
    truth = labels(person(17, 1, segmentation=shape), height=200, width=200)
    with pytest.raises(UserError, match="A: annotation 1: expected polygons or run"):
        protocols.BY_NAME["ochuman-mask"].truth(truth, "A")
    truth["annotations"][0]["num_keypoints"] = 0
    protocols.BY_NAME["ochuman-mask"].truth(truth, "A")


def test_joints_that_coco_re_labels_anew_count_as_occluded():
    item = person(17, 1, area=5000.0)
    item["keypoints"][2::3] = [0] * 8 + [1] * 2 + [2] * 3 + [3] * 4
    item["num_keypoints"] = 5  # as COCO has it
    truth = labels(item)
    (scored,) = protocols.BY_NAME["coco-re"].truth(truth)["annotations"]
    assert scored["keypoints"][2::3] == [0] * 8 + [1] * 2 + [2] * 3 + [1] * 4
    assert scored["num_keypoints"] == 9
    item["keypoints"][2::3] = [0] * 13 + [3] * 4
    item["num_keypoints"] = 0
    found = [pose(17)]
    assert score("coco-re", truth, found)["AP"] == pytest.approx(1)
    assert score("coco", truth, found)["AP"] == coco.UNDEFINED


def background():
    """Two targets that overlap, both found, and false alarms of three kinds."""
    truth = labels(person(12, 1), person(12, 2, x=30.0))
    # A box of 100 moved by d has an IoU of (100 - d) / (100 + d): 0.3 at d = 53.8.
    found = [pose(12, score=0.5), pose(12, x=30.0, score=0.4)]
    near, off = pose(12, x=-53.0, score=0.9), pose(12, x=-55.0, score=0.9)
    return truth, found, near, off


def test_ocpose_forgives_detections_of_people_behind_the_targets():
    truth, found, near, off = background()
    assert score("ocpose", truth, found)["AP"] == pytest.approx(1)
    assert score("ocpose", truth, [off, *found])["AP"] == pytest.approx(1)
    assert score("ocpose-all", truth, [off, *found])["AP"] == pytest.approx(2 / 3)
    assert score("ocpose", truth, [near, *found])["AP"] == pytest.approx(2 / 3)
    # A box that is given decides, not the joints.
    boxed = [item | {"bbox": [0, 0, 100, 50]} for item in [off, *found]]
    assert score("ocpose", truth, boxed)["AP"] == pytest.approx(2 / 3)
    boxed[0]["bbox"] = [900, 900, 9, 9]
    assert score("ocpose", truth, boxed)["AP"] == pytest.approx(1)


def test_oracle_keeps_the_best_detection_of_each_target():
    truth, found, near, off = background()
    worse = [pose(12, x=3.0, score=0.99), pose(12, x=28.0, score=0.98)]
    many = [near, *worse, *found, off] + [pose(12, x=-60.0 - k) for k in range(30)]
    protocol = protocols.BY_NAME["ocpose-oracle"]
    assert protocol.found(protocol.truth(truth), many) == found
    assert score("ocpose-oracle", truth, many)["AP"] == pytest.approx(1)
    assert protocol.found(protocol.truth(truth), []) == []
    far = [pose(12, x=1e6)]  # OKS 0 with everybody
    assert protocol.found(protocol.truth(truth), far) == []


def test_oracle_takes_the_first_of_equals_and_passes_over_who_does_not_count():
    truth, found, _, _ = background()
    twice = [found[0] | {"score": 0.9}, found[0], found[1]]
    protocol = protocols.BY_NAME["ocpose-oracle"]
    assert protocol.found(protocol.truth(truth), twice) == [twice[0], found[1]]
    truth["annotations"][0]["num_keypoints"] = 0
    assert protocol.found(protocol.truth(truth), twice) == [found[1]]


@pytest.mark.parametrize("name", protocols.BY_NAME)
def test_every_protocol_scores_a_perfect_detector_one_and_none_zero(name):
    protocol = protocols.BY_NAME[name]
    joints = (protocol.file_skeleton or protocol.skeleton).num_joints
    square = [[0.0, 0.0, 90.0, 0.0, 90.0, 50.0, 0.0, 50.0]]
    facts = {"area": 5000.0, "segmentation": square}
    people = [person(joints, 1, 4, **facts), person(joints, 2, 9, **facts)]
    truth = labels(*people, images=(4, 9), crowdIndex=0.5, height=100, width=200)
    metrics = score(name, truth, [pose(joints, 4), pose(joints, 9)])
    assert metrics["AP"] == pytest.approx(1)
    assert metrics["AR90"] == pytest.approx(1)
    assert score(name, truth, [])["AP"] == score(name, truth, [])["AR"] == 0
    lines = coco.table(metrics).splitlines()
    assert len({len(line) for line in lines[1:]}) == 1
    assert len(lines[0].split()) == len(lines[2].split()) - 1
    json.dumps(protocol.stamp())


def test_prepared_ground_truth_stays_as_it_is_when_prepared_again(crowd):
    for name in ("crowdpose", "coco-re", "ochuman"):
        truth = crowd[0] if name == "crowdpose" else labels(person(17, 1, area=5e3))
        protocol = protocols.BY_NAME[name]
        once = protocol.truth(truth)
        assert protocol.truth(once) == once


def test_malformed_files_are_named_before_anything_is_made_of_them(crowd):
    protocol = protocols.BY_NAME["crowdpose"]
    truth, found = crowd
    with pytest.raises(UserError, match="D: item 0: .*nan"):
        protocol.match(truth, [found[0] | {"score": math.nan}], ("A", "D"))
    people = [truth["annotations"][0] | {"bbox": [1, 2, None, 4]}]
    with pytest.raises(UserError, match="A: annotation 165388: .*None as bbox"):
        protocol.match(truth | {"annotations": people}, found, ("A", "D"))
    with pytest.raises(UserError, match="D: expected a COCO result list"):
        protocols.BY_NAME["crowdpose-12"].match(truth, {"keypoints": 1}, ("A", "D"))


def test_stamps_differ_wherever_figures_may():
    stamps = [
        kind.stamp() for kind in (*protocols.BY_NAME.values(), *pck.BY_NAME.values())
    ]
    names = [stamp.pop("protocol") for stamp in stamps]
    assert len(set(names)) == len(names) == 11
    by_name = dict(zip(names, stamps, strict=True))
    assert by_name["ochuman"] != by_name["ochuman-mask"]
    assert by_name["ocpose"] != by_name["ocpose-all"] != by_name["ocpose-oracle"]
    for backend in evaluators.BY_NAME:
        stamp = protocols.BY_NAME["coco"].stamp(backend)
        assert stamp["evaluator"].startswith(f"{backend} ")
        assert stamp["detections_an_image"] == 20
