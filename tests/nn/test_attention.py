"""DAG's attention: the published figures, cases by hand, what it starts as."""

import json

import equivalence
import golden_nets as nets
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.nn import attention
from occjax.runtime import weights


def published(golden, part):
    """Reference figures, and the weights of one part of DAG's attention."""
    manifest = json.loads((golden / "graph_conv" / "manifest.json").read_text())
    entries = manifest["dag_attention"]["entries"]
    state = golden_weights.generate({"g": 1.0, "entries": entries})
    own = {
        name.removeprefix(part): value
        for name, value in state.items()
        if name.startswith(part)
    }
    return np.load(golden / "graph_conv" / "dag_attention.npz"), own


def given(module, features, state, rows):
    shapes = jax.eval_shape(module.init, jax.random.key(0), features)
    return weights.convert(state, rows, shapes)


@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-5), ("float64", 1e-6)])
def test_channel_attention_equals_the_published_one(golden, dtype, within):
    figures, state = published(golden, "channel_att.")
    with jax.enable_x64(dtype == "float64"):
        features = jnp.asarray(nets.nhwc(figures["features"]), dtype)
        module = attention.ChannelAttention(jnp.dtype(dtype))
        variables = given(module, features, state, attention.CHANNEL_NAMES)
        got = module.apply(variables, features)
    wanted = nets.nhwc(figures["channel_att"])
    link = "forward: channel attention"
    equivalence.check("DAG", link, got, wanted, within, "absolute")


@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-5), ("float64", 1e-6)])
def test_spatial_attention_equals_the_published_one(golden, dtype, within):
    figures, state = published(golden, "spatial.")
    state["gamma"] = state["gamma"] * np.float32(0.01)  # as the published code does
    with jax.enable_x64(dtype == "float64"):
        features = jnp.asarray(nets.nhwc(figures["features"]), dtype)
        module = attention.SpatialAttention(dtype=jnp.dtype(dtype))
        variables = given(module, features, state, attention.SPATIAL_NAMES)
        got = module.apply(variables, features)
    wanted = nets.nhwc(figures["spatial_gamma_rule"])
    link = "forward: spatial attention"
    equivalence.check("DAG", link, got, wanted, within, "absolute")


@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-5), ("float64", 1e-6)])
def test_features_joined_as_in_the_code_equal_the_published_ones(golden, dtype, within):
    figures, state = published(golden, "")
    rows = attention.ATTEND_NAMES
    own = ("channel_att.", "concat_predict.")
    state = {name: x for name, x in state.items() if name.startswith(own)}
    with jax.enable_x64(dtype == "float64"):
        early, features = (
            jnp.asarray(nets.nhwc(figures[name]), dtype)
            for name in ("features", "init_features")
        )
        module = attention.Discriminate(
            17, spatial=False, early=True, everybody="none", dtype=jnp.dtype(dtype)
        )
        key = jax.random.key(0)
        shapes = jax.eval_shape(module.init, key, features, early)
        given = weights.convert(state, rows, shapes)
        got = module.apply(given, features, early).features
    wanted = nets.nhwc(figures["pose_features"])
    link = "forward: features after both attentions are joined"
    equivalence.check("DAG", link, got, wanted, within, "absolute")


@pytest.mark.parametrize("kernel", [1, 3])
def test_doubled_maps_of_everybody_are_read_from_doubled_features(kernel):
    features = np.random.default_rng(0).standard_normal((2, 4, 6, 8)).astype(np.float32)
    module = attention.Discriminate(5, kernel=kernel, double=True)
    params = started(module, features)["params"]
    params = jax.tree.map(
        lambda x: x + jnp.linspace(0, 1, x.size).reshape(x.shape), params
    )
    maps = module.apply({"params": params}, features).everybody
    assert maps.shape == (2, 8, 12, 5)
    large = np.asarray(jax.image.resize(features, (2, 8, 12, 8), "bilinear"))
    read = jax.tree.map(np.asarray, params["everybody_head"]["conv"])
    pad = kernel // 2
    padded = np.pad(large, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (1, 2))
    wanted = np.einsum("bxycuv,uvcj->bxyj", windows, read["kernel"]) + read["bias"]
    np.testing.assert_allclose(maps, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("early", [None, np.zeros((2, 8, 12, 8), np.float32)])
def test_early_features_must_be_there_and_as_large(early):
    module = attention.Discriminate(5, early=True)
    with pytest.raises(
        ValueError, match="attend.early: expected a backbone that gives"
    ):
        module.init(jax.random.key(0), np.zeros((2, 4, 6, 8), np.float32), early)


def started(module, features):
    init = nets.quick_jit(module.init)
    return init(jax.random.key(0), features)


def test_channels_are_weighed_by_the_centre_alone():
    features = np.random.default_rng(0).standard_normal((2, 4, 6, 3)).astype(np.float32)
    module = attention.ChannelAttention()
    params = jax.tree.map(np.asarray, started(module, features)["params"]["weigh"])
    got = module.apply({"params": {"weigh": params}}, features)
    weight = features[:, 2, 3] @ params["kernel"] + params["bias"]
    np.testing.assert_allclose(got, features * weight[:, None, None], rtol=1e-5)


def test_spatial_attention_by_hand():
    features = np.random.default_rng(0).standard_normal((1, 2, 2, 4)).astype(np.float32)
    module = attention.SpatialAttention(narrow=1)
    params = started(module, features)["params"]
    params = jax.tree.map(lambda x: 100 * np.asarray(x), params)
    params["gamma"] = np.ones(1, np.float32)
    flat = features.reshape(4, 4)
    q, k, v = (
        flat @ params[name]["kernel"][0, 0] + params[name]["bias"]
        for name in ("query", "key", "value")
    )
    share = np.exp(q @ k.T)
    share /= share.sum(axis=1, keepdims=True)
    wanted = flat + share @ v
    got = module.apply({"params": params}, features)
    np.testing.assert_allclose(got.reshape(4, 4), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("halve", [False, True])
def test_spatial_attention_changes_nothing_at_first(halve):
    features = np.random.default_rng(0).standard_normal((2, 4, 6, 8)).astype(np.float32)
    module = attention.SpatialAttention(halve=halve)
    variables = started(module, features)
    np.testing.assert_array_equal(module.apply(variables, features), features)


def discriminated(features, **fields):
    module = attention.Discriminate(joints=5, **fields)
    start = started(module, features).get("params", {})
    params = jax.tree.map(lambda x: x + 0.1, start)
    found = module.apply({"params": params}, features)
    return jax.tree.map(np.asarray, params), found


@pytest.mark.parametrize("channel", [False, True])
@pytest.mark.parametrize("spatial", [False, True])
@pytest.mark.parametrize("everybody", ["before", "after", "none"])
def test_both_attentions_are_joined_and_everybody_is_read_where_it_is_said(
    channel, spatial, everybody
):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 4, 6, 8)).astype(np.float32)
    fields = {"channel": channel, "spatial": spatial, "everybody": everybody}
    params, found = discriminated(features, **fields)
    weighed, seen = features, features
    if channel:
        own = {"params": params["channel"]}
        weighed = attention.ChannelAttention().apply(own, features)
    if spatial:
        own = {"params": params["spatial"]}
        seen = attention.SpatialAttention().apply(own, features)
    wanted = features
    if channel or spatial:
        kernel, bias = params["join"]["kernel"][0, 0], params["join"]["bias"]
        wanted = np.concatenate((seen, weighed), axis=-1) @ kernel + bias
    np.testing.assert_allclose(found.features, wanted, rtol=1e-4, atol=1e-4)
    if everybody == "none":
        assert found.everybody is None
        return
    read = params["everybody_head"]["conv"]
    source = weighed if everybody == "after" else features
    maps = np.asarray(source) @ read["kernel"][0, 0] + read["bias"]
    np.testing.assert_allclose(found.everybody, maps, rtol=1e-4, atol=1e-4)


def test_everybody_must_be_read_somewhere():
    with pytest.raises(ValueError, match="everybody: .* 'later'"):
        discriminated(np.zeros((1, 4, 4, 8), np.float32), everybody="later")


@pytest.mark.parametrize("channel", [False, True])
@pytest.mark.parametrize("spatial", [False, True])
def test_attention_that_is_added_to_a_trained_network_leaves_it_at_first(
    channel, spatial
):
    features = np.random.default_rng(0).standard_normal((2, 4, 6, 8)).astype(np.float32)
    module = attention.Discriminate(joints=5, channel=channel, spatial=spatial)
    found = module.apply(started(module, features), features)
    np.testing.assert_allclose(found.features, features, rtol=1e-6)
