import functools
import json

import equivalence
import numpy as np
import pytest

from occjax.evaluation import checks, coco, evaluators, protocols
from occjax.skeletons import COCO

CASES = (
    "coco_images_mediapipe",
    "coco_images_seed11",
    "coco_images_seed12_ties",
    "coco_images_seed16_good",
    "crowdpose_images_mediapipe",
    "ochuman_mediapipe",
    "ochuman_seed15",
    "xtcocotools_example_coco",
    "xtcocotools_example_crowdpose",
    *(
        pytest.param(case, marks=pytest.mark.slow)
        for case in ("coco_full_seed13", "crowdpose_seed14")
    ),
    pytest.param("crowdpose_seed17_ties_good", marks=pytest.mark.slow),
)
BACKENDS = tuple(evaluators.BY_NAME)
SIZES = ("all", "medium", "large")


def reference(folder, case):
    """Expected figures of a case, its protocol, ground truth and detections."""
    folder = folder / "eval_reference"
    expected = json.loads((folder / f"{case}.expected.json").read_text())
    truth = checks.read_json(folder / expected["ground_truth"])
    found = checks.read_json(folder / expected["detections"])
    name = "crowdpose" if "crowdpose" in case else "coco"
    return expected, protocols.BY_NAME[name], truth, found


def close(link, ours, theirs):
    ours = np.float64(ours)
    equivalence.check(
        "COCO evaluation", f"score: {link}", ours, theirs, 1e-9, "absolute"
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_figures_are_those_of_the_public_evaluators(photographs, case, backend):
    expected, protocol, truth, found = reference(photographs, case)
    truth, _, matches = protocol.match(truth, found, backend=backend)
    metrics = protocol.metrics(truth, matches)

    figures = functools.partial(close, f"AP and AR, {backend}")
    longer = {"m": "_medium", "l": "_large"}
    for name, value in expected["stats"].items():
        if "_" in name:  # levels of crowding, which the tool rounds
            ours = round(metrics[name.replace("_", "_crowd_")], 4)
        else:
            ours = metrics[name[:2] + longer.get(name[2:], name[2:])]
        figures(ours, value)
    curves = matches.evaluator.curves()
    for place, size in enumerate(SIZES):
        recall = curves.recall[:, 0, place]
        close(f"recall, {backend}", recall, expected["recall_per_threshold"][size])
        precision = curves.precision[:, :, 0, place].mean(axis=1)
        link = f"precision at each threshold, {backend}"
        close(link, precision, expected["ap_per_threshold"][size])
    for place, key in ((0, "0.50"), (5, "0.75")):
        theirs = expected["precision_at_101_recalls_all"][key]
        link = f"precision along recall, {backend}"
        close(link, curves.precision[place, :, 0, 0], theirs)
    levels = expected.get("other_evaluators", {}).get("by_crowd_level_unrounded", {})
    for level, values in levels.items():
        figures(metrics[f"AP_crowd_{level}"], values.get("AP", coco.UNDEFINED))
        if "AR" in values:
            figures(metrics[f"AR_crowd_{level}"], values["AR"])


@pytest.mark.parametrize("case", CASES)
def test_both_evaluators_give_the_same_figures(photographs, case):
    _, protocol, truth, found = reference(photographs, case)
    slow, fast = (
        protocol.match(truth, found, backend=name)[2].evaluator for name in BACKENDS
    )
    agree(slow.curves(), fast.curves())
    for image, category in slow.scorer.ious:
        np.testing.assert_array_equal(
            slow.oks(image, category), fast.oks(image, category)
        )


def agree(ours, theirs):
    """Recall to the last bit; precision but for what pycocotools adds to a divisor."""
    np.testing.assert_array_equal(ours.recall, theirs.recall)
    np.testing.assert_allclose(ours.precision, theirs.precision, rtol=0, atol=2.3e-16)


@pytest.mark.parametrize("case", CASES)
def test_oks_and_matches_of_sample_images_are_theirs(photographs, case):
    expected, protocol, truth, found = reference(photographs, case)
    matches = protocol.match(truth, found, backend="pycocotools")[2].evaluator
    rows = {
        row["image_id"]: row
        for row in matches.scorer.evalImgs[: len(truth["images"])]
        if row
    }
    assert expected["sample_images"]
    for image, sample in expected["sample_images"].items():
        oks = matches.oks(int(image), 1)
        if len(oks) or sample["oks"]:
            close("OKS of pairs", oks, sample["oks"])
        row = rows[int(image)]
        close("scores of detections", row["dtScores"], sample["det_scores"])
        assert [int(i) for i in row["gtIds"]] == sample["gt_ids"]
        for place, key in ((0, "0_50"), (5, "0_75")):
            theirs = np.maximum(sample[f"matched_gt_id_at_{key}"], 0)
            np.testing.assert_array_equal(row["dtMatches"][place], theirs)


def scene(seed, crowding=1.0):
    """Ground truth and detections with all that is awkward, made from a seed."""
    rng = np.random.default_rng(seed)
    images = rng.choice(99, 4, replace=False) + 1
    truth, found = [], []
    for image in images.tolist():
        for _ in range(rng.integers(0, 5)):
            size = rng.choice([20, 60, 200]) * rng.uniform(0.7, 1.4)
            joints = rng.uniform(0, size, (17, 2)) + rng.uniform(0, 200 * crowding, 2)
            flags = rng.choice(3, (17, 1)) * (rng.uniform() > 0.2)
            for _ in range(rng.integers(0, 10)):  # duplicates, more than 20 an image
                noise = rng.normal(0, rng.choice([0.0, 0.02, 0.2]) * size, (17, 2))
                sure = rng.integers(0, 2, (17, 1)) * rng.integers(0, 2)
                pose = np.concatenate([joints + noise, sure], axis=-1)
                found.append(
                    {
                        **{"image_id": image, "category_id": 1},
                        "keypoints": pose.reshape(-1).tolist(),
                        "score": float(rng.integers(0, 6) / 5),  # many are equal
                    }
                )
            flat = np.concatenate([joints * (flags > 0), flags], axis=-1).reshape(-1)
            truth.append(
                {
                    **{"id": len(truth) + 1, "image_id": image, "category_id": 1},
                    **{"keypoints": flat.tolist(), "area": float(size**2 / 2)},
                    **{"num_keypoints": int(np.sum(flags > 0))},
                    "bbox": [*joints.min(axis=0).tolist(), float(size), float(size)],
                    "iscrowd": int(rng.uniform() < 0.1),
                }
            )
    whole = {"images": [{"id": i} for i in images.tolist()], "annotations": truth}
    return whole | {"categories": [{"id": 1}]}, found


def make_odd(truth, found, rng):
    """Puts in what is sound, yet seldom seen."""
    odd = ({"area": 0}, {"area": 1024.0}, {"area": 9216}, {"iscrowd": True})
    odd += ({"bbox": [0, 0, 0, 0]}, {"ignore": 1}, {"area": 1e300}, {"category_id": 4})
    for item in truth["annotations"]:
        item |= odd[rng.integers(len(odd))]
    odd = ({"score": 3}, {"score": -1e300}, {"score": -0.0}, {"category_id": 4})
    odd += ({"keypoints": list(range(51))}, {"id": 7, "ignore": 1, "iscrowd": 1})
    for item in found:
        item |= odd[rng.integers(len(odd))]
    truth["categories"].append({"id": 4})


@pytest.mark.parametrize("seed", range(30))
def test_both_evaluators_agree_on_random_scenes_and_on_parts_of_them(seed):
    truth, found = scene(seed)
    if seed % 2:
        make_odd(truth, found, np.random.default_rng(seed))
    slow, fast = (coco.Matches(truth, found, COCO, backend=name) for name in BACKENDS)
    part = {image["id"] for image in truth["images"][::2]}
    for images in (None, part, set()):
        ours, theirs = (m.evaluator.curves(images) for m in (fast, slow))
        agree(ours, theirs)
        assert fast.metrics(images) == pytest.approx(slow.metrics(images), abs=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(5))
def test_figures_of_some_images_are_those_of_them_alone(seed, backend):
    truth, found = scene(seed)
    matches = coco.Matches(truth, found, COCO, backend=backend)
    before = matches.metrics()
    for count in range(len(truth["images"]) + 1):
        kept = [image["id"] for image in truth["images"][:count]]
        part = truth | {"images": truth["images"][:count]}
        part["annotations"] = [a for a in truth["annotations"] if a["image_id"] in kept]
        there = [item for item in found if item["image_id"] in kept]
        alone = coco.Matches(part, there, COCO, backend=backend).metrics()
        assert matches.metrics(set(kept)) == alone
    assert matches.metrics() == before


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(5))
def test_order_of_the_lists_changes_nothing(seed, backend):
    """Equal scores of an image count in the order of the list; all else is free."""
    truth, found = scene(seed)
    rng = np.random.default_rng(seed)
    mixed = {
        key: [items[i] for i in rng.permutation(len(items))]
        for key, items in truth.items()
    }
    # Images are dealt into one another, each keeping its own order.
    queues = coco.by_image(found)
    turns = rng.permutation([item["image_id"] for item in found]).tolist()
    queues = {image: iter(items) for image, items in queues.items()}
    dealt = [next(queues[image]) for image in turns]
    assert dealt != found

    metrics = coco.Matches(truth, found, COCO, backend=backend).metrics()
    again = coco.Matches(mixed, dealt, COCO, backend=backend).metrics()
    assert again == metrics

    for item in found:  # no two alike: then any order does
        item["score"] += float(rng.uniform(0, 0.1))
    metrics = coco.Matches(truth, found, COCO, backend=backend).metrics()
    shuffled = [found[i] for i in rng.permutation(len(found))]
    assert coco.Matches(truth, shuffled, COCO, backend=backend).metrics() == metrics


def person(image, x, size=100.0, **more):
    joints = np.stack([np.linspace(x, x + size, 17), np.linspace(0, size, 17)], axis=-1)
    flat = np.concatenate([joints, np.full((17, 1), 2.0)], axis=-1).reshape(-1)
    return {"image_id": image, "category_id": 1, "keypoints": flat.tolist(), **more}


def annotated(image, x, index):
    box = {"bbox": [x, 0.0, 100.0, 100.0], "area": 5000.0}
    return person(image, x, id=index, num_keypoints=17, iscrowd=0, **box)


@pytest.mark.parametrize("seed", range(10))
def test_ap_never_rises_when_the_only_detection_of_a_person_is_dropped(seed):
    """Its person is missed, all others are matched as before: no point of the curve
    has a higher precision or recall.
    """
    rng = np.random.default_rng(seed)
    places = [(image, 1000.0 * k) for image in (1, 2, 3) for k in range(4)]
    annotations = [annotated(*place, i + 1) for i, place in enumerate(places)]
    truth = {"images": [{"id": i} for i in (1, 2, 3)], "categories": [{"id": 1}]}
    truth["annotations"] = annotations
    near = [x + rng.choice([0.0, 0.0, 5.0, 500.0]) for _, x in places]  # or far away
    found = [
        person(image, x, score=float(rng.integers(0, 8)))
        for (image, _), x in zip(places, near, strict=True)
    ]
    before = coco.evaluate(truth, found, COCO)
    right = [i for i, (_, x) in enumerate(places) if near[i] == x]
    assert 0 < before["AP"] < 1
    assert right
    for index in right:
        after = coco.evaluate(truth, found[:index] + found[index + 1 :], COCO)
        for name in ("AP", "AP50", "AP75", "AP90"):
            assert after[name] <= before[name] + 1e-12
        assert after["AR"] < before["AR"]


def test_ap_can_rise_when_a_detection_with_an_equal_is_dropped():
    """Worked by hand: the duplicate, first a false alarm, takes its place."""
    truth = {"images": [{"id": 1}, {"id": 2}], "categories": [{"id": 1}]}
    truth["annotations"] = [annotated(1, 0.0, 1), annotated(2, 0.0, 2)]
    twice = [person(1, 0.0, score=s) for s in (0.9, 0.8)]
    found = [*twice, person(2, 0.0, score=0.7)]
    # Right, wrong, right: precision 1 up to recall .5 (51 points), then 2/3 (50).
    ap = coco.evaluate(truth, found, COCO)["AP"]
    assert ap == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert coco.evaluate(truth, found[1:], COCO)["AP"] == pytest.approx(1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_limit_cuts_before_matching(backend):
    truth = {"images": [{"id": 1}], "categories": [{"id": 1}]}
    truth["annotations"] = [annotated(1, 0.0, 1)]
    found = [person(1, 9e3, score=1.0 - k / 100) for k in range(20)]
    found.append(person(1, 0.0, score=0.1))
    assert coco.Matches(truth, found, COCO, backend=backend).metrics()["AR"] == 0
    wide = coco.Matches(truth, found, COCO, backend=backend, limit=21)
    assert wide.metrics()["AR"] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_box_of_the_first_detection_decides_where_sizes_come_from(backend):
    truth = {"images": [{"id": 1}], "categories": [{"id": 1}]}
    truth["annotations"] = [annotated(1, 0.0, 1)]  # medium, 5000 square pixels
    far = person(1, 9e3, size=200.0, score=0.9)  # its joints extend to a large one
    found = [far, person(1, 0.0, score=0.5)]
    without = coco.Matches(truth, found, COCO, backend=backend).metrics()
    assert without["AP_medium"] == pytest.approx(1)  # false, but of another size
    boxed = [item | {"bbox": [0, 0, 50, 50]} for item in found]
    given = coco.Matches(truth, boxed, COCO, backend=backend).metrics()
    assert given["AP_medium"] == pytest.approx(0.5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_found_scores_zero_and_nobody_there_is_undefined(backend):
    truth, _ = scene(3)
    assert truth["annotations"]
    metrics = coco.Matches(truth, [], COCO, backend=backend).metrics()
    assert metrics["AP"] == metrics["AR"] == 0
    nobody = truth | {"annotations": []}
    metrics = coco.Matches(nobody, [], COCO, backend=backend).metrics()
    assert set(metrics.values()) == {coco.UNDEFINED}
