"""Semantic graph convolution: formula by loops, published blocks, starts, masks."""

import equivalence
import golden_nets as nets
import jax
import jax.numpy as jnp
import numpy as np
import published_opec as published
import pytest
from flax import linen as nn

from occjax.nn import sem_graph
from occjax.nn.torch_names import prefixed
from occjax.ops import graph
from occjax.runtime import weights
from occjax.skeletons import CROWDPOSE, OCPOSE

BONES = ((0, 1), (1, 2), (1, 3))


def softmax(x):
    return np.exp(x) / np.sum(np.exp(x))


def test_layer_is_a_weighted_mean_of_the_node_and_its_neighbours():
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    conv = sem_graph.SemGraphConv(5, BONES)
    variables = published.random_variables(conv, x, how={})
    params = variables["params"]
    near = {0: (0, 1), 1: (0, 1, 2, 3), 2: (1, 2), 3: (1, 3)}
    shares, start = {}, 0
    for node, others in near.items():
        shares[node] = softmax(params["logits"][start : start + len(others)])
        start += len(others)
    wanted = np.tile(params["bias"], (2, 4, 1))
    for node, others in near.items():
        for share, other in zip(shares[node], others, strict=True):
            kernel = params["kernel"][int(other != node)]
            wanted[:, node] += share * (x[:, other] @ kernel)
    got = nets.quick_jit(conv.apply)(variables, x)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert params["logits"].shape == (start,)


def test_equal_logits_share_equally_among_node_and_neighbours():
    """With W0 = W1 = 1 and no bias, one hot node shows its column of A."""
    conv = sem_graph.SemGraphConv(1, OCPOSE.bones)
    init = nets.quick_jit(conv.init)
    params = init(jax.random.key(0), jnp.zeros((1, 12, 1)))["params"]
    np.testing.assert_array_equal(params["logits"], np.ones(36))
    ones = {**params, "kernel": jnp.ones((2, 1, 1)), "bias": jnp.zeros(1)}
    got = conv.apply({"params": ones}, jnp.eye(12)[..., None])[..., 0].T
    wanted = graph.by_row(graph.adjacency(OCPOSE.bones, 12) + np.eye(12))
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "features", "bound"),
    [(3, 128, 0.1369), (128, 64, 0.03797), (640, 320, 0.00764), (640, 2, 0.0967)],
)
def test_start_keeps_to_the_published_bounds(channels, features, bound):
    conv = sem_graph.SemGraphConv(features, BONES)
    init = nets.quick_jit(conv.init)
    params = init(jax.random.key(0), jnp.zeros((1, 4, channels)))["params"]
    largest = np.abs(params["kernel"]).max()
    assert 0.97 * bound < largest < 1.001 * bound
    assert 0.3 * features**-0.5 < np.abs(params["bias"]).max() <= features**-0.5


def test_a_gate_without_weights_gives_half_as_much_again():
    y = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32)
    gate = sem_graph.NodeGate()
    shapes = published.shapes(gate, y, how={})
    zero = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    got = nets.quick_jit(gate.apply)(zero, y)
    np.testing.assert_allclose(got, 1.5 * y, rtol=1e-6)
    assert nets.count(shapes) == 8 * 2 + 2 + 2 * 5 + 5


def test_nodes_that_no_bone_reaches_do_not_mix():
    x = np.random.default_rng(0).standard_normal((1, 14, 3)).astype(np.float32)
    conv = sem_graph.SemGraphConv(4, CROWDPOSE.bones)
    given = published.random_variables(conv, x, how={})
    slope = nets.quick_jit(
        jax.jacobian(lambda x: jnp.sum(conv.apply(given, x), axis=(0, 2)))
    )(x)
    reached = np.any(slope[:, 0] != 0, axis=-1)
    near = graph.adjacency(CROWDPOSE.bones, 14) + np.eye(14)
    np.testing.assert_array_equal(reached, near > 0)


class Couple(nn.Module):
    """The chain of the reference figures: 24 nodes, one stage with image features."""

    dtype: np.dtype = np.dtype(np.float32)

    @nn.compact
    def __call__(self, pose, sampled, *, train):
        bones = graph.couple(OCPOSE.bones, OCPOSE.num_joints)
        seen = {}
        layer = sem_graph.SemGraphLayer(128, bones, self.dtype, name="inp")
        seen["gcn_input"] = layer(pose, train=train)
        block = sem_graph.ResidualAttention(bones, self.dtype, name="res")
        seen["res"] = block(seen["gcn_input"], train=train)
        x = jnp.concatenate((sampled, seen["res"]), axis=-1)
        block = sem_graph.ResidualAttention(bones, self.dtype, name="res_img")
        seen["res_img"] = block(x, train=train)
        out = sem_graph.SemGraphConv(2, bones, self.dtype, name="out")
        return {**seen, "pose": out(seen["res_img"])}


COUPLE_NAMES = (
    *prefixed(sem_graph.LAYER_NAMES, "inp.", "inp"),
    *prefixed(sem_graph.BLOCK_NAMES, "res.", "res"),
    *prefixed(sem_graph.BLOCK_NAMES, "res_img.", "res_img"),
    *prefixed(sem_graph.CONV_NAMES, "out.", "out"),
)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 2e-7)])
def test_couples_equal_the_published_layers_on_24_nodes(golden, dtype, tolerance):
    figures = np.load(golden / "opec_net" / "couple_graph_derived.npz")
    with jax.enable_x64(dtype == "float64"):
        pose = figures["pose_in"].astype(dtype)
        sampled = np.swapaxes(figures["joint_feat"], 1, 2).astype(dtype)
        model = Couple(np.dtype(dtype))
        given = weights.convert(
            published.state_dict(golden, "couple_graph_derived"),
            COUPLE_NAMES,
            published.shapes(model, pose, sampled),
        )
        run = nets.quick_jit(lambda v: model.apply(v, pose, sampled, train=False))
        outputs = run(given)
    for key, ours in outputs.items():
        link = f"forward: {'poses' if key == 'pose' else 'layers on 24 nodes'}"
        equivalence.check("CoupleGraph", link, ours, figures[key], tolerance)


def test_masked_rows_change_neither_statistics_nor_other_rows():
    x = np.random.default_rng(0).standard_normal((4, 4, 8)).astype(np.float32)
    block = sem_graph.ResidualAttention(BONES)
    variables = published.random_variables(block, x)
    mask = jnp.asarray([[True], [True], [True], [False]])

    @nets.quick_jit
    def run(x):
        return block.apply(variables, x, train=True, mask=mask, mutable=["batch_stats"])

    got, stats = run(x)
    other, other_stats = run(np.concatenate((x[:3], x[3:] + 100)))
    np.testing.assert_array_equal(got[:3], other[:3])
    jax.tree.map(np.testing.assert_array_equal, stats, other_stats)
    assert np.any(got[3:] != other[3:])


def test_bfloat16_keeps_float32_parameters_and_gives_bfloat16():
    x = np.random.default_rng(0).standard_normal((4, 4, 8)).astype(np.float32)
    variables = published.random_variables(sem_graph.ResidualAttention(BONES), x)
    expected = nets.evaluate(sem_graph.ResidualAttention(BONES), variables, x)
    narrow = sem_graph.ResidualAttention(BONES, jnp.bfloat16)
    got = nets.evaluate(narrow, variables, x)
    assert got.dtype == jnp.bfloat16
    error = np.mean(np.abs(np.asarray(got, np.float32) - expected))
    assert error < 0.03 * np.mean(np.abs(expected))
