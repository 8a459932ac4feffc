"""Frames in which a box runs from -1 to 1, as affine maps [B, 2, 3] or corners."""

import jax
import jax.numpy as jnp

from occjax.ops import sampling
from occjax.types import Array


def of_box(boxes: Array, expanded: float = 0.0) -> Array:
    """[B, 2, 3]: a box [B, 4], larger by a share of its sides, to -1 .. 1."""
    size = jnp.maximum(boxes[:, 2:] * (1 + 2 * expanded), 1e-3)
    low = boxes[:, :2] - expanded * boxes[:, 2:]
    scale = jax.vmap(jnp.diag)(2 / size)
    return jnp.concatenate((scale, (-2 * low / size - 1)[..., None]), axis=-1)


def corners(boxes: Array, matrix: Array) -> tuple[Array, Array]:
    """Least and greatest corner [B, 2] of boxes that affine maps move but do not turn.

    Args:
        boxes: [B, 4].
        matrix: [B, 2, 3] of one scale each, turned or mirrored as they may be.
    """
    middle = sampling.affine(boxes[:, None, :2] + boxes[:, None, 2:] / 2, matrix)[:, 0]
    scale = jnp.sqrt(jnp.abs(sampling.determinant(matrix)))[:, None]
    half = jnp.maximum(scale * boxes[:, 2:] / 2, 0.5)
    return middle - half, middle + half


def then(first: Array, second: Array) -> Array:
    """The affine map `second` of what `first` gives, all [B, 2, 3]."""
    linear = second[:, :, :2] @ first[:, :, :2]
    shift = second[:, :, :2] @ first[:, :, 2:] + second[:, :, 2:]
    return jnp.concatenate((linear, shift), axis=-1)
