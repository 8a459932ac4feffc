import numpy as np
import pytest
import scenes

from data_prep import browse


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


def test_statistics_are_those_of_a_known_crowd():
    found = browse.statistics(Pairs(6))
    assert (found.images, found.persons, found.labelled) == (6, 12, 12)
    assert found.joints == {
        "unlabelled": 12 * 17 - 18, "occluded": 6, "visible": 12
    }  # fmt: skip
    # Boxes that share a part t of their width have IoU t / (2 - t).
    iou = [t / (2 - t) for t in (0, 0.1, 0.2, 0.3, 0.4, 0.5)]
    assert found.iou_mean == pytest.approx(np.mean(iou))
    assert found.iou_shares[0.3] == pytest.approx(np.mean(np.array(iou) > 0.3))
    assert found.iou_shares[0.75] == 0
    text = browse.table(found)
    assert "joints occluded" in text
    assert "16.7%  of images" in text


def test_sheet_shows_the_records_with_their_poses():
    sheet = browse.sheet(Pairs(8), 8)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] > 6 * 300  # six columns
    assert (
        len(np.unique(sheet[::8, ::8].reshape(-1, 3), axis=0)) > 20
    )  # poses have colours
    assert browse.sheet(Pairs(2), 24).shape[0] < sheet.shape[0]
