"""PCK of a run: poses of person crops against the people they are of."""

import numpy as np
import pytest
import scenes

from occjax import scoring, skeletons
from occjax.types import Poses

CROPS = {"dataset": "mine", "view": "person"}


class People:
    """Images of one to three people; the second person of each is no target."""

    name, max_persons = "people", 3

    def __init__(self, skeleton, head=0.0):
        self.skeleton, self.head = skeleton, head

    def __len__(self):
        return 8

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        count = 1 + index % 3
        joints = rng.uniform(0, 100, (count, self.skeleton.num_joints, 3))
        joints[..., 2] = 2
        return scenes.record(
            np.zeros((100, 100, 3), np.uint8),
            joints,
            image_id=50 + index,
            is_target=np.arange(count) != 1,
            head_size=np.full(count, self.head, np.float32),
        )


def poses_of(source, order, off=0.0):
    """Every person to crop where they are, but for `off` pixels to the right."""
    joints = np.full((len(order), 2, source.skeleton.num_joints, 2), 1e4, np.float32)
    for row, index in enumerate(order):
        persons = source[index]["persons"]
        chosen = persons["joints"][persons["is_target"], :, :2] + (off, 0)
        joints[row, : len(chosen)] = chosen
    score = np.ones(joints.shape[:2], np.float32)
    each = np.ones(joints.shape[:3], np.float32)
    return Poses(joints, each, each, each, score), [50 + index for index in order]


def scored(source, data=CROPS, off=0.0):
    order = np.random.default_rng(0).permutation(len(source)).tolist()
    return scoring.score(source, data, 0, *poses_of(source, order, off)).metrics


@pytest.mark.parametrize("view", ["person", "people"])
def test_each_pose_is_judged_by_its_own_person_in_any_order(view):
    found = scored(People(skeletons.LSP), CROPS | {"view": view})["pck"]
    assert found["mean"] == 1.0
    assert found["count"] == 14 * 10  # 8 images, a third person in two of them
    assert found["protocol"]["measure"] == "PCK@0.2, <="
    far = scored(People(skeletons.LSP), off=1000.0)["pck"]
    assert far["mean"] == 0.0


@pytest.mark.parametrize(("off", "share"), [(11.9, 1.0), (12.1, 0.0)])
def test_the_unit_of_mpii_is_the_head_in_the_records(off, share):
    source = People(skeletons.MPII, head=40.0)  # half of 0.6 x 40 is allowed
    assert scored(source, off=off)["pck"]["mean"] == share


def test_there_is_none_without_a_protocol_or_without_known_people():
    assert "pck" not in scored(People(skeletons.COCO))
    whole = {"dataset": "mine", "view": "image"}
    assert "pck" not in scored(People(skeletons.LSP), whole)
    for key in ("detections", "eval_proposals"):
        assert "pck" not in scored(People(skeletons.LSP), CROPS | {key: "a.json"})
