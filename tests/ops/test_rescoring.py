"""Scores of poses."""

import jax.numpy as jnp
import numpy as np
import pytest

from occjax.ops import rescoring


def test_mean_counts_what_is_strictly_above_the_bound():
    score = jnp.asarray([[0.5, 0.25, 0.125, 1.0], [0.25, 0.1, -1.0, 0.0]])
    got = rescoring.confident_mean(score, 0.25)
    np.testing.assert_allclose(got, (0.75, 0))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_without_a_bound_it_is_the_plain_mean_in_single_precision(dtype):
    score = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 17)), dtype)
    got = rescoring.confident_mean(score, -jnp.inf)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(
        got, np.mean(np.asarray(score, np.float64), axis=-1), rtol=1e-5, atol=1e-6
    )
