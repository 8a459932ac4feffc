"""Who is whose partner, against a loop."""

import numpy as np
import pytest

from occjax.ops import couples


def iou(a, b):
    low = np.maximum(a[:2], b[:2])
    high = np.minimum(a[:2] + a[2:], b[:2] + b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


@pytest.mark.parametrize("seed", range(5))
def test_the_partner_is_the_one_whose_box_overlaps_most(seed):
    rng = np.random.default_rng(seed)
    boxes = np.concatenate(
        [rng.uniform(0, 60, (3, 6, 2)), rng.uniform(10, 60, (3, 6, 2))], axis=-1
    ).astype(np.float32)
    there = rng.random((3, 6)) < 0.8
    partner, paired = couples.partners(boxes, there, 0.1)
    for b, p in np.ndindex(3, 6):
        overlaps = {
            q: iou(boxes[b, p], boxes[b, q])
            for q in range(6)
            if q != p and there[b, q] and there[b, p]
        }
        best = max(overlaps, key=overlaps.get, default=None)
        if best is None or overlaps[best] <= 0.1:
            assert not paired[b, p]
            assert partner[b, p] == p
        else:
            assert paired[b, p]
            assert partner[b, p] == best


def test_empty_boxes_and_people_by_themselves_have_none():
    boxes = np.float32([[[0, 0, 10, 10], [0, 0, 0, 0], [50, 50, 10, 10]]])
    _, paired = couples.partners(boxes, np.ones((1, 3), bool), 0.0)
    assert not np.any(paired)


def test_the_box_of_a_couple_holds_both():
    boxes = np.float32([[[0, 5, 10, 10], [4, 0, 20, 8]]])
    both = couples.union(boxes, np.array([[1, 0]]))
    np.testing.assert_allclose(both, [[[0, 0, 24, 15]] * 2])
