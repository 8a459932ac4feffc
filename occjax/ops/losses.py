"""Losses as unreduced (values, weights); a step divides sum(v w) by sum(w).

Both come in float32 or wider, whatever the dtype of the prediction.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from occjax.types import Array

SMOOTH_BETA = 1 / 9


def weighted_mse(pred: Array, target: Array, weight: Array) -> tuple[Array, Array]:
    """Weighted squared error of whole maps, averaged over their pixels.

    The paper (eq. 7) writes a sum; its code takes the mean over images, channels and
    all pixels, those of weight 0 included. That is the mean of these values.

    Args:
        pred: [B, H, W, C].
        target: [B, H, W, C].
        weight: [B, H, W, C].

    Returns:
        Values and weights [B, C]; every weight is 1.
    """
    _same_shape("weighted_mse", pred, target, weight)
    wide = np.promote_types(pred.dtype, np.float32)
    error = jnp.square(pred.astype(wide) - target.astype(wide))
    values = jnp.mean(weight.astype(wide) * error, axis=(1, 2))
    return values, jnp.ones_like(values)


def weighted_smooth_l1(
    pred: Array, target: Array, weight: Array, beta: float = SMOOTH_BETA
) -> tuple[Array, Array]:
    """Weighted smooth L1, to be divided by the number of entries that carry weight.

    d^2 / (2 beta) below beta, d - beta / 2 above. The paper divides by the number of
    positions; its code by that of scalar entries, x and y apart.

    Args:
        pred: any shape.
        target: the shape of pred.
        weight: the shape of pred.
        beta: where the parabola ends.

    Returns:
        Values, multiplied by `weight`, and weights, 1 where `weight` is positive.
    """
    _same_shape("weighted_smooth_l1", pred, target, weight)
    wide = np.promote_types(pred.dtype, np.float32)
    error = jnp.abs(pred.astype(wide) - target.astype(wide))
    smooth = jnp.where(error < beta, jnp.square(error) / (2 * beta), error - beta / 2)
    return smooth * weight.astype(wide), (weight > 0).astype(wide)


def location(pred: Array, target: Array, weight: Array) -> tuple[Array, Array]:
    """Cross-entropy of where a joint is, each map being read as a distribution.

    Unlike the squared error it does not content itself with empty maps.

    Args:
        pred: [B, H, W, C], logits of the pixels.
        target: [B, H, W, C], 0 or more; brought to a sum of 1.
        weight: [B, C]; maps without any target get 0.

    Returns:
        Values and weights [B, C].
    """
    wide = np.promote_types(pred.dtype, np.float32)
    shape = (pred.shape[0], -1, pred.shape[-1])
    likely = jax.nn.log_softmax(pred.astype(wide).reshape(shape), axis=1)
    target = target.astype(wide).reshape(shape)
    total = jnp.sum(target, axis=1)
    values = -jnp.sum(target * likely, axis=1) / jnp.where(total > 0, total, 1)
    return values, jnp.where(total > 0, weight.astype(wide), 0)


def weighted_l1(pred: Array, target: Array, weight: Array) -> tuple[Array, Array]:
    """Absolute error, to be averaged by weight (OPEC-Net's loss of a pose).

    OPEC-Net's weight is 1 for each coordinate of a labelled joint, seen or hidden.

    Args:
        pred: any shape.
        target: the shape of pred; where the weight is 0 anything may stand.
        weight: the shape of pred.

    Returns:
        Values, 0 where the weight is 0, and weights.
    """
    _same_shape("weighted_l1", pred, target, weight)
    wide = np.promote_types(pred.dtype, np.float32)
    # the subtraction is kept off what has no weight: 0 times NaN is NaN
    pred, weight = pred.astype(wide), weight.astype(wide)
    target = jnp.where(weight != 0, target.astype(wide), pred)
    return jnp.abs(pred - target), weight


def binary(logits: Array, truth: Array) -> tuple[Array, Array]:
    """Cross-entropy of yes and no, summed over the joints (OAKS, equation 8).

    Args:
        logits: [B, J].
        truth: [B, J] bool.

    Returns:
        Values and weights [B]; every weight is 1.
    """
    logits = logits.astype(np.promote_types(logits.dtype, np.float32))
    values = jax.nn.softplus(jnp.where(truth, -logits, logits))
    values = jnp.sum(values, axis=-1)
    return values, jnp.ones_like(values)


def hardest(values: Array, weights: Array, count: int) -> tuple[Array, Array]:
    """Online hard keypoint mining: of each person only the joints with most loss.

    As in CPN (Chen et al., CVPR 2018) and HRNet's code.

    Args:
        values: [B, J].
        weights: [B, J].
        count: how many joints of each person keep their weight.

    Returns:
        Values and weights [B, count].

    Raises:
        ValueError: there are no `count` joints.
    """
    if not 0 < count <= values.shape[-1]:
        raise ValueError(f"hardest: expected 1 to {values.shape[-1]}, got {count}.")
    _, places = jax.lax.top_k(values * weights, count)
    kept = functools.partial(jnp.take_along_axis, indices=places, axis=-1)
    return kept(values), kept(weights)


def _same_shape(name: str, pred: Array, target: Array, weight: Array) -> None:
    if not pred.shape == target.shape == weight.shape:
        raise ValueError(
            f"{name} needs pred, target and weight of one shape; "
            f"got {pred.shape}, {target.shape} and {weight.shape}."
        )
