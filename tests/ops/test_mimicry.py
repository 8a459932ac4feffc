"""Distances of features: plain formulas, twins, masks, bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from occjax.ops import mimicry

ALL = [mimicry.l2, mimicry.cosine, mimicry.kl]


def features(seed, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(3, 5, 4, 7)).astype(dtype)


def test_distances_are_their_formulas():
    x, y = features(0).astype(float), features(1).astype(float)
    l2, cosine, kl = np.zeros((3, 3))
    for b in range(3):
        a, c = x[b].reshape(20, 7), y[b].reshape(20, 7)
        l2[b] = np.mean([np.sum((p - q) ** 2) for p, q in zip(a, c, strict=True)])
        cosine[b] = np.mean(
            [
                1 - p @ q / np.linalg.norm(p) / np.linalg.norm(q)
                for p, q in zip(a, c, strict=True)
            ]
        )
        kl[b] = np.mean(
            [
                stats.entropy(special.softmax(q), special.softmax(p)) / len(p)
                for p, q in zip(a.T, c.T, strict=True)
            ]
        )
    for distance, wanted in zip(ALL, (l2, cosine, kl), strict=True):
        np.testing.assert_allclose(distance(features(0), features(1)), wanted, 1e-5)


@pytest.mark.parametrize("distance", ALL)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_twins_are_no_way_apart(distance, dtype):
    x = jnp.asarray(features(0), dtype)
    value = distance(x, x)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 0, atol=1e-6)


@pytest.mark.parametrize("distance", ALL)
def test_where_nothing_is_left_nothing_is_learnt(distance):
    x, y = (jnp.asarray(features(seed)) for seed in (0, 1))

    def masked(x, y, kept):
        return jnp.sum(distance(kept * x, kept * y))

    value, grads = jax.value_and_grad(masked, (0, 1))(x, y, 0.0)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    for grad in grads:
        assert not np.any(grad)
    half = jnp.broadcast_to((jnp.arange(5) < 2).reshape(1, 5, 1, 1), x.shape)
    grad = jax.grad(masked)(x, y, half.astype(x.dtype))
    assert np.all(np.isfinite(grad))
    assert np.any(grad[:, :2])
    assert not np.any(grad[:, 2:])


def test_channels_are_the_points():
    x = features(0)
    points = mimicry.channels(jnp.asarray(x))
    assert points.shape == (3, 7, 20)
    np.testing.assert_array_equal(points[1, 4], x[1, ..., 4].ravel())
