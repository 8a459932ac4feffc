"""RLE's flow is a density, and its loss the published formula, finite everywhere."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.nn import residual_flow
from occjax.nn.residual_flow import LEAST_DEVIATION, ResidualFlow

FLOW = ResidualFlow(couplings=4, hidden=8)


@pytest.fixture(scope="module")
def bent():
    """Parameters of a flow that is far from doing nothing."""
    start = FLOW.init(jax.random.key(0), jnp.zeros((1, 2)))
    rng = np.random.default_rng(0)

    def random(path, leaf):
        large = 0.4 if "last" in jax.tree_util.keystr(path) else 0.6
        return jnp.asarray(large * rng.normal(size=leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(random, start)


def standard(points):
    """Log density of the standard normal distribution of the plane."""
    return -0.5 * jnp.sum(jnp.square(points), axis=-1) - math.log(2 * math.pi)


def test_the_density_is_one_in_all(bent):
    side, step = np.linspace(-40, 40, 1601, dtype=np.float32, retstep=True)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    density = np.exp(jax.jit(FLOW.apply)(bent, grid))
    np.testing.assert_allclose(
        np.sum(density, dtype=np.float64) * step**2, 1, rtol=1e-3
    )
    assert np.max(np.abs(density - np.exp(standard(grid)))) > 0.02


def test_the_volume_is_that_of_the_derivative(bent):
    points = jax.random.normal(jax.random.key(1), (20, 2)) * 3

    def image(point):
        return FLOW.apply(bent, point, method="to_normal")

    normal, log_det = jax.vmap(image)(points)
    jacobian = jax.vmap(jax.jacfwd(lambda x: image(x)[0]))(points)
    sign, expected = np.linalg.slogdet(np.asarray(jacobian, np.float64))
    np.testing.assert_array_equal(sign, 1)
    np.testing.assert_allclose(log_det, expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(expected) > 0.1  # it is not the same everywhere
    np.testing.assert_allclose(
        FLOW.apply(bent, points), standard(normal) + log_det, rtol=1e-5
    )


def test_it_starts_close_to_the_normal_distribution():
    flow, points = ResidualFlow(), jax.random.normal(jax.random.key(1), (50, 2))
    found = flow.apply(flow.init(jax.random.key(0), points), points)
    np.testing.assert_allclose(found, standard(points), atol=0.2)


def test_the_loss_is_the_published_formula():
    rng = np.random.default_rng(0)
    mean, truth = rng.normal(size=(2, 3, 5, 2)).astype(np.float32)
    sigma = rng.uniform(0.1, 0.9, (3, 5, 2)).astype(np.float32)
    found = residual_flow.loss(standard, mean, sigma, truth)

    log_phi = np.asarray(standard((mean - truth) / sigma))[..., None]
    amplitude = 1 / np.sqrt(2 * np.pi)
    flow = np.log(sigma) - log_phi
    laplace = np.log(sigma / amplitude) + np.abs(truth - mean) / (np.sqrt(2) * sigma)
    np.testing.assert_allclose(found, np.sum(flow + laplace, axis=-1), rtol=1e-5)


def test_the_loss_prefers_a_deviation_that_is_like_the_error():
    error, sigmas = 0.1, np.geomspace(0.01, 1, 200, dtype=np.float32)[:, None]
    sigmas = np.repeat(sigmas, 2, axis=1)
    zeros = np.zeros_like(sigmas)
    found = residual_flow.loss(standard, zeros + np.float32(error), sigmas, zeros)
    assert 0.5 * error < sigmas[np.argmin(found), 0] < 2 * error


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("logit", [-1e4, 0.0, 1e4])
def test_extreme_logits_give_a_finite_loss_and_gradient(bent, logit, dtype):
    def loss(logits, mean):
        spread = residual_flow.deviation(logits)
        density = lambda x: FLOW.apply(bent, x)  # noqa: E731
        values = residual_flow.loss(density, mean, spread, jnp.zeros_like(mean))
        assert values.dtype == jnp.float32
        return jnp.sum(values)

    logits, mean = jnp.full((3, 2), logit, dtype), jnp.full((3, 2), 5, dtype)
    value, grads = jax.value_and_grad(loss, argnums=(0, 1))(logits, mean)
    assert np.isfinite(value)
    for grad in grads:
        assert np.all(np.isfinite(grad.astype(jnp.float32)))


def test_deviations_stay_within_their_bounds():
    found = residual_flow.deviation(jnp.asarray([-1e6, 0.0, 1e6]))
    np.testing.assert_allclose(found, [LEAST_DEVIATION, 0.5005, 1], rtol=1e-6)
