"""Frames of boxes, against plain arithmetic."""

import numpy as np

from occjax.ops import frames, sampling


def test_corners_of_a_box_are_minus_one_and_one():
    boxes = np.float32([[10, 20, 40, 80], [-5, 0, 3, 7]])
    corners = np.stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    found = sampling.affine(corners, frames.of_box(boxes))
    np.testing.assert_allclose(found, np.tile([[-1, -1], [1, 1]], (2, 1, 1)), atol=1e-5)


def test_an_expanded_box_is_larger_on_every_side():
    boxes = np.float32([[10, 20, 40, 80]])
    corners = np.float32([[[4, 8], [56, 112]]])  # 15 % of 40 and 80 away
    found = sampling.affine(corners, frames.of_box(boxes, 0.15))
    np.testing.assert_allclose(found, [[[-1, -1], [1, 1]]], atol=1e-5)


def test_a_box_without_extent_gives_finite_maps():
    assert np.all(np.isfinite(frames.of_box(np.zeros((1, 4), np.float32))))


def test_one_map_after_the_other():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 3, 2, 3)).astype(np.float32)
    points = rng.normal(size=(3, 5, 2)).astype(np.float32)
    both = sampling.affine(points, frames.then(first, second))
    each = sampling.affine(sampling.affine(points, first), second)
    np.testing.assert_allclose(both, each, rtol=1e-4, atol=1e-5)
