import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.errors import UserError
from occjax.runtime import metrics
from occjax.runtime.metrics import Mean


def host(**values):
    return {name: Mean(np.float32(v), np.float32(1)) for name, v in values.items()}


def test_the_mean_weighs_its_values_and_ignores_those_of_weight_zero():
    values = jnp.array([[1.0, 5.0], [3.0, 1e6]])
    weights = jnp.array([[2.0, 1.0], [1.0, 0.0]])
    assert metrics.weighted_mean(values, weights) == (2 * 1 + 5 + 3) / 4


def test_the_mean_of_nothing_is_zero_with_a_zero_gradient():
    grad = jax.grad(lambda v: metrics.weighted_mean(v, jnp.zeros(3)))(jnp.ones(3))
    assert metrics.weighted_mean(jnp.ones(3), jnp.zeros(3)) == 0
    np.testing.assert_array_equal(grad, np.zeros(3))


def test_merging_parts_equals_the_mean_of_the_whole():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=12), rng.integers(0, 3, 12).astype(float)
    sums = None
    for part in np.split(np.arange(12), [2, 3, 9]):
        mean = metrics.mean_of(
            jnp.asarray(values[part], jnp.float32),
            jnp.asarray(weights[part], jnp.float32),
        )
        sums = metrics.merge(sums, {"loss": mean})
    expected = np.sum(values * weights) / np.sum(weights)
    np.testing.assert_allclose(sums["loss"].value, expected, rtol=1e-6)


def test_shapes_that_differ_are_refused_not_broadcast():
    with pytest.raises(ValueError, match=r"\(4, 1\) and \(4,\)"):
        metrics.mean_of(jnp.ones((4, 1)), jnp.ones(4))


def test_finite_figures_pass():
    metrics.check_finite(3, host(loss=1.0, heatmap=0.0), lambda: "nowhere")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_culprit_is_named_rather_than_what_it_infects(bad):
    figures = host(loss=bad, gradient_norm=bad, heatmap=1.0, offset=bad)
    with pytest.raises(UserError) as caught:
        metrics.check_finite(7, figures, lambda: "run/checkpoints/5")

    line = str(caught.value)
    assert "step 7" in line
    assert "offset" in line
    assert "run/checkpoints/5" in line
    assert "heatmap" not in line
    assert "gradient_norm" not in line
    assert "\n" not in line


def test_a_gradient_that_overflows_alone_is_named():
    with pytest.raises(UserError, match="gradient_norm"):
        metrics.check_finite(2, host(loss=1.0, gradient_norm=np.inf), lambda: "x")
