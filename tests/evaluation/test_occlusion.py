import json

import figures
import numpy as np
import pytest

from occjax.evaluation import checks, coco, curves, matching, occlusion, view
from occjax.skeletons import COCO, CROWDPOSE, MPII, OCPOSE


@pytest.fixture
def crowd(photographs):
    folder = photographs / "eval_reference"
    return (
        checks.read_json(folder / "../coco/annotations/person_keypoints_shared.json"),
        checks.read_json(folder / "coco_images_seed16_good.detections.json"),
    )


def bins_of(truth, found, **edges):
    matches = coco.Matches(truth, found, COCO)
    return occlusion.by_overlap(truth, matches, **edges)


def test_iou_of_boxes_worked_by_hand():
    boxes = np.array([[0, 0, 4, 4], [2, 0, 4, 4], [10, 10, 1, 1], [0, 0, 0, 5]], float)
    iou = occlusion.box_iou(boxes)
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = 8 / 24
    np.testing.assert_allclose(iou, expected)


def test_iou_equals_that_of_pycocotools(photographs, crowd):
    from pycocotools import mask

    boxes = np.array([item["bbox"] for item in crowd[0]["annotations"]][:60])
    expected = mask.iou(boxes, boxes, [0] * len(boxes))
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(occlusion.box_iou(boxes), expected, atol=1e-12)


def test_shared_figures_of_overlapping_people_are_met(photographs):
    data = np.load(
        photographs / "coco_full/annotations/keypoints_train2017_multi_person.npz"
    )
    boxes, offset = data["bbox_xywh_x100"] / 100, data["person_offset"]
    spans = zip(offset[:-1], offset[1:], strict=True)
    largest = [occlusion.box_iou(boxes[a:b]).max(axis=1) for a, b in spans]
    images = [sum(iou.max() > t for iou in largest) for t in (0.3, 0.5, 0.75)]
    assert images == [3378, 661, 52]
    assert np.mean(np.concatenate(largest)) == pytest.approx(0.1083, abs=5e-5)


def test_bins_partition_the_images(crowd):
    bins = bins_of(*crowd)
    assert sum(row["images"] for row in bins) == len(crowd[0]["images"])
    counted = [
        item
        for item in crowd[0]["annotations"]
        if item["num_keypoints"] > 0 and not item["iscrowd"]
    ]
    assert sum(row["persons"] for row in bins) == len(counted)
    assert [row["low"] for row in bins[1:]] == [row["high"] for row in bins[:-1]]


def test_one_bin_over_everything_gives_the_plain_figures(crowd):
    (row,) = bins_of(*crowd, edges=(0.0, 1.0))
    metrics = coco.evaluate(*crowd, COCO)
    assert {name: row[name] for name in metrics} == metrics


def test_figures_of_a_bin_are_those_of_its_images_alone(crowd):
    truth, found = crowd
    overlap = occlusion.max_overlap(truth)
    images = {image for image, value in overlap.items() if 0.3 <= value < 0.5}
    part = truth | {
        "images": [item for item in truth["images"] if item["id"] in images],
        "annotations": [a for a in truth["annotations"] if a["image_id"] in images],
    }
    alone = coco.evaluate(part, [i for i in found if i["image_id"] in images], COCO)
    row = bins_of(truth, found)[1]
    assert {name: row[name] for name in alone} == alone


def two_people(overlap):
    """One image whose two boxes have the given IoU, and one with a single person."""
    shift = 100 * (1 - overlap) / (1 + overlap)
    items = [(1, 0.0), (1, shift), (2, 0.0)]
    annotations = [
        {
            **{"id": index + 1, "image_id": image, "category_id": 1, "iscrowd": 0},
            **{"bbox": [x, 0, 100, 50], "area": 5000.0, "num_keypoints": 17},
            "keypoints": [x, 1, 2] * 17,
        }
        for index, (image, x) in enumerate(items)
    ]
    images = [{"id": 1}, {"id": 2}]
    return {"images": images, "categories": [{"id": 1}], "annotations": annotations}


@pytest.mark.parametrize(
    ("overlap", "where"), [(0.0, 0), (0.29, 0), (0.31, 1), (0.6, 2), (0.9, 3), (1.0, 3)]
)
def test_image_falls_into_the_bin_of_its_largest_overlap(overlap, where):
    truth = two_people(overlap)
    assert occlusion.max_overlap(truth)[1] == pytest.approx(overlap)
    persons = [row["persons"] for row in bins_of(truth, [])]
    expected = [0, 0, 0, 0]
    expected[0] += 1
    expected[where] += 2
    assert persons == expected


def test_crowd_regions_overlap_nobody():
    truth = two_people(0.9)
    truth["annotations"][1]["iscrowd"] = 1
    assert occlusion.max_overlap(truth) == {1: 0.0, 2: 0.0}


def test_empty_bin_is_undefined_and_shown_as_a_dash():
    bins = bins_of(two_people(0.9), [])
    assert bins[1]["images"] == 0
    assert bins[1]["AP"] == coco.UNDEFINED
    assert occlusion.table(bins).splitlines()[2].split()[-2:] == ["-", "-"]


def test_boxes_of_whole_numbers_overlap_like_others():
    boxes = np.array([[0, 0, 4, 4], [2, 0, 4, 4]])
    iou = occlusion.box_iou(boxes)
    np.testing.assert_array_equal(iou, occlusion.box_iou(boxes.astype(float)))


@pytest.mark.parametrize(
    ("skeleton", "expected"),
    [
        (COCO, [(1, 5), (6, 10), (11, 15), (16, 17)]),
        (CROWDPOSE, [(1, 4), (5, 8), (9, 12), (13, 14)]),
        (OCPOSE, [(1, 3), (4, 7), (8, 10), (11, 12)]),
        (MPII, [(1, 4), (5, 9), (10, 14), (15, 16)]),
    ],
)
def test_joint_counts_of_all_sizes_have_a_bin(skeleton, expected):
    scene = figures.crowded(np.random.default_rng(0), skeleton, images=40)
    gathered = figures.gathered(scene, skeleton)
    bins = occlusion.joint_count_bins(gathered)
    assert [(low, high) for low, high, _ in bins] == expected
    members = np.sum([only for _, _, only in bins], axis=0)
    np.testing.assert_array_equal(members, gathered.people.counts)
    count = gathered.people.labelled.sum(axis=1)
    for low, high, only in bins:
        assert np.all((count[only] >= low) & (count[only] <= high))


def test_figures_of_a_joint_count_ignore_the_other_people(crowd):
    truth, found = crowd
    gathered = figures.gathered(crowd)
    rows = occlusion.by_joint_count(gathered)
    persons = sum(row["persons"] for row in rows)
    assert persons == gathered.people.counts.sum()
    for row in rows:
        inside = range(row["low"], row["high"] + 1)
        marked = [
            item if item["num_keypoints"] in inside else item | {"num_keypoints": 0}
            for item in truth["annotations"]
        ]
        theirs = coco.evaluate(truth | {"annotations": marked}, found, COCO)
        for name in ("AP", "AP50", "AP75", "AR"):
            assert row[name] == pytest.approx(theirs[name], abs=1e-12)
    assert rows[0]["AP75_from_32"] != rows[0]["AP75"]


def test_curves_are_those_behind_ap75(crowd):
    gathered = figures.gathered(crowd)
    result = curves.precision_recall(gathered)
    everybody = result["everybody"]
    plain = coco.evaluate(*crowd, COCO)
    assert everybody["AP75"] == pytest.approx(plain["AP75"], abs=1e-12)
    assert np.all(np.diff(everybody["precision"]) <= 0)
    assert len(result["recall"]) == len(everybody["precision"]) == 101
    rows = occlusion.by_joint_count(gathered)
    for curve, row in zip(result["joint_count"], rows, strict=True):
        assert curve["persons"] == row["persons"]
        assert curve["AP75"] == pytest.approx(row["AP75"], abs=1e-12)


def test_crowding_counts_the_others_whose_box_overlaps(crowd):
    gathered = figures.gathered(crowd)
    beside = occlusion.neighbours(gathered)
    people = gathered.people
    for row in range(len(people.area)):
        others = [
            other
            for other in np.flatnonzero(people.image == people.image[row])
            if other != row and not people.crowd[other]
        ]
        pairs = [people.boxes[[row, other]] for other in others]
        expected = sum(occlusion.box_iou(pair)[0, 1] > 0.1 for pair in pairs)
        assert people.crowd[row] or beside[row] == expected
    rows = occlusion.by_crowding(gathered)
    assert sum(row["persons"] for row in rows) == people.counts.sum()
    assert all(row["persons"] for row in rows)


def test_crowd_index_worked_by_hand():
    # Two boxes share two of five joints of the first and one of the four of the second.
    first = np.array([[x, 5, 2] for x in (1, 2, 11, 12, 3)] + [[0, 0, 0]] * 12)
    second = np.array([[x, 5, 1] for x in (8, 15, 16, 17)] + [[0, 0, 0]] * 13)
    truth = figures.truth_of(
        [
            figures.person(1, 1, first, bbox=[0, 0, 14, 10]),
            figures.person(2, 1, second, bbox=[10, 0, 10, 10]),
            figures.person(3, 1, first, num_keypoints=0),
            figures.person(4, 2, first),
        ],
        [3],
    )
    expected = round((1 / 5 + 2 / 4) / 2, 2)
    assert occlusion.crowd_index(truth) == {1: expected, 2: 0, 3: 0}
    truth["images"][0]["crowdIndex"] = 0.9
    assert occlusion.crowd_index(truth)[1] == 0.9


def test_crowd_index_is_the_one_crowdpose_stores(photographs):
    # Of the pictures that CrowdPose did not take from COCO, whose labels changed since.
    path = photographs / "crowdpose/annotations/crowdpose_val_1.json.gz"
    truth = checks.read_json(path)
    bare = {i["image_id"] for i in truth["annotations"] if not i["num_keypoints"]}
    stored = {item["id"]: item.pop("crowdIndex") for item in truth["images"]}
    index = occlusion.crowd_index(truth)
    chosen = [image for image in index if image >= 109051 and image not in bare]
    same = [abs(index[image] - stored[image]) < 0.006 for image in chosen]
    assert len(same) == 820
    assert np.mean(same) > 0.99


def test_levels_of_the_crowd_index_are_those_of_crowdpose(photographs):
    folder = photographs / "eval_reference"
    case = folder / "crowdpose_seed17_ties_good.expected.json"
    expected = json.loads(case.read_text())
    truth = checks.read_json(folder / expected["ground_truth"])
    found = checks.read_json(folder / expected["detections"])
    for item in truth["annotations"]:
        item["area"] = 0.53 * item["bbox"][2] * item["bbox"][3]
    # CrowdPose's evaluator leaves out detections whose confidences are all zero.
    found = [item for item in found if any(item["keypoints"][2::3])]
    matches = coco.Matches(truth, found, CROWDPOSE)
    levels = expected["other_evaluators"]["by_crowd_level_unrounded"]
    for row in occlusion.by_crowd_index(truth, matches):
        level = levels[row["name"]]
        assert row["images"] == level["images"]
        for name in ("AP", "AP50", "AP75", "AR"):
            assert row[name] == pytest.approx(level[name], abs=1e-9)


def test_view_answers_every_question_in_plain_numbers(crowd):
    truth, found = crowd
    before = json.dumps([truth, found])
    matches = coco.Matches(truth, found, COCO)
    result = view.occlusion_view(truth, found, COCO, matches)
    assert json.loads(json.dumps(result)) == result
    assert json.dumps([truth, found]) == before
    assert set(result) == {
        *("bins", "joints", "curves", "errors", "calibration", "oracle", "worst"),
    }
    plain = matches.metrics()
    assert result["oracle"]["given"]["AP"] == pytest.approx(plain["AP"], abs=1e-12)
    assert result["errors"]["steps"][0]["AP"] == result["oracle"]["given"]["AP"]
    assert result["calibration"]["visibility"] is None
    lines = view.text(result).splitlines()
    assert max(map(len, lines)) <= 88
    assert lines[0] == "AP by the largest box IoU in an image"
    assert lines[1].split()[:2] == ["box", "IoU"]
    assert matching.score(figures.gathered(crowd))["AP"] == pytest.approx(plain["AP"])


def test_view_of_nothing_found_is_a_view(crowd):
    truth, _ = crowd
    result = view.occlusion_view(truth, [], COCO, coco.Matches(truth, [], COCO))
    json.dumps(result)
    assert result["oracle"]["ceiling"]["AP"] == 0
    assert "-" in view.text(result)
