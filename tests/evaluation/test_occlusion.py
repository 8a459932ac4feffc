import numpy as np
import pytest

from occjax.evaluation import checks, coco, occlusion
from occjax.skeletons import COCO


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
