"""DAG's graph network: equation 3, the published layers and blocks, its start."""

import json

import equivalence
import golden_nets as nets
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import published_opec as published
import pytest

from occjax.nn import multi_hop
from occjax.ops import graph, sampling
from occjax.runtime import weights
from occjax.skeletons import COCO, CROWDPOSE

IN_BOTH = pytest.mark.parametrize(
    ("dtype", "within"), [("float32", 2e-5), ("float64", 2e-7)]
)


def state_of(golden, part, entries="entries"):
    """The weights of a network of graph convolutions."""
    manifest = json.loads((golden / "graph_conv" / "manifest.json").read_text())
    return golden_weights.generate({"g": 1.0, "entries": manifest[part][entries]})


def published_hops(golden, name, count):
    """The published matrices without diagonals, symmetrised as the layers do."""
    hops = np.load(golden / "graph_conv" / "adjacency.npz")[name][:count]
    hops = (hops + np.swapaxes(hops, 1, 2)) / 2
    return hops * (1 - np.eye(hops.shape[-1]))


def test_equation_3_is_that_of_the_text(golden):
    figures = np.load(golden / "graph_conv" / "dag_eq3_own.npz")
    with jax.enable_x64(True):
        params = {
            "kernel": jnp.stack([figures["W0"].T, figures["W1"].T]),
            "bias": jnp.zeros(8),
        }
        for k, mix in enumerate(figures["w"], start=1):
            params[f"mix{k}"] = jnp.asarray(mix.T)
        conv = multi_hop.MultiHopConv(8, dtype=jnp.float64)
        x, hops = jnp.asarray(figures["M"].T[None]), jnp.asarray(figures["A_hat"])
        got = conv.apply({"params": params}, x, hops)[0].T
    np.testing.assert_allclose(got, figures["pre_activation"], atol=1e-12)
    lists = np.load(golden / "graph_conv" / "adjacency.npz")
    for k, wanted in enumerate(figures["A_hat"]):
        first, second = lists[f"coco17_lists_{k}"].T
        pairs = np.zeros((17, 17))
        pairs[first, second] = pairs[second, first] = 1
        np.fill_diagonal(pairs, 0)
        np.testing.assert_allclose(graph.by_degree(pairs), wanted, atol=1e-12)


@IN_BOTH
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_gated_layer_equals_mm_gcns(golden, count, dtype, within):
    state = state_of(golden, "mmgcn_layer", f"entries_g{count}_noAM")
    figures = np.load(golden / "graph_conv" / "mmgcn_layer.npz")
    hops = published_hops(golden, "h36m", count + 1)
    with jax.enable_x64(dtype == "float64"):
        conv = multi_hop.MultiHopConv(24, "gated", dtype=jnp.dtype(dtype))
        x = jnp.asarray(figures["x"], dtype)
        shapes = published.shapes(conv, x, jnp.asarray(hops, dtype), how={})
        given = weights.convert(state, multi_hop.CONV_NAMES, shapes)
        got = conv.apply(given, x, jnp.asarray(hops, dtype))
    link = f"forward: gated convolution over {count + 1} hops"
    wanted = figures[f"out_g{count}_noAM"]
    equivalence.check("DAG", link, got, wanted, within, "absolute")


@IN_BOTH
def test_network_equals_the_published_one_on_the_features_it_samples(
    golden, dtype, within
):
    figures = np.load(golden / "graph_conv" / "dag_gcn.npz")
    state = state_of(golden, "dag_gcn")
    sampled = ("level_conv", "FC")  # how the code finds where to sample
    state = {k: v for k, v in state.items() if not k.startswith(sampled)}
    with jax.enable_x64(dtype == "float64"):
        maps = jnp.asarray(nets.nhwc(figures["level_conv"]), dtype)
        size = jnp.asarray((maps.shape[2], maps.shape[1]), dtype).reshape(1, 1, 2)
        points = (jnp.asarray(figures["sample_xy"], dtype) + 1) / 2 * size - 0.5
        features = sampling.bilinear(maps, points)
        pose = jnp.asarray(figures["pose_in"], dtype)
        hops = jnp.asarray(published_hops(golden, "coco17", 2), dtype)
        gcn = multi_hop.FeatureGuidedGCN(mix="gated", dtype=jnp.dtype(dtype))
        given = weights.convert(
            state, multi_hop.GCN_NAMES, published.shapes(gcn, pose, features, hops)
        )
        offset, seen = gcn.apply(
            *(given, pose, features, hops),
            train=False,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
    inner = seen["intermediates"]
    for name, wanted in (
        ("block2", figures["gconv_layers"]),
        ("guided", figures["gconv_layer_last"]),
        ("non_local", figures["non_local"]),
    ):
        got = inner[name]["__call__"][0]
        nets.assert_close_to_largest(got, wanted, 5 * within)
    link = "forward: offsets of FGMH-GCN"
    equivalence.check("DAG", link, offset, figures["offset"], 5 * within, "absolute")


def variables_of(module, *args, **how):
    return nets.quick_jit(lambda key: module.init(key, *args, **how))(jax.random.key(0))


def test_layer_by_hand():
    bones, joints = ((0, 1), (1, 2)), 3
    hops = graph.hop_adjacency(bones, joints, 2)
    x = np.random.default_rng(0).standard_normal((1, joints, 2)).astype(np.float32)
    conv = multi_hop.MultiHopConv(4)
    params = jax.tree.map(np.asarray, variables_of(conv, x, hops)["params"])
    own, others = x[0] @ params["kernel"][0], x[0] @ params["kernel"][1]
    near = np.array([[0, 2**-0.5, 0], [2**-0.5, 0, 2**-0.5], [0, 2**-0.5, 0]])
    far = np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]])
    wanted = params["bias"] + sum(
        params[f"mix{k}"] * (own + matrix @ others)
        for k, matrix in ((1, near), (2, far))
    )
    np.testing.assert_allclose(params["mix1"], 0.5)
    np.testing.assert_allclose(conv.apply({"params": params}, x, hops)[0], wanted, 1e-5)


def test_gates_start_with_the_first_hop_alone():
    x = np.random.default_rng(0).standard_normal((2, 17, 3)).astype(np.float32)
    hops = graph.hop_adjacency(COCO.bones, 17, 3)
    gated = multi_hop.MultiHopConv(4, "gated")
    params = variables_of(gated, x, hops)["params"]
    single = {k: v for k, v in params.items() if k not in ("mix2", "mix3")}
    alone = gated.apply({"params": single}, x, hops[:1])
    np.testing.assert_allclose(gated.apply({"params": params}, x, hops), alone, 1e-5)


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE], ids=lambda s: s.name)
@pytest.mark.parametrize("norm", ["symmetric", "row_sym"])
def test_hop_matrices_part_all_pairs_and_do_not_amplify(skeleton, norm):
    joints = skeleton.num_joints
    matrices = graph.hop_adjacency(skeleton.bones, joints, 4, norm)
    reached = matrices > 0
    assert reached.sum(axis=0).max() == 1
    assert not reached[:, np.arange(joints), np.arange(joints)].any()
    np.testing.assert_allclose(matrices, np.swapaxes(matrices, 1, 2))
    if norm == "symmetric":
        assert np.abs(np.linalg.eigvalsh(matrices)).max() <= 1 + 1e-9


def test_a_norm_or_a_mix_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="norm: expected one of symmetric, row_sym"):
        graph.hop_adjacency(COCO.bones, 17, 2, "best")
    conv = multi_hop.MultiHopConv(4, "best")
    with pytest.raises(ValueError, match="mix: expected one of sum, gated"):
        conv.init(jax.random.key(0), np.zeros((1, 17, 2)), np.zeros((2, 17, 17)))


def test_non_local_block_changes_nothing_at_first():
    x = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    block = multi_hop.NonLocal()
    variables = variables_of(block, x, train=False)
    np.testing.assert_array_equal(block.apply(variables, x, train=False), x)


def test_a_test_does_not_depend_on_the_rest_of_the_batch():
    rng = np.random.default_rng(0)
    pose, features = rng.standard_normal((4, 17, 2)), rng.standard_normal((4, 17, 6))
    pose, features = pose.astype(np.float32), features.astype(np.float32)
    hops = graph.hop_adjacency(COCO.bones, 17, 2).astype(np.float32)
    gcn = multi_hop.FeatureGuidedGCN(hidden=8, blocks=1)
    variables = variables_of(gcn, pose, features, hops, train=False)
    apply = nets.quick_jit(lambda *a: gcn.apply(variables, *a, hops, train=False))
    whole, part = apply(pose, features), apply(pose[:1], features[:1])
    np.testing.assert_allclose(whole[:1], part, rtol=1e-4, atol=1e-6)
