"""The flip test: mirrored views lead back to the upright one."""

import equivalence
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.ops import flip_test
from occjax.skeletons import COCO


def test_mirrored_image_reads_mirrored_at_the_pixels_that_a_map_samples():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, 8, 32, 3)).astype(np.float32)
    both = np.asarray(flip_test.orientations(jnp.asarray(image), 4))
    np.testing.assert_array_equal(both[:, 0], image)
    # map pixel u is input pixel 4 u; it mirrors onto w - 1 - u
    np.testing.assert_array_equal(both[:, 1, :, ::4], image[:, :, ::4][:, :, ::-1])
    assert not np.any(both[:, 1, :, -3:])


def test_mean_of_a_view_and_its_mirror_image_is_the_view():
    rng = np.random.default_rng(1)
    maps = rng.standard_normal((2, 4, 6, 17)).astype(np.float32)
    order = list(COCO.flip)
    views = np.stack((maps, maps[:, :, ::-1][..., order]), axis=1)
    np.testing.assert_allclose(flip_test.average(jnp.asarray(views), order), maps)
    np.testing.assert_array_equal(
        flip_test.average(jnp.asarray(views[:, :1]), order), maps
    )


def test_shifted_and_plain_means_equal_those_of_top_down_methods(golden):
    z = np.load(golden / "pose_hrnet_w32" / "decode.npz")
    order = list(COCO.flip)
    upright, mirrored = (np.moveaxis(z[f"flip_{name}"], 1, -1) for name in "ab")
    views = jnp.asarray(np.stack((upright, mirrored), axis=1))
    for shift, name in ((False, "flip_mean"), (True, "flip_shift_mean")):
        got = flip_test.average(views, order, shift=shift)
        link = f"decode: {name.replace('_', ' ')}"
        theirs = np.moveaxis(z[name], 1, -1)
        equivalence.check("HRNet-W32, top-down", link, got, theirs, 1e-6, "each")
    z = np.load(golden / "simple_baseline" / "decode.npz")
    views = jnp.asarray(np.moveaxis(z["heatmaps_b"][:1], 1, -1))[:, None]
    views = jnp.concatenate((jnp.zeros_like(views), views), axis=1)
    for shift, name in ((False, "flip_back"), (True, "flip_back_shift")):
        got = 2 * flip_test.average(views, order, shift=shift)
        link = f"decode: {name.replace('_', ' ')}"
        theirs = np.moveaxis(z[name], 1, -1)
        equivalence.exact("SimpleBaseline (every depth)", link, got, theirs)


def test_shifting_maps_brings_mirrored_readings_closer_to_the_upright_ones():
    # a map that samples the image itself, every fourth pixel
    column = np.arange(64)
    image = np.exp(-((column - 30.0) ** 2) / 50)
    image = jnp.asarray(image.reshape(1, 1, 64, 1), jnp.float32)
    maps = flip_test.orientations(image, 1)[:, :, :, ::4]  # mirrored without a shift
    gap = [
        jnp.abs(flip_test.average(maps, (0,), shift=shift) - maps[:, 0]).max()
        for shift in (False, True)
    ]
    assert float(gap[1]) < 0.5 * float(gap[0])
    shifted = flip_test.orientations(image, 4)[:, :, :, ::4]
    np.testing.assert_allclose(flip_test.average(shifted, (0,)), maps[:, 0], atol=1e-6)


def test_mirrored_poses_of_mirrored_parts_come_back():
    rng = np.random.default_rng(2)
    width, parts = 10, flip_test.part_order(COCO.parts["part-small"], COCO.flip)
    joints = rng.uniform(0, 9, (1, 6, 5, 17, 2)).astype(np.float32)
    mirrored = joints[:, list(parts)][..., list(COCO.flip), :].copy()
    mirrored[..., 0] = width - 1 - mirrored[..., 0]
    views = jnp.asarray(np.stack((joints, mirrored), axis=1))
    got = flip_test.mean_pose(views, parts, COCO.flip, width)
    np.testing.assert_allclose(got, joints, atol=1e-6)
    pixels = jnp.asarray(rng.integers(0, 10, (1, 6, 5, 2)), jnp.int32)
    at = flip_test.pixels_in_each(pixels, parts, width)
    np.testing.assert_array_equal(at[:, 0], pixels)
    np.testing.assert_array_equal(
        at[:, 1, :, :, 0], 9 - np.asarray(pixels)[..., 0][:, list(parts)]
    )


def test_part_order_exchanges_left_and_right_and_refuses_lone_sides():
    assert flip_test.part_order(COCO.parts["part-large"], COCO.flip) == (0, 1, 2)
    order = flip_test.part_order(COCO.parts["part-small"], COCO.flip)
    assert order == (0, 1, 3, 2, 5, 4)
    with pytest.raises(ValueError, match="mirror image of every part"):
        flip_test.part_order(((5, 7, 9),), COCO.flip)
