"""Cascaded feature adaption against the published code, torch's rule and loops."""

import functools

import equivalence
import golden_nets as nets
import jax
import numpy as np
import published_opec as published
import pytest

from occjax.nn import feature_adaption
from occjax.nn.feature_adaption import FeatureAdaption
from occjax.runtime import weights


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 2e-7)])
def test_maps_and_heatmaps_equal_the_published_ones(golden, dtype, tolerance):
    figures = np.load(golden / "opec_net" / "forward_eval.npz")
    arrays = published.state_dict(golden, "forward_eval")
    with jax.enable_x64(dtype == "float64"):
        maps, _, _ = published.arguments(figures, np.dtype(dtype))
        model = FeatureAdaption(12, dtype=np.dtype(dtype))
        shapes = published.shapes(model, maps, how={})
        own = published.own(arrays, "heat_map_generator.")
        given = weights.convert(own, feature_adaption.TORCH_NAMES, shapes)
        got = nets.quick_jit(model.apply)(given, maps)
    check = functools.partial(equivalence.check, published.MODEL)
    for i, ours in enumerate(got.maps, start=1):
        wanted = np.moveaxis(figures[f"cfa{i}"], 1, -1)
        check("forward: adapted maps", ours, wanted, tolerance)
    wanted = np.moveaxis(figures["heatmap"], 1, -1)
    check("forward: heatmaps of the adaption", got.heatmaps, wanted, tolerance)
    assert nets.count(shapes["params"]) == 2_210_956


def test_weights_come_back_under_the_published_names(golden):
    figures = np.load(golden / "opec_net" / "forward_eval.npz")
    arrays = published.state_dict(golden, "forward_eval")
    maps, _, _ = published.arguments(figures)
    shapes = published.shapes(FeatureAdaption(12), maps, how={})
    own = published.own(arrays, "heat_map_generator.")
    rows = feature_adaption.TORCH_NAMES
    back = weights.revert(weights.convert(own, rows, shapes), rows)
    assert back.keys() == own.keys()
    for name, array in own.items():
        np.testing.assert_array_equal(back[name], array)


def test_upsampling_equals_torchs_transposed_convolution(golden):
    figures = np.load(golden / "torch_ops" / "ops.npz")
    x, kernel = figures["in_x"], figures["in_w_t2"]
    model = feature_adaption.Upsample(3)
    params = {
        "kernel": np.moveaxis(kernel, (0, 1), (-1, -2)),
        "bias": np.zeros(3, np.float32),
    }
    got = model.apply({"params": params}, np.moveaxis(x, 1, -1))
    wanted = np.moveaxis(figures["convT_k2s2"], 1, -1)
    nets.assert_close_to_largest(got, wanted, 2e-6)


def test_fusion_gates_the_upsampled_map_alone():
    rng = np.random.default_rng(0)
    up, fine = (rng.standard_normal((2, 3, 4, 5)).astype(np.float32) for _ in "12")
    fusion = feature_adaption.Fusion()
    shapes = published.shapes(fusion, up, fine, how={})
    closed = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    run = nets.quick_jit(fusion.apply)
    np.testing.assert_allclose(run(closed, up, fine), up / 2 + fine, atol=1e-6)
    closed["params"]["fc2"]["bias"] -= 100
    np.testing.assert_allclose(run(closed, up, fine), fine, atol=1e-6)


def maps_of(*channels):
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal((2, 3 << i, 2 << i, c)).astype(np.float32)
        for i, c in enumerate(channels)
    ]


def test_maps_of_one_width_pass_a_small_convolution_where_they_must():
    maps = maps_of(256, 256, 256)
    shapes = published.shapes(FeatureAdaption(12), maps, how={})["params"]
    assert shapes["conv1"]["kernel"].shape == (3, 3, 256, 256)
    assert shapes["fusion1"]["fc1"]["kernel"].shape == (512, 256)
    assert shapes["conv2"]["kernel"].shape == (3, 3, 256, 128)
    assert shapes["project2"]["kernel"].shape == (1, 1, 256, 128)
    assert "project1" not in shapes
    without = 1_179_904 - 256 * 9 * 256 + 256 * 128 + 128
    assert nets.count(shapes) == 2_210_956 - 1_179_904 + without


def test_without_fusion_each_map_is_adapted_by_itself():
    maps = maps_of(5, 4, 3)
    model = FeatureAdaption(2, (6, 4, 4), fusion=False)
    variables = published.random_variables(model, maps, how={})
    run = nets.quick_jit(model.apply)
    got = run(variables, maps)
    changed = [maps[0] + 1, maps[1], maps[2] + 1]
    other = run(variables, changed)
    np.testing.assert_array_equal(got.maps[1], other.maps[1])
    assert np.any(got.maps[0] != other.maps[0])
    assert np.any(got.heatmaps != other.heatmaps)
    assert [x.shape[-1] for x in got.maps] == [6, 4, 4]
    names = set(variables["params"])
    assert names == {"conv1", "conv2", "conv3", "heatmaps"}


@pytest.mark.slow
def test_starts_are_the_published_ones():
    maps = maps_of(64, 64, 64)
    model = FeatureAdaption(12, (64, 64, 64))
    params = nets.quick_jit(model.init)(jax.random.key(0), maps)["params"]
    for name, features in (("conv1", 64), ("heatmaps", 12)):
        deviation = np.std(params[name]["kernel"])
        np.testing.assert_allclose(deviation, np.sqrt(2 / (9 * features)), rtol=0.03)
        np.testing.assert_array_equal(params[name]["bias"], 0)
    for found, bound in (
        (params["up1"]["kernel"], (4 * 64) ** -0.5),
        (params["fusion1"]["fc1"]["kernel"], np.sqrt(3 / 128)),
    ):
        assert 0.98 * bound < np.abs(found).max() <= bound


def test_maps_of_wrong_number_or_size_are_refused():
    maps, init = maps_of(5, 4, 3), FeatureAdaption(2, (6, 4, 4)).init
    with pytest.raises(ValueError, match="expected 3, got 2"):
        jax.eval_shape(init, jax.random.key(0), maps[:2])
    with pytest.raises(ValueError, match=r"twice \(3, 2\) pixels, got \(12, 8\)"):
        jax.eval_shape(init, jax.random.key(0), [maps[0], maps[2], maps[2]])
