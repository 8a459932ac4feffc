import json

import figures
import numpy as np
import pytest

from occjax.evaluation import calibration, coco, matching
from occjax.skeletons import COCO


def test_bins_worked_by_hand():
    result = calibration.reliability(
        np.array([0.05, 0.1, 0.15, 0.95, 1.0]), np.array([0, 0.2, 0.2, 1, 0.5])
    )
    filled = [row for row in result["bins"] if row["count"]]
    assert [row["count"] for row in filled] == [1, 2, 2]
    assert [row["low"] for row in filled] == pytest.approx([0, 0.1, 0.9])
    assert [row["predicted"] for row in filled] == pytest.approx([0.05, 0.125, 0.975])
    assert [row["true"] for row in filled] == pytest.approx([0, 0.2, 0.75])
    error = (0.05 + 2 * 0.075 + 2 * 0.225) / 5
    assert result["expected_calibration_error"] == pytest.approx(error)
    assert result["count"] == 5
    assert result["bins"][5]["true"] == coco.UNDEFINED


def test_probabilities_that_come_true_have_no_error():
    rng = np.random.default_rng(0)
    predicted = rng.random(100_000)
    true = rng.random(100_000) < predicted
    assert calibration.reliability(predicted, true)["expected_calibration_error"] < 0.01
    other = calibration.reliability(predicted, rng.random(100_000) < predicted / 2)
    assert other["expected_calibration_error"] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("values", [[], [0.5, 1.5], [-0.1]])
def test_error_is_undefined_outside_of_probabilities(values):
    result = calibration.reliability(np.array(values), np.array(values))
    assert result["expected_calibration_error"] == coco.UNDEFINED
    assert sum(row["count"] for row in result["bins"]) == len(values)
    assert calibration.table(result).count("\n") == 10
    json.dumps(result)


def test_score_equal_to_oks_is_calibrated():
    truth, found = figures.apart(np.random.default_rng(0), images=30)
    gathered = figures.gathered((truth, found))
    known = gathered.with_scores(gathered.best())
    assert calibration.of_scores(known)["expected_calibration_error"] < 1e-9
    assert calibration.of_scores(gathered)["expected_calibration_error"] > 0.05
    assert calibration.of_scores(known)["count"] == len(found)


def test_second_detection_of_a_person_is_worth_nothing():
    joints = figures.body(np.random.default_rng(0))
    ignored = figures.body(np.random.default_rng(1), at=(5000, 0))
    truth = figures.truth_of(
        [figures.person(1, 1, joints), figures.person(2, 1, ignored, num_keypoints=0)]
    )
    found = [
        figures.detection(1, joints, 0.95),
        figures.detection(1, joints, 0.85),
        figures.detection(1, ignored, 0.45),
    ]
    result = calibration.of_scores(figures.gathered((truth, found)))
    true = [row["true"] for row in result["bins"]]
    assert result["count"] == 2  # who is ignored says nothing about the score
    assert true[9] == 1
    assert true[8] == 0


def with_visibility(truth, found, of):
    """Detections that predict the visibility of the joints they are made from."""
    gathered = figures.gathered((truth, found))
    owner = matching.match(gathered, np.array([0.1])).person[0]
    for row, index in enumerate(gathered.found.index):
        person = truth["annotations"][owner[row]] if owner[row] >= 0 else None
        flags = person["keypoints"][2::3] if person else [1] * 17
        found[index]["visible"] = [of(flag) for flag in flags]
    return figures.gathered((truth, found))


def test_visibility_that_is_known_is_calibrated():
    truth, found = figures.apart(np.random.default_rng(0), images=10)
    known = with_visibility(truth, found, lambda flag: float(flag == 2))
    result = calibration.of_visibility(known)
    assert result["expected_calibration_error"] == 0
    assert result["auc"] == 1
    labelled = known.people.labelled.sum(axis=1)
    assert 0 < result["count"] <= labelled.sum()
    wrong = with_visibility(truth, found, lambda flag: float(flag != 2))
    result = calibration.of_visibility(wrong)
    assert result["expected_calibration_error"] == 1
    assert result["auc"] == 0
    blind = calibration.of_visibility(with_visibility(truth, found, lambda flag: 0.3))
    assert blind["auc"] == 0.5


def test_visibility_is_judged_where_it_is_annotated():
    truth, found = figures.apart(np.random.default_rng(0), images=10)
    everywhere = with_visibility(truth, found, lambda flag: 0.5)
    for item in truth["annotations"]:
        if item["image_id"] > 5:
            item["keypoints"][2::3] = [min(v, 1) for v in item["keypoints"][2::3]]
    some = calibration.of_visibility(figures.gathered((truth, found)))
    assert 0 < some["count"] < calibration.of_visibility(everywhere)["count"]


def test_visibility_that_nobody_predicts_is_no_figure():
    scene = figures.crowded(np.random.default_rng(0))
    assert calibration.of_visibility(figures.gathered(scene, COCO)) is None


def test_area_under_the_curve_equals_a_count_of_pairs():
    rng = np.random.default_rng(0)
    predicted, true = rng.integers(0, 5, 60) / 5, rng.random(60) < 0.4
    pairs = [(a > b) + (a == b) / 2 for a in predicted[true] for b in predicted[~true]]
    assert calibration._auc(predicted, true) == pytest.approx(np.mean(pairs))


def with_labels(truth, found, of):
    """Detections that predict whether the joints they are made from have a label."""
    gathered = figures.gathered((truth, found))
    owner = matching.match(gathered, np.array([0.1])).person[0]
    for row, index in enumerate(gathered.found.index):
        person = truth["annotations"][owner[row]] if owner[row] >= 0 else None
        flags = person["keypoints"][2::3] if person else [0] * 17
        found[index]["labelled"] = [of(flag > 0) for flag in flags]
    return figures.gathered((truth, found))


def test_labels_that_are_known_are_calibrated_and_right():
    truth, found = figures.apart(np.random.default_rng(0), images=10)
    result = calibration.of_labels(with_labels(truth, found, float))
    assert result["expected_calibration_error"] == 0
    assert result["auc"] == result["accuracy"] == 1
    assert set(result["by_joint"]) == set(COCO.joints)
    assert set(result["by_joint"].values()) == {1.0}
    assert result["count"] % 17 == 0  # joints without a label are judged too
    wrong = calibration.of_labels(with_labels(truth, found, lambda has: float(not has)))
    assert wrong["accuracy"] == 0
    assert wrong["auc"] == 0


def test_accuracy_of_labels_worked_by_hand():
    joints = figures.body(np.random.default_rng(0), hidden=0.0)
    joints[3:5, 2] = 0
    told = np.full(17, 0.9)
    told[[4, 6]] = 0.1, 0.4  # right about joint 4, wrong about 3 and 6
    found = [figures.detection(1, joints, labelled=told.tolist())]
    truth = figures.truth_of([figures.person(1, 1, joints)])
    result = calibration.of_labels(figures.gathered((truth, found)))
    assert result["accuracy"] == pytest.approx(15 / 17)
    assert result["by_joint"][COCO.joints[3]] == 0
    assert result["by_joint"][COCO.joints[4]] == 1
    assert result["by_joint"][COCO.joints[6]] == 0


def test_labels_that_nobody_predicts_are_no_figure():
    scene = figures.crowded(np.random.default_rng(0))
    assert calibration.of_labels(figures.gathered(scene, COCO)) is None


def with_joint_scores(truth, found, of):
    """The detections with joint scores made from the joints' similarity [D, J]."""
    gathered = figures.gathered((truth, found))
    owner = matching.match(gathered, np.array([0.1])).person[0]
    own = owner[gathered.detection] == gathered.person
    for row, values in zip(
        gathered.detection[own], gathered.similarity[own], strict=True
    ):
        item = found[gathered.found.index[row]]
        item["keypoints"][2::3] = of(values).tolist()
    return figures.gathered((truth, found))


def test_joint_scores_that_are_similarities_are_calibrated_and_correlated():
    truth, found = figures.apart(np.random.default_rng(0), images=20)
    result = calibration.of_joint_scores(with_joint_scores(truth, found, np.array))
    assert result["expected_calibration_error"] < 1e-9
    assert result["correlation"] == pytest.approx(1)
    assert min(v for v in result["by_joint"].values() if v is not None) > 0.999
    assert result["count"] > 100
    against = calibration.of_joint_scores(
        with_joint_scores(truth, found, lambda values: 1 - values)
    )
    assert against["correlation"] == pytest.approx(-1)


def test_correlation_is_that_of_numpy_and_nothing_where_nothing_varies():
    truth, found = figures.apart(np.random.default_rng(0), images=20)
    rng = np.random.default_rng(1)
    gathered = with_joint_scores(truth, found, lambda v: v + rng.normal(0, 1, v.shape))
    owner = matching.match(gathered, np.array([0.1])).person[0]
    own = owner[gathered.detection] == gathered.person
    known = gathered.people.labelled[gathered.person[own]]
    scores = gathered.found.joint_score[gathered.detection[own]]
    expected = np.corrcoef(scores[known], gathered.similarity[own][known])[0, 1]
    result = calibration.of_joint_scores(gathered)
    assert result["correlation"] == pytest.approx(expected)
    flat = with_joint_scores(truth, found, np.ones_like)
    assert calibration.of_joint_scores(flat)["correlation"] is None
    json.dumps(result)
