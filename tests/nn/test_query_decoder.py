"""The decoder of joints: what it samples, and how points move from layer to layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.nn import query_decoder
from occjax.nn.query_decoder import DeformableAttention, QueryDecoder
from occjax.ops import sampling

SIZES, CHANNELS, JOINTS = ((3, 2), (6, 4), (12, 8)), 8, 5


def levels(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    shapes = ((2, *size, CHANNELS) for size in SIZES)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def points(seed=1):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.uniform(-0.9, 0.9, (2, JOINTS, 2)), np.float32)


def randomized(variables, seed=2):
    """Parameters of the same shapes, none of them special."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), x.dtype), variables
    )


@pytest.fixture(scope="module")
def decoder():
    model = QueryDecoder(layers=3, heads=2, points=2)
    return model, model.init(jax.random.key(0), levels(), points())


def test_deformable_attention_is_the_weighted_sum_of_its_samples():
    heads, count = 2, 3
    model = DeformableAttention(heads, count)
    rng = np.random.default_rng(3)
    query = jnp.asarray(rng.normal(size=(2, JOINTS, CHANNELS)), np.float32)
    maps, where = levels(), points()
    state = randomized(model.init(jax.random.key(0), query, maps, where))
    found = model.apply(state, query, maps, where)

    def dense(name, x):
        layer = jax.tree.map(np.asarray, state["params"][name])
        return x @ layer["kernel"] + layer["bias"]

    offsets = dense("offsets", np.asarray(query)).reshape(2, JOINTS, 3, heads, count, 2)
    logits = dense("share", np.asarray(query)).reshape(2, JOINTS, 3, heads, count)
    wide = CHANNELS // heads
    seen = np.zeros((2, JOINTS, CHANNELS), np.float32)
    for b, j, m in np.ndindex(2, JOINTS, heads):
        share = np.exp(logits[b, j, :, m])
        share = share / share.sum()
        part = slice(m * wide, (m + 1) * wide)
        for i, k in np.ndindex(3, count):
            size = np.array(SIZES[i][::-1])
            at = (np.asarray(where[b, j]) + 1) / 2 * size + offsets[b, j, i, m, k]
            at = jnp.asarray(at, np.float32).reshape(1, 1, 2)
            value = sampling.bilinear(maps[i][b : b + 1, ..., part], at)[0, 0]
            seen[b, j, part] += share[i, k] * np.asarray(value)
    np.testing.assert_allclose(found, dense("output", seen), rtol=1e-4, atol=1e-4)


def test_a_point_is_at_the_same_place_of_the_image_on_every_level():
    """Maps that hold the input pixel of each of their own give it back."""
    where = points() * 0.5
    for (height, width), stride in zip(SIZES, (16, 8, 4), strict=True):
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        pixels = stride * np.stack((x, y), axis=-1).astype(np.float32)
        at = sampling.from_unit(where, (0, 0), (width, height))
        found = sampling.bilinear(np.stack((pixels, pixels)), at)
        expected = (np.asarray(where) + 1) / 2 * np.array([32, 48])
        at = np.asarray(at)
        inside = np.all((at >= 0) & (at <= (width - 1, height - 1)), axis=-1)
        assert inside.any()
        np.testing.assert_allclose(found[inside], expected[inside], rtol=1e-5)


def test_heads_start_by_looking_in_directions_of_their_own(decoder):
    _, state = decoder
    offsets = state["params"]["layer0"]["look"]["offsets"]["bias"]
    ring = np.asarray(offsets).reshape(3, 2, 2, 2)  # levels, heads, points, x and y
    np.testing.assert_allclose(ring[0], ring[2])
    np.testing.assert_allclose(ring[0, 0], [[1, 0], [2, 0]], atol=1e-6)
    np.testing.assert_allclose(ring[0, 1], [[-1, 0], [-2, 0]], atol=1e-6)


def test_each_layer_starts_where_the_one_before_ended(decoder):
    model, state = decoder
    found = model.apply(state, levels(), points())
    assert len(found) == 3
    still = jax.tree.map(jnp.zeros_like, state["params"]["move1"])
    params = {**state["params"], "move1": still}
    second = model.apply({"params": params}, levels(), points())[1]
    np.testing.assert_allclose(second.mean, found[0].mean, atol=1e-6)
    assert np.all((found[2].spread > 0) & (found[2].spread < 1))


def test_a_layer_does_not_teach_the_points_that_it_starts_from(decoder):
    model, state = decoder

    def last(params, start):
        found = model.apply({"params": params}, levels(), start)[-1]
        return jnp.sum(jnp.square(found.mean))

    grads, by_start = jax.grad(last, argnums=(0, 1))(state["params"], points())
    assert not np.any(by_start)
    for name, taught in (("move0", False), ("move2", True), ("layer0", True)):
        assert any(np.any(x) for x in jax.tree.leaves(grads[name])) == taught


def test_joints_hear_of_each_other_but_not_of_other_crops(decoder):
    model, state = decoder

    def first(start):
        mean = model.apply(state, levels(), start)[0].mean
        return mean[0, 0]

    # the points are constants of the decoder, so they are moved instead
    change = np.zeros((2, JOINTS, 2), np.float32)
    change[0, 3] = 0.5
    assert np.any(np.abs(first(points() + change) - first(points())) > 1e-6)
    change = np.zeros_like(change)
    change[1] = 0.5
    np.testing.assert_allclose(first(points() + change), first(points()), atol=1e-6)


def test_points_far_off_the_map_are_no_trouble(decoder):
    model, state = decoder
    found = model.apply(state, levels(), 1e6 * points())
    for leaf in jax.tree.leaves(found):
        assert np.all(np.isfinite(leaf))


def test_poses_are_float32_in_bfloat16(decoder):
    model, state = decoder
    half = model.clone(dtype=jnp.bfloat16)
    found = half.apply(state, levels(dtype=jnp.bfloat16), points())
    expected = model.apply(state, levels(), points())
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, atol=0.03)


def test_the_encoding_tells_points_apart():
    line = jnp.linspace(-1, 1, 101, dtype=jnp.float32)
    grid = jnp.stack((line, jnp.zeros_like(line)), axis=-1)
    codes = np.asarray(query_decoder.waves(grid, 16))
    assert codes.shape == (101, 16)
    away = np.abs(codes[:, None] - codes).max(axis=-1) + np.eye(101)
    assert away.min() > 0.05
    np.testing.assert_array_equal(codes[:, 8:], codes[:1, 8:].repeat(101, 0))  # of y


@pytest.mark.parametrize(("channels", "heads"), [(6, 2), (8, 3)])
def test_channels_that_cannot_be_shared_out_are_refused(channels, heads):
    model = QueryDecoder(layers=1, heads=heads, points=2)
    maps = [jnp.zeros((1, 4, 4, channels))]
    with pytest.raises(ValueError, match=f"features: .* got {channels}"):
        jax.eval_shape(model.init, jax.random.key(0), maps, jnp.zeros((1, 3, 2)))
