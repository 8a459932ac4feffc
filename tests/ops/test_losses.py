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


@pytest.mark.parametrize(
    "loss", [losses.weighted_mse, losses.weighted_smooth_l1, losses.weighted_l1]
)
def test_half_precision_predictions_give_single_precision_losses(loss):
    pred = jnp.ones((1, 2, 2, 3), jnp.bfloat16)
    values, weights = loss(pred, jnp.zeros((1, 2, 2, 3)), jnp.ones((1, 2, 2, 3)))
    assert values.dtype == weights.dtype == jnp.float32


@pytest.mark.parametrize(
    "loss", [losses.weighted_mse, losses.weighted_smooth_l1, losses.weighted_l1]
)
def test_other_shapes_are_refused_by_name(loss):
    with pytest.raises(ValueError, match=loss.__name__):
        loss(jnp.ones((1, 2, 2, 3)), jnp.ones((1, 2, 2, 3)), jnp.ones((1, 2, 2, 1)))


def test_location_is_the_cross_entropy_of_the_pixels():
    rng = np.random.default_rng(3)
    pred = rng.normal(size=(2, 4, 5, 3))
    target = rng.uniform(size=(2, 4, 5, 3))
    target[1, :, :, 2] = 0
    values, weights = losses.location(pred, target, np.ones((2, 3)))
    for b, c in np.ndindex(2, 3):
        if target[b, :, :, c].any():
            share = target[b, :, :, c] / target[b, :, :, c].sum()
            p = np.exp(pred[b, :, :, c]) / np.exp(pred[b, :, :, c]).sum()
            np.testing.assert_allclose(values[b, c], -(share * np.log(p)).sum(), 1e-5)
    np.testing.assert_array_equal(weights, [[1, 1, 1], [1, 1, 0]])


def test_location_pulls_an_empty_map_toward_the_joint():
    target = np.zeros((1, 5, 5, 1), np.float32)
    target[0, 2, 3] = 1
    one = np.ones((1, 1), np.float32)
    grad = jax.grad(lambda x: losses.location(x, target, one)[0].sum())
    np.testing.assert_allclose(grad(np.zeros_like(target)), 1 / 25 - target, atol=1e-6)


def test_only_the_hardest_joints_keep_their_weight():
    values = jnp.asarray([[1.0, 5.0, 3.0], [4.0, 9.0, 2.0]])
    weights = jnp.asarray([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    kept, of_weight = losses.hardest(values, weights, 2)
    np.testing.assert_array_equal(kept, [[5, 3], [4, 2]])
    np.testing.assert_array_equal(of_weight, 1)
    with pytest.raises(ValueError, match="1 to 3, got 4"):
        losses.hardest(values, weights, 4)


def test_the_hardest_joints_of_hrnet_equal_the_published_loss_and_gradient(golden):
    z = np.load(golden / "pose_hrnet_w32" / "losses.npz")
    pred, target = (jnp.asarray(np.moveaxis(z[k], 1, -1)) for k in ("pred", "target"))
    weight = jnp.broadcast_to(z["target_weight"][:, None, None, :, 0], target.shape)
    weight = jnp.square(weight)  # the code weighs the maps; ours are 0 or 1

    def loss(pred):
        values, weights = losses.weighted_mse(pred, target, weight)
        values, weights = losses.hardest(values, weights, 8)
        return 0.5 * jnp.sum(values * weights) / jnp.sum(weights)

    value, grad = jax.value_and_grad(loss)(pred)
    title = "HRNet-W32, top-down"
    equivalence.check(title, "loss: hard joints", value, z["ohkm_loss"], 2e-5)
    grad = np.moveaxis(grad, -1, 1)
    equivalence.check(title, "loss: its gradient", grad, z["ohkm_grad"], 2e-5)


def test_l1_is_the_mean_over_labelled_coordinates():
    pred = jnp.asarray([[1.0, 2], [5, 5], [0, -3]])
    target = jnp.asarray([[1.5, 2], [0, 0], [1, 0]])
    weight = jnp.asarray([[1.0, 1], [0, 0], [1, 1]])
    mean = (0.5 + 0 + 1 + 3) / 4
    np.testing.assert_allclose(reduced(losses.weighted_l1(pred, target, weight)), mean)
    assert reduced(losses.weighted_l1(pred, pred, weight)) == 0


@pytest.mark.parametrize("stray", [7.0, np.inf, np.nan])
def test_l1_takes_no_notice_of_what_is_unlabelled(stray):
    pred, weight = jnp.asarray([1.0, 2, 3]), jnp.asarray([1.0, 0, 1])

    def loss(pred, at):
        target = jnp.asarray([0.0, at, 5])
        return reduced(losses.weighted_l1(pred, target, weight))

    for function in (loss, jax.grad(loss)):
        wanted = function(pred, 0.0)
        np.testing.assert_array_equal(function(pred, stray), wanted)
        assert np.all(np.isfinite(wanted))
