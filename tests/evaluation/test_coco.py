import json
import math

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from occjax.evaluation import coco, protocols
from occjax.skeletons import COCO, CROWDPOSE
from occjax.types import Poses


class Source:
    """Five images with two people each, drawn from a generator."""

    skeleton = COCO

    def __init__(self, rng, people=2):
        self.records = [self.record(rng, image, people) for image in range(5)]

    def record(self, rng, image, people):
        joints = rng.uniform(10, 190, (people, 17, 3)).astype(np.float32)
        joints[..., 2] = rng.integers(1, 3, (people, 17))
        low = joints[..., :2].min(axis=1)
        size = joints[..., :2].max(axis=1) - low
        persons = {
            "id": np.zeros(people, np.int64),
            "bbox": np.concatenate([low, size], axis=-1),
            "joints": joints,
            "area": np.prod(size, axis=-1),
            "is_crowd": np.zeros(people, bool),
            "segmentation": np.full(people, b"", object),
        }
        name = {"file_name": f"{image}.jpg", "height": 200, "width": 200}
        more = {"persons": persons, "crowd_index": np.float32(-1)}
        return {"image_id": np.int64(image + 7)} | more | name

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.records[index]


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def source(rng):
    return Source(rng)


def perfect(source, rng):
    """Poses [N, P + 1, ...] equal to the truth, with one empty row an image."""
    joints = np.stack([record["persons"]["joints"][..., :2] for record in source])
    joints = np.pad(joints, ((0, 0), (0, 1), (0, 0), (0, 0)))
    score = rng.uniform(0.2, 1, joints.shape[:2])
    score[:, -1] = -np.inf
    ones = np.ones(joints.shape[:3])
    return Poses(joints, ones, ones, ones, score)


def found_in(source, rng):
    ids = [record["image_id"] for record in source]
    return coco.detections(perfect(source, rng), ids, COCO)


def test_perfect_detector_has_ap_one(source, rng):
    metrics = coco.evaluate(coco.ground_truth(source), found_in(source, rng), COCO)
    sized = {name: value for name, value in metrics.items() if value != coco.UNDEFINED}
    assert set(sized.values()) == {1.0}
    assert {"AP", "AP50", "AP75", "AP80", "AP90", "AR", "AR90"} <= set(sized)


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE])
def test_one_joint_off_by_a_known_distance_has_the_oks_worked_by_hand(skeleton):
    count, area, joint = skeleton.num_joints, 5000.0, 3
    keypoints = np.full((count, 3), 2.0)
    keypoints[:, :2] = np.arange(2 * count).reshape(count, 2)
    # All other joints miss by a wide margin, so OKS is this joint's share alone.
    moved = keypoints + [1e4, 0, 0]
    distance = 2 * skeleton.sigmas[joint] * math.sqrt(area)  # exp(-1/2) each
    moved[:12] = keypoints[:12]
    moved[joint, 0] = keypoints[joint, 0] + distance
    oks = (11 + math.exp(-0.5)) / count  # 12 joints kept, one of them moved
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1}],
        "annotations": [
            {
                **{"id": 1, "image_id": 1, "category_id": 1, "num_keypoints": count},
                **{"area": area, "bbox": [0, 0, 50, 100], "iscrowd": 0},
                "keypoints": keypoints.reshape(-1).tolist(),
            }
        ],
    }
    item = {"image_id": 1, "category_id": 1, "score": 0.5}
    item["keypoints"] = moved.reshape(-1).tolist()

    metrics = coco.evaluate(truth, [item], skeleton)

    reached = sum(oks >= 0.5 + 0.05 * step for step in range(10)) / 10
    assert metrics["AP"] == pytest.approx(reached)
    assert 0 < reached < 1


def test_crowds_and_people_without_joints_are_neither_missed_nor_false(source, rng):
    found = found_in(source, rng)
    source.records[0]["persons"]["is_crowd"][0] = True
    source.records[1]["persons"]["joints"][1, :, 2] = 0
    truth = coco.ground_truth(source)
    ignored = [truth["annotations"][0], truth["annotations"][3]]

    assert ignored[0]["iscrowd"] == 1
    assert ignored[1]["num_keypoints"] == 0
    assert coco.evaluate(truth, found, COCO)["AP"] == 1
    places = [item["keypoints"][:2] for item in ignored]
    rest = [item for item in found if not np.allclose(item["keypoints"][:2], places[0])]
    rest = [item for item in rest if not np.allclose(item["keypoints"][:2], places[1])]
    assert len(rest) == len(found) - 2
    assert coco.evaluate(truth, rest, COCO)["AP"] == 1


def test_no_person_at_all_leaves_the_figures_undefined(rng):
    metrics = coco.evaluate(coco.ground_truth(Source(rng, people=0)), [], COCO)
    assert set(metrics.values()) == {coco.UNDEFINED}
    assert "-" in coco.table(metrics)


def test_evaluation_changes_neither_argument_and_prints_nothing(source, rng, capsys):
    truth, found = coco.ground_truth(source), found_in(source, rng)
    before = json.dumps([truth, found])
    coco.evaluate(truth, found, COCO)
    assert json.dumps([truth, found]) == before
    assert capsys.readouterr() == ("", "")


def test_ground_truth_numbers_its_annotations_and_stops_at_count(source):
    truth = coco.ground_truth(source, count=2)
    assert [item["id"] for item in truth["images"]] == [7, 8]
    assert [item["id"] for item in truth["annotations"]] == [1, 2, 3, 4]
    assert truth["categories"][0]["keypoints"] == list(COCO.joints)
    json.dumps(truth)  # plain numbers throughout
    assert coco.ground_truth(source, count=99) == coco.ground_truth(source)


def test_ground_truth_has_crowd_indices_and_masks_where_they_are_known(source):
    mask = run_lengths.encode(np.asfortranarray(np.eye(200, dtype=np.uint8)))
    source.records[1]["crowd_index"] = np.float32(0.8)
    source.records[1]["persons"]["segmentation"][1] = mask["counts"]
    truth = json.loads(json.dumps(coco.ground_truth(source)))
    assert [image.get("crowdIndex") for image in truth["images"][:2]] == [None, 0.8]
    masked = [item for item in truth["annotations"] if "segmentation" in item]
    assert [item["id"] for item in masked] == [4]
    scored = protocols.BY_NAME["ochuman-mask"].truth(truth | {"annotations": masked})
    assert scored["annotations"][0]["area"] == 200


def test_detections_leave_out_empty_rows_and_padding_images(source, rng):
    poses = perfect(source, rng)
    found = coco.detections(poses, [7, 8, -1, -1, 9], COCO)
    assert [item["image_id"] for item in found] == [7, 7, 8, 8, 9, 9]
    assert found[0]["score"] >= found[1]["score"]
    best = int(np.argmax(poses.score[0]))
    joints = np.reshape(found[0]["keypoints"], (17, 3))[:, :2]
    np.testing.assert_allclose(joints, poses.joints[0, best], atol=5e-4)
    with pytest.raises(ValueError, match="14, 2"):
        coco.detections(poses, [7, 8, -1, -1, 9], CROWDPOSE)


def test_what_is_not_predicted_of_joints_is_not_written(source, rng):
    poses = perfect(source, rng)
    told = coco.detections(poses, [1, 2, 3, 4, 5], COCO)
    for name in ("visible", "labelled"):
        assert all(item[name] == [1.0] * 17 for item in told)
        untold = poses._replace(**{name: np.full_like(poses.visible, np.nan)})
        found = coco.detections(untold, [1, 2, 3, 4, 5], COCO)
        assert found == [{k: v for k, v in item.items() if k != name} for item in told]


def test_fingerprint_follows_the_labels_and_not_the_formatting(source):
    truth = coco.ground_truth(source)
    same = json.loads(json.dumps(truth, indent=3))
    for image in same["images"]:
        image["file_name"] = "elsewhere.png"
    assert coco.fingerprint(same) == coco.fingerprint(truth)
    same["images"][0]["crowdIndex"] = 0.5
    assert coco.fingerprint(same) != coco.fingerprint(truth)
    del same["images"][0]["crowdIndex"]
    same["annotations"][3]["keypoints"][4] += 0.5
    assert coco.fingerprint(same) != coco.fingerprint(truth)
