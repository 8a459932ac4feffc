"""Frames of boxes, against plain arithmetic."""

import functools

import equivalence
import jax
import jax.numpy as jnp
import numpy as np

from occjax.ops import frames, sampling

check = functools.partial(equivalence.check, "OPEC-Net")


def test_joints_come_into_the_frame_of_a_box_and_back_as_published(golden):
    figures = np.load(golden / "opec_net" / "preprocess.npz")
    low, high = (figures[name].astype(float) for name in ("pt1", "pt2"))
    names = ("dt_img", "gt_img", "dt_norm", "gt_norm", "dt_back")
    joints = {name: figures[name][..., :2].astype(float) for name in names}
    with jax.enable_x64(True):
        frame = frames.of_box(jnp.asarray(np.concatenate((low, high - low), axis=1)))
        for people in ("dt", "gt"):
            found = sampling.affine(jnp.asarray(joints[f"{people}_img"]), frame)
            check("warp: joints in the box", found, joints[f"{people}_norm"], 1e-6)
        back = sampling.inverse(frame)
        found = sampling.affine(jnp.asarray(joints["dt_norm"]), back)
    check("warp: joints back in the image", found, joints["dt_back"], 1e-6)


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
