import json

import figures
import numpy as np
import pytest

from occjax.errors import UserError
from occjax.evaluation import checks, coco, matching, pairs
from occjax.skeletons import COCO, CROWDPOSE

CASES = (
    "coco_images_mediapipe",
    "coco_images_seed11",
    "coco_images_seed12_ties",
    "coco_images_seed16_good",
    "coco_full_seed13",
    "ochuman_mediapipe",
    "ochuman_seed15",
    "xtcocotools_example_coco",
)


@pytest.mark.parametrize("case", CASES)
def test_curve_is_the_one_pycocotools_gave(photographs, case):
    folder = photographs / "eval_reference"
    expected = json.loads((folder / f"{case}.expected.json").read_text())
    truth = checks.read_json(folder / expected["ground_truth"])
    found = checks.read_json(folder / expected["detections"])

    gathered = pairs.gather(truth, found, COCO)
    curve = matching.curve(gathered, matching.match(gathered))

    precision = curve.precision.mean(axis=1)
    np.testing.assert_allclose(
        precision, expected["ap_per_threshold"]["all"], atol=1e-12
    )
    np.testing.assert_allclose(
        curve.recall, expected["recall_per_threshold"]["all"], atol=1e-12
    )
    summary = curve.summary()
    for name, value in summary.items():
        assert value == pytest.approx(expected["stats"][name], abs=1e-12)


def same(ours, theirs):
    assert ours == pytest.approx({name: theirs[name] for name in ours}, abs=1e-12)


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE])
@pytest.mark.parametrize("seed", range(8))
def test_figures_equal_those_of_matches(skeleton, seed):
    # Up to 30 detections an image, with equal scores, crowds and bare people.
    truth, found = figures.crowded(
        np.random.default_rng(seed), skeleton, detections=30 if seed % 2 else 5
    )
    theirs = coco.Matches(truth, found, skeleton).metrics()
    assert 0 < theirs["AP"] < 1
    same(matching.score(pairs.gather(truth, found, skeleton)), theirs)


@pytest.mark.parametrize("seed", range(5))
def test_people_left_out_are_those_marked_without_joints(seed):
    rng = np.random.default_rng(seed)
    truth, found = figures.crowded(rng, detections=10)
    gathered = pairs.gather(truth, found, COCO)
    only = rng.random(len(gathered.people.area)) < 0.5

    # People are sorted by image, and the annotations of these scenes are already.
    marked = [
        item if keep else item | {"num_keypoints": 0}
        for item, keep in zip(truth["annotations"], only, strict=True)
    ]
    theirs = coco.Matches(truth | {"annotations": marked}, found, COCO).metrics()

    same(matching.score(gathered, only), theirs)
    assert matching.score(gathered) != matching.score(gathered, only)


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_range_of_areas_is_that_of_pycocotools(seed, boxed):
    from pycocotools.coco import COCO as Annotated
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(seed)
    truth, found = figures.crowded(rng, detections=10)
    for item in found[::3]:  # small ones, which are wrong and out of range
        points = np.reshape(item["keypoints"], (-1, 3)) * [0.1, 0.1, 1]
        item["keypoints"] = points.reshape(-1).tolist()
    for item in found if boxed else ():  # then the box alone says how large it is
        item["bbox"] = [0, 0, *rng.choice([5, 50], 2).tolist()]
    annotated = Annotated()
    annotated.dataset = json.loads(json.dumps(truth))
    annotated.createIndex()
    results = [dict(item) for item in found]
    scorer = COCOeval(annotated, annotated.loadRes(results), "keypoints")
    scorer.params.areaRng, scorer.params.areaRngLbl = [[32**2, 1e10]], ["all"]
    scorer.evaluate()
    scorer.accumulate()
    expected = scorer.eval["precision"][:, :, 0, 0, 0]

    gathered = pairs.gather(truth, found, COCO)
    for area in ((32.0**2, 1e10), matching.EVERY_AREA):
        matched = matching.match(gathered, area=area)
        precision = matching.curve(gathered, matched).precision
        equal = np.allclose(precision, expected, atol=1e-12)
        assert equal == (area != matching.EVERY_AREA)


def test_order_of_images_and_annotations_changes_nothing():
    rng = np.random.default_rng(4)
    truth, found = figures.crowded(rng)
    for item in found:  # equal scores are told apart by their order alone
        item["score"] += rng.uniform(0, 0.01)
    plain = matching.score(pairs.gather(truth, found, COCO))
    mixed = {
        key: [values[i] for i in rng.permutation(len(values))]
        for key, values in truth.items()
    }
    found = [found[i] for i in rng.permutation(len(found))]
    assert matching.score(pairs.gather(mixed, found, COCO)) == plain


def test_without_detections_all_is_zero_and_without_people_undefined():
    truth, found = figures.crowded(np.random.default_rng(0))
    nothing = matching.score(pairs.gather(truth, [], COCO))
    assert set(nothing.values()) == {0.0}
    nobody = matching.score(pairs.gather(truth | {"annotations": []}, found, COCO))
    assert set(nobody.values()) == {coco.UNDEFINED}
    empty = {"images": [], "annotations": [], "categories": [{"id": 1}]}
    assert matching.score(pairs.gather(empty, [], COCO)) == nobody


def test_only_the_twenty_best_detections_of_an_image_are_looked_at():
    rng = np.random.default_rng(0)
    joints = figures.body(rng)
    scores = rng.permutation(30) / 30
    found = [figures.detection(1, joints, score) for score in scores]
    gathered = pairs.gather(
        figures.truth_of([figures.person(1, 1, joints)]), found, COCO
    )
    assert sorted(gathered.found.score) == sorted(scores)[10:]
    kept = scores[gathered.found.index]
    np.testing.assert_array_equal(gathered.found.score, kept)


@pytest.mark.parametrize(
    "visible", [[0.5] * 16, [1.5] * 17, [float("nan")] * 17, ["a"] * 17, 0.3, None]
)
def test_bad_visibility_is_named(visible):
    truth, found = figures.crowded(np.random.default_rng(0))
    found[3]["visible"] = visible
    with pytest.raises(UserError, match="item 3: expected visible to be 17") as caught:
        pairs.gather(truth, found, COCO)
    assert "\n" not in str(caught.value)


def test_more_than_one_category_is_refused():
    truth, found = figures.crowded(np.random.default_rng(0))
    truth["categories"].append({"id": 2})
    with pytest.raises(UserError, match=r"one category, got \[1, 2\]"):
        pairs.gather(truth, found, COCO)
