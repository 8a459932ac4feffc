"""Graph convolution: the formula, its symmetries, its start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.nn.graph_conv import GraphBlock, GraphConv

ROWS, JOINTS, CHANNELS = 6, 5, 8


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(0), (ROWS, JOINTS, CHANNELS))


@pytest.fixture
def adjacency():
    return jax.random.normal(jax.random.key(1), (JOINTS, JOINTS))


def test_layer_is_relu_of_normalised_neighbourhood_sums(x, adjacency):
    layer = GraphConv(3)
    variables = jax.jit(
        lambda: layer.init(jax.random.key(2), x, adjacency, train=True)
    )()
    got = layer.apply(variables, x, adjacency, train=False)
    params = variables["params"]
    wanted = np.asarray(adjacency) @ (np.asarray(x) @ np.asarray(params["kernel"]))
    wanted = (wanted + np.asarray(params["bias"])) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(got, np.maximum(wanted, 0), atol=1e-5)


def test_renaming_joints_renames_the_result(x, adjacency):
    order = np.asarray([3, 0, 4, 1, 2])
    layer = GraphConv(4)
    variables = layer.init(jax.random.key(2), x, adjacency, train=True)
    got = layer.apply(variables, x[:, order], adjacency[order][:, order], train=False)
    straight = layer.apply(variables, x, adjacency, train=False)
    np.testing.assert_allclose(got, straight[:, order], atol=1e-5)


def test_masked_rows_change_neither_statistics_nor_other_rows(x, adjacency):
    layer = GraphConv(4)
    variables = layer.init(jax.random.key(2), x, adjacency, train=True)
    mask = jnp.arange(ROWS) < 4

    @jax.jit
    def run(x):
        return layer.apply(
            variables,
            x,
            adjacency,
            train=True,
            mask=mask[:, None],
            mutable=["batch_stats"],
        )

    got, stats = run(x)
    other, other_stats = run(x.at[4:].add(100))
    np.testing.assert_array_equal(got[:4], other[:4])
    jax.tree.map(np.testing.assert_array_equal, stats, other_stats)
    assert np.any(got[4:] != other[4:])


def test_start_keeps_to_the_published_bounds(x, adjacency):
    params = GraphConv(480).init(
        jax.random.key(3), jnp.ones((1, 2, 480)), jnp.eye(2), train=True
    )["params"]
    for name, bound in (("kernel", 1.414 * np.sqrt(6 / 960)), ("bias", 480**-0.5)):
        largest = np.abs(params[name]).max()
        assert 0.97 * bound < largest <= bound


def test_block_adds_two_layers_to_its_input_without_a_relu_after(x, adjacency):
    block = GraphBlock()
    variables = block.init(jax.random.key(2), x, adjacency, train=True)
    got = block.apply(variables, x, adjacency, train=False)
    y = x
    for name in ("conv1", "conv2"):
        part = {kind: tree[name] for kind, tree in variables.items()}
        y = GraphConv(CHANNELS).apply(part, y, adjacency, train=False)
    np.testing.assert_allclose(got, x + y, atol=1e-5)
    assert np.any(np.asarray(got) < 0)
