import json
import math

import figures
import numpy as np
import pytest

from occjax.evaluation import coco, errors
from occjax.skeletons import COCO, CROWDPOSE

WRIST, OTHER_WRIST = 9, 10
AREA = 1e4


def two_people():
    """Two people of the same shape 3,000 pixels apart, their joints 300 apart."""
    joints = np.stack([300.0 * np.arange(17), np.zeros(17), np.full(17, 2)], axis=-1)
    other = joints + [0, 3000, 0]
    annotations = [figures.person(1, 1, joints), figures.person(2, 1, other)]
    return annotations, joints, other


def kinds_of(annotations, *joints):
    """Name of the kind of each joint of detections in falling order of score."""
    found = [
        figures.detection(1, places, 1 - number / 10)
        for number, places in enumerate(joints)
    ]
    gathered = figures.gathered((figures.truth_of(annotations), found))
    diagnosis = errors.diagnose(gathered)
    names = np.array([*errors.KINDS, "unjudged"])
    return names[diagnosis.kind], diagnosis


def away(similarity, joint):
    """Distance at which a joint has a similarity."""
    return 2 * COCO.sigmas[joint] * math.sqrt(-2 * math.log(similarity) * AREA)


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [(1, "good"), (0.86, "good"), (0.84, "jitter"), (0.51, "jitter"), (0.49, "miss")],
)
def test_joint_near_its_place_is_judged_by_its_similarity(similarity, expected):
    annotations, joints, _ = two_people()
    moved = joints.copy()
    moved[WRIST, 1] -= away(similarity, WRIST)
    (kinds,), diagnosis = kinds_of(annotations, moved)
    assert kinds[WRIST] == expected
    assert set(np.delete(kinds, WRIST)) == {"good"}
    assert diagnosis.best[0, WRIST] == pytest.approx(similarity)


def test_exchanged_wrists_are_inversions():
    annotations, joints, _ = two_people()
    moved = joints.copy()
    moved[[WRIST, OTHER_WRIST]] = joints[[OTHER_WRIST, WRIST]]
    (kinds,), _ = kinds_of(annotations, moved)
    assert list(np.flatnonzero(kinds == "inversion")) == [WRIST, OTHER_WRIST]
    assert np.sum(kinds == "good") == 15


@pytest.mark.parametrize("joint", [WRIST, OTHER_WRIST])
def test_joint_on_somebody_elses_is_a_swap(joint):
    annotations, joints, other = two_people()
    moved = joints.copy()
    moved[WRIST] = other[joint]  # the same joint of the other one, or its mirror
    (kinds,), _ = kinds_of(annotations, moved)
    assert kinds[WRIST] == "swap"
    assert np.sum(kinds == "good") == 16


def test_joint_far_from_everything_is_a_miss_and_an_elbow_is_no_wrist():
    annotations, joints, other = two_people()
    moved = joints.copy()
    moved[WRIST, :2] = 1e5
    moved[OTHER_WRIST] = other[7]
    (kinds,), _ = kinds_of(annotations, moved)
    assert kinds[WRIST] == kinds[OTHER_WRIST] == "miss"


def test_joint_without_label_is_not_judged_and_no_place_to_be_at():
    annotations, joints, other = two_people()
    for item, joint in zip(annotations, (3, WRIST), strict=True):
        item["keypoints"][3 * joint + 2] = 0
    moved = joints.copy()
    moved[WRIST] = other[WRIST]  # the other's wrist is not labelled
    (kinds,), _ = kinds_of(annotations, moved)
    assert kinds[3] == "unjudged"
    assert kinds[WRIST] == "miss"


def test_crowd_regions_are_no_owner_but_a_place_to_swap_to():
    annotations, joints, other = two_people()
    annotations[1]["iscrowd"] = 1
    moved = joints.copy()
    moved[WRIST] = other[WRIST]
    kinds, diagnosis = kinds_of(annotations, moved, other)
    assert len(kinds) == 1
    assert list(diagnosis.person) == [0]
    assert kinds[0, WRIST] == "swap"


def test_best_scored_detection_owns_the_person():
    annotations, joints, _ = two_people()
    kinds, diagnosis = kinds_of(annotations, joints + [3, 0, 0], joints)
    assert list(diagnosis.detection) == [0]
    assert len(kinds) == 1


def by_hand(truth, item, owner, skeleton):
    """Kinds of the joints of a detection, in plain loops."""
    flip, places = skeleton.flip, np.reshape(item["keypoints"], (-1, 3))[:, :2]
    kinds = []
    for j in range(skeleton.num_joints):
        values = []
        for mirrored in (False, True):
            for other in truth["annotations"]:
                if other["image_id"] != item["image_id"]:
                    continue
                at = flip[j] if mirrored else j
                x, y, v = other["keypoints"][3 * at : 3 * at + 3]
                own = other["id"] == owner["id"]
                width = 2 * other["area"] * (2 * skeleton.sigmas[j]) ** 2
                square = math.dist(places[j], (x, y)) ** 2
                value = math.exp(-square / width) if v > 0 else -1
                kind = ("inversion" if mirrored else "own") if own else "swap"
                values.append((value, kind))
        best, kind = max(values, key=lambda pair: pair[0])
        # A middle joint is its own mirror: the place itself comes first.
        kind = "own" if (best, "own") in values else kind
        if best < 0.5:
            kind = "miss"
        elif kind == "own":
            kind = "good" if best >= 0.85 else "jitter"
        kinds.append(kind if owner["keypoints"][3 * j + 2] > 0 else "unjudged")
    return kinds


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE])
def test_kinds_equal_those_of_plain_loops(skeleton):
    truth, found = figures.crowded(np.random.default_rng(5), skeleton, images=25)
    gathered = figures.gathered((truth, found), skeleton)
    diagnosis = errors.diagnose(gathered)
    names = np.array([*errors.KINDS, "unjudged"])[diagnosis.kind]
    for row, (detection, person) in enumerate(
        zip(diagnosis.detection, diagnosis.person, strict=True)
    ):
        item = found[gathered.found.index[detection]]
        owner = truth["annotations"][person]  # sorted by image already
        assert list(names[row]) == by_hand(truth, item, owner, skeleton)
    assert set(names.flat) == {*errors.KINDS, "unjudged"}  # nothing left untested


def test_counts_sum_to_the_labelled_joints_of_the_found():
    gathered = figures.gathered(figures.crowded(np.random.default_rng(6), images=25))
    diagnosis = errors.diagnose(gathered)
    types = errors.types(gathered, diagnosis)
    labelled = gathered.people.labelled[diagnosis.person].sum()
    assert sum(types["counts"].values()) == types["joints"] == labelled
    assert sum(types["shares"].values()) == pytest.approx(1)
    for kind in errors.KINDS:
        each = [row[kind] for row in types["by_joint"].values()]
        assert sum(each) == types["counts"][kind]
    assert tuple(types["by_joint"]) == COCO.joints
    assert types["people"] >= types["found"] > 0
    json.dumps(types)
    assert "left_wrist" in errors.table(types)


def test_nothing_found_is_counted_as_nothing():
    truth, _ = figures.crowded(np.random.default_rng(0))
    gathered = figures.gathered((truth, []))
    types = errors.types(gathered, errors.diagnose(gathered))
    assert types["found"] == types["joints"] == 0
    assert set(types["shares"].values()) == {0.0}
    assert coco.Matches(truth, [], COCO).metrics()["AR"] == 0
