import math

import figures
import numpy as np
import pytest

from occjax.evaluation import coco, corrections, errors, matching, oks
from occjax.skeletons import COCO, CROWDPOSE

METRICS = ("AP", "AP50", "AP75", "AR")


def progression(scene, skeleton=COCO, **how):
    gathered = figures.gathered(scene, skeleton)
    return corrections.progression(gathered, errors.diagnose(gathered), **how)


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE])
@pytest.mark.parametrize("seed", range(10))
def test_ap_never_falls_where_everybody_stands_alone(skeleton, seed):
    scene = figures.apart(np.random.default_rng(seed), skeleton)
    rows = progression(scene, skeleton)
    assert [row["step"] for row in rows] == list(corrections.STEPS)
    for before, after in zip(rows[:-1], rows[1:], strict=True):
        for name in METRICS:
            assert after[name] >= before[name] - 1e-12, after["step"]
    assert rows[4]["AP"] > rows[0]["AP"] + 0.05  # and mostly it rises
    assert rows[-1]["AP"] == 1


@pytest.mark.parametrize("seed", range(10))
def test_last_two_steps_never_lower_ap_in_any_crowd(seed):
    rows = progression(figures.crowded(np.random.default_rng(seed)))
    for before, after in zip(rows[5:7], rows[6:], strict=True):
        for name in ("AP", "AP50", "AP75"):
            assert after[name] >= before[name] - 1e-12
    assert rows[-1]["AP"] in (1, coco.UNDEFINED)


@pytest.mark.parametrize("seed", range(5))
def test_no_correction_lowers_the_oks_with_the_person_found(seed):
    gathered = figures.gathered(figures.crowded(np.random.default_rng(seed)))
    diagnosis = errors.diagnose(gathered)
    targets = corrections._targets(gathered, diagnosis, 2)
    people, found = gathered.people, gathered.found
    before, after = (
        oks.joint_similarity(
            places,
            people.joints[diagnosis.person, :, :2],
            people.area[diagnosis.person],
            np.array(COCO.sigmas),
        )
        for places in (found.joints[diagnosis.detection], targets)
    )
    wrong = diagnosis.kind > 0
    assert wrong.any()
    assert np.all(after[wrong] >= before[wrong] - 1e-12)


def test_first_row_is_the_plain_ap():
    truth, found = figures.crowded(np.random.default_rng(2))
    row = progression((truth, found))[0]
    plain = coco.Matches(truth, found, COCO).metrics()
    assert row["AP"] == pytest.approx(plain["AP"], abs=1e-12)
    assert np.mean(row["precision75"]) == pytest.approx(plain["AP75"], abs=1e-12)
    assert len(row["precision75"]) == 101


@pytest.mark.parametrize("compat", [False, True])
def test_corrected_joints_reach_the_similarity_worked_by_hand(compat):
    # One person, one joint of each kind that a single person can show.
    joints = np.stack([300.0 * np.arange(17), np.zeros(17), np.full(17, 2)], axis=-1)
    width = [2 * sigma * 100 for sigma in COCO.sigmas]
    moved = joints.copy()
    moved[5, 1] += 1e5  # miss
    moved[7, 1] += math.sqrt(-2 * math.log(0.6)) * width[7]  # jitter
    moved[9] = joints[10]  # inversion, at similarity 1 less a little
    moved[9, 1] += math.sqrt(-2 * math.log(0.9)) * width[10]
    truth = figures.truth_of([figures.person(1, 1, joints)])
    gathered = figures.gathered((truth, [figures.detection(1, moved)]))
    diagnosis = errors.diagnose(gathered)
    kinds = [errors.KINDS[diagnosis.kind[0, joint]] for joint in (5, 7, 9)]
    assert kinds == ["miss", "jitter", "inversion"]

    targets = corrections._targets(gathered, diagnosis, 1 if compat else 2)
    reached = oks.joint_similarity(
        targets[0], joints[:, :2], np.array(1e4), np.array(COCO.sigmas)
    )

    # The public tool halves the distance, which is a quarter in the exponent.
    expected = np.array([0.5, 0.85, 0.9]) ** (0.25 if compat else 1)
    np.testing.assert_allclose(reached[[5, 7, 9]], expected, rtol=1e-9)
    np.testing.assert_array_equal(targets[0, :, 1], joints[:, 1])


def test_public_tools_numbers_flatter_and_leave_small_people_out():
    scene = figures.apart(np.random.default_rng(1), images=20)
    ours, theirs = progression(scene), progression(scene, coco_analyze_compat=True)
    assert theirs[1]["AP"] > ours[1]["AP"]
    for item in scene[0]["annotations"]:
        item["area"] = 1000.0  # below 32 x 32
    theirs = progression(scene, coco_analyze_compat=True)
    assert theirs[0]["AP"] == coco.UNDEFINED


def test_ap_can_fall_when_somebody_ignored_stands_in_the_way():
    # The detection lies on somebody ignored, so that it counts for nothing. Two joints
    # are another's, who counts and whose detection it therefore is at OKS 0.1. Drawn
    # towards that person it reaches OKS 0.7 there, and becomes an error at OKS 0.75.
    joints = np.stack([300.0 * np.arange(17), np.zeros(17), np.full(17, 2)], axis=-1)
    ignored = joints + [0, 3000, 0]
    ignored[8:, 2] = 0
    moved = joints.copy()
    moved[:8] = ignored[:8]
    moved[:8, 1] += [200 * s * math.sqrt(-2 * math.log(0.8)) for s in COCO.sigmas[:8]]
    moved[8:15, 1] = 1e5
    people = [
        figures.person(1, 1, joints),
        figures.person(2, 1, ignored, num_keypoints=0),
        figures.person(3, 2, joints),
    ]
    found = [figures.detection(1, moved, 0.9), figures.detection(2, joints, 0.8)]

    ap = {
        row["step"]: row["AP75"]
        for row in progression((figures.truth_of(people), found))
    }

    assert ap["none"] == ap["miss"] == pytest.approx(51 / 101)
    assert ap["swap"] == pytest.approx(51 / 101 / 2)


def plain_suppression(joints, score):
    """Soft suppression of one image, after its description."""
    score, left, result = list(score), set(range(len(score))), {}
    while left:
        top = max(left, key=lambda i: (score[i], -i))
        left.remove(top)
        result[top] = score[top]
        for other in left:
            sizes = [np.prod(np.ptp(joints[i], axis=0)) for i in (top, other)]
            alike = np.mean(
                oks.joint_similarity(
                    joints[top],
                    joints[other],
                    np.array(np.mean(sizes)),
                    np.array(COCO.sigmas),
                )
            )
            score[other] *= math.exp(-(alike**2) / 0.5)
    return [result[i] for i in range(len(score))]


def test_best_score_is_softly_suppressed_as_in_a_plain_loop():
    gathered = figures.gathered(figures.crowded(np.random.default_rng(3), images=130))
    best, score = gathered.best(), corrections.optimal_score(gathered)
    for image in range(len(gathered.images)):
        rows = gathered.found.image == image
        expected = plain_suppression(gathered.found.joints[rows], best[rows])
        np.testing.assert_allclose(score[rows], expected, atol=1e-12)
    assert np.sum(score < 0.9 * best) > 20


def test_second_detection_of_a_person_loses_its_score():
    joints = figures.body(np.random.default_rng(0))
    truth = figures.truth_of([figures.person(1, 1, joints)])
    found = [figures.detection(1, joints, score) for score in (0.2, 0.9)]
    score = corrections.optimal_score(figures.gathered((truth, found)))
    assert sorted(score) == pytest.approx([math.exp(-2), 1])


def test_nobody_found_leaves_nothing_to_judge():
    truth, _ = figures.crowded(np.random.default_rng(0))
    rows = progression((truth, []))
    assert [row["AP"] for row in rows] == [0] * 7 + [coco.UNDEFINED]
    assert "missed" in corrections.table(rows)


def test_matching_is_not_changed_by_a_correction_of_nothing():
    truth, _ = figures.apart(np.random.default_rng(0))
    found = [
        figures.detection(item["image_id"], np.reshape(item["keypoints"], (-1, 3)))
        for item in truth["annotations"]
    ]
    rows = progression((truth, found))
    assert {row["AP"] for row in rows} == {1.0}
    assert matching.THRESHOLDS[matching.AT_75] == 0.75
