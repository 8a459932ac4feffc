"""Targets of top-down methods: the published ones, and what is true of any."""

import jax.numpy as jnp
import numpy as np
import pytest

from occjax.ops import joint_maps

CASES = [
    ("pose_hrnet_w32", "targets.npz", "joints_f64", (64, 48), 2),
    ("simple_baseline", "targets.npz", "joints", (64, 48), 2),
    ("simple_baseline", "targets_b.npz", "joints", (64, 64), 3),
]


@pytest.mark.parametrize(("folder", "file", "key", "size", "sigma"), CASES)
def test_targets_are_the_published_ones(golden, folder, file, key, size, sigma):
    z = np.load(golden / folder / file)
    labelled = z["joints_vis"][..., 0] > 0
    joints = z[key][..., :2].astype(np.float32)
    maps, weight = joint_maps.targets(joints, labelled, size, sigma, 4)
    np.testing.assert_array_equal(weight, z["target_weight"][..., 0])
    np.testing.assert_allclose(np.moveaxis(maps, -1, 1), z["target"], atol=1e-6)


def one(x, y, **fields):
    given = {"size": (16, 12), "sigma": 1.0, "stride": 4} | fields
    joints, labelled = jnp.asarray([[[x, y]]], jnp.float32), jnp.ones((1, 1), bool)
    maps, weight = joint_maps.targets(joints, labelled, **given)
    return np.asarray(maps[0, ..., 0]), float(weight[0, 0])


def test_the_peak_is_on_the_nearest_pixel_and_the_bell_ends_at_three_sigmas():
    maps, weight = one(21.9, 30.0)  # 5.475 and 7.5 map pixels
    assert weight == 1
    assert np.unravel_index(maps.argmax(), maps.shape) == (8, 5)
    assert maps[8, 5] == 1
    rows, columns = np.nonzero(maps)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 11, 2, 8)
    np.testing.assert_allclose(maps[9, 6], np.exp(-1), rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "weight"), [(-17, 1), (-21.9, 1), (-22.1, 0), (57.9, 1), (58, 0)]
)
def test_joints_beyond_the_border_count_while_their_window_touches_it(x, weight):
    # from the rule: window [t - 3, t + 4) with t = trunc(x / 4 + 1 / 2), 12 columns
    maps, found = one(x, 30.0)
    assert found == weight
    assert weight == 1 or not maps.any()


def test_who_is_not_labelled_has_no_weight_and_no_bell():
    joints = jnp.full((1, 2, 2), 20.0)
    labelled = jnp.asarray([[True, False]])
    maps, weight = joint_maps.targets(joints, labelled, (16, 12), 1.0, 4)
    np.testing.assert_array_equal(weight, [[1, 0]])
    assert maps[..., 0].any()
    assert not maps[..., 1].any()
