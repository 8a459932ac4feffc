"""Losses against the published code's values and gradients."""

import functools

import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.ops import losses

check = functools.partial(equivalence.check, "PINet (every dataset)")
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(scope="module")
def published(golden):
    return np.load(golden / "pinet_functions" / "losses.npz")


def reduced(terms):
    values, weights = terms
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1)


@DTYPES
def test_heatmap_loss_and_gradient_equal_the_published_ones(published, dtype):
    pred, target, weight = (
        np.moveaxis(published[f"heatmap_{name}"], 1, -1).astype(dtype)
        for name in ("pred", "gt", "mask")
    )
    loss = jax.value_and_grad(
        lambda pred: reduced(losses.weighted_mse(pred, target, weight))
    )
    with jax.enable_x64(dtype == np.float64):
        value, grad = loss(pred)
    assert value.dtype == grad.dtype == dtype
    check("loss: heatmap", value, published["heatmap_loss"], 1e-6, "each")
    grad, wanted = np.moveaxis(grad, -1, 1), published["heatmap_grad"]
    check("loss: gradient of heatmap", grad, wanted, 1e-5, "each")


@DTYPES
@pytest.mark.parametrize("kind", ["offset", "refine"])
@pytest.mark.parametrize("positive", [True, False])
def test_offset_loss_and_gradient_equal_the_published_ones(
    published, kind, positive, dtype
):
    pred, target, weight = (
        published[f"{kind}_{name}"].astype(dtype) for name in ("pred", "gt", "weight")
    )
    name = kind if positive else f"{kind}_no_positive"
    weight = weight if positive else jnp.zeros_like(weight)
    loss = jax.value_and_grad(
        lambda pred: reduced(losses.weighted_smooth_l1(pred, target, weight))
    )
    with jax.enable_x64(dtype == np.float64):
        value, grad = loss(pred)
    assert value.dtype == grad.dtype == dtype
    wanted, wanted_grad = published[f"{name}_loss"], published[f"{name}_grad"]
    if positive:
        check(f"loss: {kind}", value, wanted, 1e-6, "each")
        check(f"loss: gradient of {kind}", grad, wanted_grad, 1e-5, "each")
    else:
        assert float(value) == wanted == 0
        np.testing.assert_array_equal(grad, wanted_grad)


def test_smooth_l1_has_the_figures_of_the_specification():
    pred = jnp.asarray([0.05, 1 / 9, 0.5, -3.0])
    values, weights = losses.weighted_smooth_l1(pred, pred * 0, jnp.full(4, 2.0))
    np.testing.assert_allclose(
        values / 2, (0.01125, 0.0555556, 0.4444444, 2.9444444), 1e-5
    )
    np.testing.assert_array_equal(weights, np.ones(4))


@pytest.mark.parametrize("loss", [losses.weighted_mse, losses.weighted_smooth_l1])
def test_half_precision_predictions_give_single_precision_losses(loss):
    pred = jnp.ones((1, 2, 2, 3), jnp.bfloat16)
    values, weights = loss(pred, jnp.zeros((1, 2, 2, 3)), jnp.ones((1, 2, 2, 3)))
    assert values.dtype == weights.dtype == jnp.float32


@pytest.mark.parametrize("loss", [losses.weighted_mse, losses.weighted_smooth_l1])
def test_other_shapes_are_refused_by_name(loss):
    with pytest.raises(ValueError, match=loss.__name__):
        loss(jnp.ones((1, 2, 2, 3)), jnp.ones((1, 2, 2, 3)), jnp.ones((1, 2, 2, 1)))
