"""Targets of top-down methods: the published ones, and what is true of any."""

import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.ops import joint_maps

HRNET = "HRNet-W32, top-down"
BASELINE = "SimpleBaseline (every depth)"
CASES = [
    (HRNET, "pose_hrnet_w32", "targets.npz", "joints_f64", (64, 48), 2),
    (BASELINE, "simple_baseline", "targets.npz", "joints", (64, 48), 2),
    (BASELINE, "simple_baseline", "targets_b.npz", "joints", (64, 64), 3),
]
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def check(model, joints, visible, z, prefix, size, sigma):
    labelled = visible[..., 0] > 0
    with jax.enable_x64(joints.dtype == np.float64):
        maps, weight = joint_maps.targets(joints, labelled, size, sigma, 4)
    wanted = z[f"{prefix}target_weight"][..., 0].reshape(weight.shape)
    equivalence.exact(model, "target: weights", weight, wanted)
    maps = np.moveaxis(maps, -1, 1)
    wanted = z[f"{prefix}target"].reshape(maps.shape)
    equivalence.check(model, "target: maps", maps, wanted, 1e-6, "absolute")


@DTYPES
@pytest.mark.parametrize(("model", "folder", "file", "key", "size", "sigma"), CASES)
def test_targets_are_the_published_ones(
    golden, model, folder, file, key, size, sigma, dtype
):
    z = np.load(golden / folder / file)
    joints = z[key][..., :2].astype(dtype)
    check(model, joints, z["joints_vis"], z, "", size, sigma)


@DTYPES
@pytest.mark.parametrize("sample", ["s00", "s01", "s10", "s11", "s20", "s21"])
def test_targets_of_augmented_persons_are_the_published_ones(golden, sample, dtype):
    z = np.load(golden / "pose_hrnet_w32" / "augment.npz")
    joints = z[f"{sample}_joints_f64"][None, :, :2].astype(dtype)
    visible = z[f"{sample}_joints_vis"][None]
    check(HRNET, joints, visible, z, f"{sample}_", (64, 48), 2)


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
