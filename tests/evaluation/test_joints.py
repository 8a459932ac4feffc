import math

import figures
import numpy as np
import pytest

from occjax.evaluation import coco, joints
from occjax.skeletons import COCO, CROWDPOSE, OCPOSE


def by_hand(truth, found, skeleton):
    """Counts [joints, at .75, at .90] by protocol and visibility, in plain loops."""
    limbs = [at for at, name in enumerate(skeleton.joints) if name in OCPOSE.joints]
    total = {n: {1: [0] * 3, 2: [0] * 3} for n in ("matched", "all", "usable")}
    for image in truth["images"]:
        everybody = [i for i in truth["annotations"] if i["image_id"] == image["id"]]
        marked = any(v == 2 for item in everybody for v in item["keypoints"][2::3])
        free = [item for item in found if item["image_id"] == image["id"]]
        free = sorted(free, key=lambda item: -item["score"])[:20]
        free = [item for item in found if any(item is other for other in free)]
        for person in everybody:
            true = np.reshape(person["keypoints"], (-1, 3))
            judged = [j for j in limbs if true[j, 2] > 0]
            if person["iscrowd"] or not person["num_keypoints"] or not judged:
                continue

            def similarity(item, j, true=true, area=person["area"]):
                places = np.reshape(item["keypoints"], (-1, 3))
                square = math.dist(places[j, :2], true[j, :2]) ** 2
                return math.exp(-square / (2 * area * (2 * skeleton.sigmas[j]) ** 2))

            def oks(item, judged=judged, similarity=similarity):
                return sum(similarity(item, j) for j in judged) / len(judged)

            best = max(free, key=oks, default=None)
            if best is not None and oks(best) < 0.3:
                best = None
            if best is not None:
                free = [item for item in free if item is not best]
            for j in judged:
                value = similarity(best, j) if best is not None else -1
                hits = [1, value >= 0.75, value >= 0.9]
                names = ["all"]
                if best is not None:
                    names += ["matched", "usable"] if marked else ["matched"]
                for name in names:
                    row = total[name][int(true[j, 2])]
                    row[:] = [a + b for a, b in zip(row, hits, strict=True)]
    return total


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE])
@pytest.mark.parametrize("seed", range(4))
def test_shares_equal_those_of_plain_loops(skeleton, seed):
    rng = np.random.default_rng(seed)
    truth, found = figures.crowded(rng, skeleton, detections=25)
    for item in truth["annotations"]:
        if item["image_id"] % 3 == 0:  # images without a mark of visibility
            item["keypoints"][2::3] = [min(v, 1) for v in item["keypoints"][2::3]]
    result = joints.accuracy(figures.gathered((truth, found), skeleton))
    for name, kinds in by_hand(truth, found, skeleton).items():
        row = result[name]
        for value, short, full in ((1, "Inv", "occluded"), (2, "V", "visible")):
            count, at75, at90 = kinds[value]
            assert row[full] == count > 0
            assert row[f"{short}75"] == pytest.approx(at75 / count)
            assert row[f"{short}90"] == pytest.approx(at90 / count)
    assert result["all"]["V75"] <= result["matched"]["V75"]
    assert result["usable"]["occluded"] < result["matched"]["occluded"]


def test_distances_of_the_levels_are_those_worked_by_hand():
    # OPEC-Net: .75 is a distance of 0.7585 sqrt(area) 2 sigma, .90 one of 0.459.
    true = np.stack([300.0 * np.arange(12), np.zeros(12), np.full(12, 1)], axis=-1)
    true[6:, 2] = 2
    for distance, expected in (
        (0.4, (1, 1)),
        (0.5, (1, 0)),
        (0.75, (1, 0)),
        (0.77, (0, 0)),
    ):
        moved = true.copy()
        moved[:, 1] += [distance * 100 * 2 * sigma for sigma in OCPOSE.sigmas]
        scene = figures.truth_of([figures.person(1, 1, true)])
        scene = (scene, [figures.detection(1, moved)])
        row = joints.accuracy(figures.gathered(scene, OCPOSE))["matched"]
        assert (row["Inv75"], row["Inv90"]) == (row["V75"], row["V90"]) == expected
        assert row["occluded"] == row["visible"] == 6


def test_head_and_neck_decide_nothing():
    rng = np.random.default_rng(0)
    truth, found = figures.crowded(rng, CROWDPOSE)
    before = joints.accuracy(figures.gathered((truth, found), CROWDPOSE))
    for item in found:
        item["keypoints"][36:] = [1e6] * 6
    after = joints.accuracy(figures.gathered((truth, found), CROWDPOSE))
    assert before == after
    assert before["matched"]["people"] > 5


def test_score_decides_nothing_and_each_detection_serves_once():
    true = figures.body(np.random.default_rng(0), hidden=0)
    people = [figures.person(number, 1, true) for number in (1, 2)]
    near, far = true, true + [2, 0, 0]
    for scores in ((0.9, 0.1), (0.1, 0.9)):
        found = [
            figures.detection(1, places, score)
            for places, score in zip((far, near), scores, strict=True)
        ]
        result = joints.accuracy(figures.gathered((figures.truth_of(people), found)))
        assert result["matched"]["people"] == 2
        result = joints.accuracy(
            figures.gathered((figures.truth_of(people), found[:1]))
        )
        assert result["matched"]["people"] == 1
        assert result["all"]["people"] == 2


def test_flags_say_what_they_bear(photographs):
    rng = np.random.default_rng(0)
    truth, _ = figures.apart(rng, images=20)
    told = joints.flags(figures.gathered((truth, [])))
    assert told == {
        "images": 20,
        "usable": 20,
        "supports": ["matched", "all", "usable"],
    }
    for item in truth["annotations"]:
        if item["image_id"] <= 3:
            item["keypoints"][2::3] = [min(v, 1) for v in item["keypoints"][2::3]]
    told = joints.flags(figures.gathered((truth, [])))
    assert told == {"images": 20, "usable": 17, "supports": ["usable"]}
    for value in (1, 2):
        for item in truth["annotations"]:
            item["keypoints"][2::3] = [value] * 17
        assert joints.flags(figures.gathered((truth, [])))["supports"] == []


def test_crowdpose_supports_only_the_images_with_flags(photographs):
    from occjax.evaluation import checks

    folder = photographs / "crowdpose/annotations"
    truth = checks.read_json(folder / "crowdpose_val_1.json.gz")
    for item in truth["annotations"]:
        item["area"] = 0.53 * item["bbox"][2] * item["bbox"][3]
    told = joints.flags(figures.gathered((truth, []), CROWDPOSE))
    assert told["supports"] == ["usable"]
    assert 0.4 < told["usable"] / told["images"] < 0.5


def test_nothing_found_is_undefined_where_only_the_found_are_judged():
    truth, _ = figures.crowded(np.random.default_rng(0))
    result = joints.accuracy(figures.gathered((truth, [])))
    assert result["matched"]["V75"] == coco.UNDEFINED
    assert result["all"]["V75"] == 0
    assert "-" in joints.table(result)
