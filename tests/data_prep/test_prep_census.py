import gzip
import json

import numpy as np
import pytest
import scenes

from data_prep import census, coco
from occjax import skeletons


class Pairs(scenes.Scenes):
    """Two people to an image; in image i their boxes overlap by i tenths of a side."""

    def __getitem__(self, index: int) -> dict:
        joints = np.zeros((3, 17, 3))
        joints[:2, 0] = (20, 20, 2)
        joints[0, 1] = (25, 20, 1)
        boxes = [[10, 10, 20, 20], [30 - 2 * index, 10, 20, 20], [10, 10, 20, 20]]
        image = np.full((60, 80, 3), 40, np.uint8)
        return scenes.record(
            image,
            joints,
            image_id=index,
            bbox=np.float32(boxes),
            is_crowd=np.array([False, False, True]),
        )


def test_counts_are_those_of_a_known_crowd():
    found = census.of_source(Pairs(6))
    assert (len(found.stored), found.persons, len(found.labelled)) == (6, 12, 12)
    assert found.joints == {
        "unlabelled": 12 * 17 - 18, "occluded": 6, "visible": 12
    }  # fmt: skip
    assert sorted(found.labelled) == [1] * 6 + [2] * 6
    assert found.marked == 6
    # Boxes that share a part t of their width have IoU t / (2 - t).
    iou = [t / (2 - t) for t in (0, 0.1, 0.2, 0.3, 0.4, 0.5)]
    np.testing.assert_allclose(found.people_iou, iou, atol=1e-12)
    # The crowd region has the first one's box.
    np.testing.assert_array_equal(found.box_iou, 1)
    # (20, 20) of the second is in the first's box, who has two joints. The second, who
    # has one, has (25, 20) of the first in the box from the fourth image on, and
    # (20, 20) too in the sixth.
    np.testing.assert_allclose(found.crowd_index, [1 / 4] * 3 + [3 / 4] * 2 + [5 / 4])
    text = census.table(found)
    assert "joints occluded" in text
    assert "16.7%" in text
    assert "stored" not in text


@pytest.fixture(scope="module")
def crowdpose(photographs):
    file = photographs / "crowdpose" / "annotations" / "crowdpose_val_1.json.gz"
    content = json.loads(gzip.open(file).read())
    return content, census.of_file(content, skeletons.CROWDPOSE)


def test_crowdpose_overlaps_as_was_measured_on_the_whole_file(crowdpose):
    """42.9, 14.4 and 1.8 % of 2,000 images (spec of OPEC-Net, 8.4); 1,494 are here."""
    _, found = crowdpose
    images = len(found.stored)
    assert images == 1494
    for limit, share in ((0.3, 0.429), (0.5, 0.144), (0.75, 0.018)):
        # Standard error of a share of 1,494 drawn from the 2,000.
        error = np.sqrt(share * (1 - share) / images * (1 - images / 2000))
        assert abs(np.mean(found.box_iou > limit) - share) < 2.5 * error
    assert np.mean(found.box_iou) == pytest.approx(0.288, abs=0.004)


def test_crowdpose_counts_are_those_of_the_file(crowdpose):
    content, found = crowdpose
    annotations = content["annotations"]
    single = [a for a in annotations if not a["iscrowd"]]
    marks = np.array([a["keypoints"][2::3] for a in single])
    marks = marks[np.any(marks > 0, axis=1)]
    assert found.persons == len(single) == len(annotations) - 76
    np.testing.assert_array_equal(
        np.sort(found.labelled), np.sort(np.sum(marks > 0, 1))
    )
    for value, name in enumerate(("unlabelled", "occluded", "visible")):
        assert found.joints[name] == np.sum(marks == value)
    assert found.marked == 1494 - 821  # those of the source without marks
    # Shares of easy, medium and hard images of the whole file: 411, 1,240, 349.
    groups = np.digitize(found.stored, (0.2, 0.8))
    shares = np.bincount(groups) / len(groups)
    np.testing.assert_allclose(shares, (0.2055, 0.62, 0.1745), atol=0.01)
    text = census.table(found)
    assert "stored and computed are equal" in text


def test_coco_people_are_hidden_as_in_the_published_benchmark(photographs):
    """922, 1775, 2745 and 910 of 6,352 people (spec of OAKS, 9.2); 4,618 are here."""
    folder = photographs / "coco_full" / "annotations"
    file = folder / "person_keypoints_val2017_from_labels.json.gz"
    content = coco.read(file, skeletons.COCO).content
    found = census.of_file(content, skeletons.COCO)
    assert found.persons == len(found.labelled) == 4618
    shares = np.bincount(np.digitize(found.labelled, (6, 11, 16))) / 4618
    expected = np.array([922, 1775, 2745, 910]) / 6352
    np.testing.assert_allclose(shares, expected, atol=0.015)


def test_damaged_annotations_are_counted(photographs):
    file = photographs / "crowdpose" / "annotations" / "crowdpose_images_1.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"] = None
    content["annotations"][1]["keypoints"][0] = "x"
    found = census.of_file(content, skeletons.CROWDPOSE)
    assert found.dropped == 2
    assert found.persons == 29
    assert "annotations that are damaged" in census.table(found)
