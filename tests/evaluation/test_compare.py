import json

import figures
import numpy as np
import pytest

from occjax.errors import UserError
from occjax.evaluation import checks, coco, compare, occlusion
from occjax.skeletons import COCO


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def two(rng):
    """Ground truth and the detections of two systems, of different scores."""
    truth, found = figures.crowded(rng, images=30)
    for item in found:
        item["score"] = float(rng.random())
    others = [item | {"score": float(rng.random())} for item in found]
    return truth, found, others[::2]


def weighed(truth, found, weights):
    pairs = figures.gathered((truth, found))
    return compare.metrics(compare.ranked(pairs), np.array([weights], float))[0]


@pytest.mark.parametrize(
    "case", ["coco_images_seed12_ties", "coco_images_mediapipe", "ochuman_seed15"]
)
def test_every_image_once_gives_the_evaluators_figures(photographs, case):
    folder = photographs / "eval_reference"
    expected = json.loads((folder / f"{case}.expected.json").read_text())
    truth = checks.read_json(folder / expected["ground_truth"])
    found = checks.read_json(folder / expected["detections"])
    metrics = weighed(truth, found, np.ones(len(truth["images"])))
    theirs = [expected["stats"][name] for name in compare.METRICS]
    np.testing.assert_allclose(metrics, theirs, rtol=0, atol=1e-12)


def test_weights_are_copies_of_images(two, rng):
    truth, found, _ = two
    weights = rng.integers(0, 4, len(truth["images"]))
    images, people, results = [], [], []
    for image, copies in zip(truth["images"], weights, strict=True):
        for copy in range(copies):
            number = 10 * image["id"] + copy
            images.append({"id": number})
            for item in truth["annotations"]:
                if item["image_id"] == image["id"]:
                    more = {"id": len(people) + 1, "image_id": number}
                    people.append(item | more)
            results += [
                item | {"image_id": number}
                for item in found
                if item["image_id"] == image["id"]
            ]
    copied = truth | {"images": images, "annotations": people}
    metrics = coco.evaluate(copied, results, COCO)
    expected = [metrics[name] for name in compare.METRICS]
    assert 0 < expected[0] < 1
    np.testing.assert_allclose(weighed(truth, found, weights), expected, atol=1e-12)


def test_bins_hold_the_figures_of_their_images(two):
    truth, found, others = two
    first, second = (figures.gathered((truth, items)) for items in (found, others))
    result = compare.compare(first, second, truth, resamples=3)
    for items, key in ((found, "first"), (others, "second")):
        bins = occlusion.by_overlap(truth, coco.Matches(truth, items, COCO))
        for row in bins:
            rows = result[f"box IoU {row['low']:.1f}-{row['high']:.1f}"]
            for name in compare.METRICS:
                assert rows[name][key] == pytest.approx(row[name], abs=1e-12)


def test_what_differs_in_one_bin_moves_no_other(two):
    truth, found, _ = two
    low, high, images = occlusion.overlap_bins(truth)[0]
    fewer = [item for item in found if item["image_id"] not in images]
    pairs = [figures.gathered((truth, items)) for items in (found, fewer)]
    result = compare.compare(*pairs, truth, resamples=30)
    own = result.pop(f"box IoU {low}-{high}")["AP"]
    assert 0 < own["difference"] < own["interval"][1]
    assert result.pop("all")["AP"]["difference"] > 0
    known = [row["AP"] for row in result.values() if row["AP"]["first"] > 0]
    assert len(known) > 1
    assert all(row["interval"] == [0, 0] for row in known)


def test_a_system_does_not_differ_from_itself(two):
    truth, found, _ = two
    pairs = figures.gathered((truth, found))
    for rows in compare.compare(pairs, pairs, truth, resamples=50).values():
        for row in rows.values():
            assert row["difference"] in (0, None)
            assert row["interval"] in ([0, 0], [None, None])


def test_swapping_the_two_flips_the_signs(two):
    truth, found, others = two
    first, second = (figures.gathered((truth, items)) for items in (found, others))
    there = compare.compare(first, second, truth, resamples=60)["all"]
    back = compare.compare(second, first, truth, resamples=60)["all"]
    for name, row in there.items():
        assert row["first"] == back[name]["second"]
        assert row["difference"] == -back[name]["difference"] != 0
        np.testing.assert_allclose(
            row["interval"], -np.array(back[name]["interval"])[::-1], atol=1e-15
        )
        low, high = row["interval"]
        assert low < row["difference"] < high


def test_interval_holds_95_of_100_resampled_differences(two):
    truth, found, others = two
    count = len(truth["images"])
    drawn = np.random.default_rng(4).multinomial(count, np.full(count, 1 / count), 40)
    values = [
        weighed(truth, found, weights) - weighed(truth, others, weights)
        for weights in drawn
    ]
    pairs = [figures.gathered((truth, items)) for items in (found, others)]
    rows = compare.compare(*pairs, truth, resamples=40, seed=4)["all"]
    expected = np.percentile(values, [2.5, 97.5], axis=0).T
    np.testing.assert_allclose([r["interval"] for r in rows.values()], expected)


def test_intervals_follow_the_seed_and_do_not_depend_on_blocks(two, monkeypatch):
    truth, found, others = two
    pairs = [figures.gathered((truth, items)) for items in (found, others)]
    result = compare.compare(*pairs, truth, resamples=60)
    monkeypatch.setattr(compare, "_BLOCK", 7)
    assert compare.compare(*pairs, truth, resamples=60) == result
    assert compare.compare(*pairs, truth, resamples=60, seed=1) != result


def test_where_nobody_is_to_be_found_there_is_no_difference():
    truth = figures.truth_of([], images=[1, 2])
    pairs = figures.gathered((truth, []))
    result = compare.compare(pairs, pairs, truth, resamples=4)
    assert result["all"]["AP"] == {
        **{"first": -1, "second": -1, "difference": None},
        "interval": [None, None],
    }
    json.dumps(result, allow_nan=False)
    assert len(compare.table(result).splitlines()) == 1


@pytest.mark.slow
def test_intervals_hold_the_true_difference_as_often_as_they_say(rng):
    """AR is the share of images whose one person is found, by luck: truly 0.2 apart."""
    joints = figures.body(rng)
    images = 100
    people = [figures.person(i, i, joints) for i in range(1, images + 1)]
    truth, trials, held = figures.truth_of(people), 150, 0
    for _ in range(trials):
        luck = rng.random(images)
        systems = [
            figures.gathered((truth, [figures.detection(i + 1, joints) for i in hits]))
            for hits in (np.flatnonzero(luck < 0.7), np.flatnonzero(luck > 0.5))
        ]
        row = compare.compare(*systems, truth, 200, int(rng.integers(1e6)))["all"]["AR"]
        low, high = row["interval"]
        held += low <= 0.2 <= high
    # 95 % of 150 are 142.5, give or take three times 2.7.
    assert 135 <= held <= 149


def test_other_protocols_are_refused_and_other_conditions_told():
    stamp = {"protocol": "coco", "ground_truth_sha256": "a", "flip": True, "seed": 1}
    assert compare.differences(stamp, None, "B") == []
    assert compare.differences(None, stamp, "B") == []
    assert compare.differences(stamp, stamp | {"seed": 2}, "B") == []
    told = compare.differences(stamp, stamp | {"flip": False}, "B")
    assert told == ["flip: True, others False"]
    for key in ("protocol", "ground_truth_sha256"):
        with pytest.raises(UserError, match=f"B: cannot be compared: its {key} is 'z'"):
            compare.differences(stamp, stamp | {key: "z"}, "B")
