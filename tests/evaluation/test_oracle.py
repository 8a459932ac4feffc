import itertools
import json

import figures
import numpy as np
import pytest

from occjax.evaluation import coco, matching, oracle
from occjax.skeletons import COCO, CROWDPOSE

METRICS = ("AP", "AP50", "AP75")


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE])
@pytest.mark.parametrize("seed", range(6))
def test_no_score_surpasses_the_ceiling(skeleton, seed):
    rng = np.random.default_rng(seed)
    gathered = figures.gathered(figures.crowded(rng, skeleton), skeleton)
    scores = oracle.scores(gathered)
    rivals = [rng.random(len(gathered.found.score)) for _ in range(10)]
    rivals = [matching.score(gathered.with_scores(rival)) for rival in rivals]
    for row in (*rivals, scores["given"], scores["oracle"], scores["unique"]):
        for name in (*METRICS, "AR"):
            assert row[name] <= scores["ceiling"][name] + 1e-12
    assert scores["given"]["AP"] < scores["unique"]["AP"]


@pytest.mark.parametrize("seed", range(6))
def test_oracle_reaches_the_ceiling_where_everybody_stands_alone(seed):
    rng = np.random.default_rng(seed)
    gathered = figures.gathered(figures.apart(rng))
    scores = oracle.scores(gathered)
    assert scores["oracle"] == pytest.approx(scores["ceiling"], abs=1e-12)
    assert scores["oracle"]["AP"] > scores["given"]["AP"]


@pytest.mark.parametrize("seed", range(6))
def test_duplicates_break_the_oracle_and_not_the_unique_score(seed):
    rng = np.random.default_rng(seed)
    truth, found = figures.apart(rng, images=30)
    for item in list(found):
        joints = np.reshape(item["keypoints"], (-1, 3))
        places = figures.moved(rng, joints, 2)
        found.append(figures.detection(item["image_id"], places, rng.random()))
    scores = oracle.scores(figures.gathered((truth, found)))
    assert scores["unique"] == pytest.approx(scores["ceiling"], abs=1e-12)
    assert scores["oracle"]["AP50"] < scores["ceiling"]["AP50"]


def test_second_detection_of_one_outranks_the_first_of_another():
    # By hand: OKS 1, 1 (same person) and a little less (another one), in that order.
    rng = np.random.default_rng(0)
    joints, other = figures.body(rng), figures.body(rng, at=(5000, 0))
    truth = figures.truth_of(
        [figures.person(1, 1, joints), figures.person(2, 1, other)]
    )
    found = [
        figures.detection(1, joints, 0.9),
        figures.detection(1, other[:, :2] + 0.1, 0.8),
        figures.detection(1, joints, 0.7),
    ]
    scores = oracle.scores(figures.gathered((truth, found)))
    assert scores["given"]["AP50"] == 1
    assert scores["oracle"]["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert scores["unique"]["AP50"] == scores["ceiling"]["AP50"] == 1


def test_greedy_matching_can_give_a_detection_somebody_whom_another_needs():
    # Half of the joints of two people coincide. The first detection fits both, the
    # second one of them alone; best pairs first, the first takes what the second needs.
    joints = np.stack([300.0 * np.arange(17), np.zeros(17), np.full(17, 2)], axis=-1)
    other = joints.copy()
    other[14:, 1] += 3000
    spoilt = joints.copy()
    spoilt[:4, 1] += 1e5
    truth = figures.truth_of(
        [figures.person(1, 1, joints), figures.person(2, 1, other)]
    )
    spoilt[14:, 2] = 2
    truth["annotations"][1]["keypoints"][3 * 13 + 1] = 1e4
    found = [figures.detection(1, joints, 0.1), figures.detection(1, spoilt, 0.9)]
    gathered = figures.gathered((truth, found))
    table = gathered.oks.reshape(2, 2)
    np.testing.assert_allclose(table, [[1, 13 / 17], [13 / 17, 9 / 17]])
    scores = oracle.scores(gathered)
    assert scores["given"]["AP75"] == scores["ceiling"]["AP75"] == 1
    assert scores["oracle"]["AP75"] == scores["unique"]["AP75"]
    assert scores["oracle"]["AP75"] == pytest.approx(51 / 101)


@pytest.mark.parametrize("seed", range(4))
def test_ceiling_is_the_best_of_all_assignments(seed):
    rng = np.random.default_rng(seed)
    gathered = figures.gathered(figures.crowded(rng, images=1, detections=5))
    people = np.flatnonzero(gathered.people.counts)
    detections = len(gathered.found.score)
    table = np.zeros((detections, len(gathered.people.area)))
    table[gathered.detection, gathered.person] = gathered.oks
    table = np.pad(table[:, people], ((0, len(people)), (0, 0)))
    ceiling = oracle._ceiling(gathered)
    for at, threshold in enumerate(matching.THRESHOLDS):
        best = max(
            sum(table[row, column] >= threshold for column, row in enumerate(rows))
            for rows in itertools.permutations(range(len(table)), len(people))
        )
        if len(people):
            assert ceiling.recall[at] == pytest.approx(best / len(people))
        else:
            assert ceiling.recall[at] == coco.UNDEFINED


def test_nobody_to_be_found_leaves_all_undefined():
    truth, found = figures.crowded(np.random.default_rng(0))
    scores = oracle.scores(figures.gathered((truth | {"annotations": []}, found)))
    for row in scores.values():
        assert set(row.values()) == {coco.UNDEFINED}
    json.dumps(scores)
    assert oracle.table(scores).splitlines()[-1].split() == ["ceiling", *"----"]
