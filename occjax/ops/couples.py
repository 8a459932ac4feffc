"""Who is entangled with whom: pairs of people by the overlap of their boxes."""

import jax.numpy as jnp

from occjax.types import Array


def partners(boxes: Array, there: Array, least: float) -> tuple[Array, Array]:
    """For each person the one whose box overlaps most (CoupleGraph, one reading).

    The paper does not say how couples are found. A person may be the partner of
    several, so that in a group each is seen with the nearest.

    Args:
        boxes: [B, P, 4], x, y, width, height.
        there: [B, P] bool, rows that hold a person.
        least: box IoU that a partner must exceed.

    Returns:
        Index [B, P] of the partner, one's own where there is none, and [B, P] bool.
    """
    overlap = box_iou(boxes)
    both = there[:, :, None] & there[:, None]
    alone = jnp.eye(boxes.shape[1], dtype=bool)[None]
    overlap = jnp.where(both & ~alone, overlap, -1.0)
    found = jnp.max(overlap, axis=2) > least
    own = jnp.arange(boxes.shape[1]).reshape(1, -1)
    return jnp.where(found, jnp.argmax(overlap, axis=2), own), found


def box_iou(boxes: Array) -> Array:
    """Intersection over union of boxes [B, P, 4]: [B, P, P], 0 for empty ones."""
    low, high = boxes[..., :2], boxes[..., :2] + boxes[..., 2:]
    top = jnp.minimum(high[:, :, None], high[:, None])
    inner = jnp.maximum(top - jnp.maximum(low[:, :, None], low[:, None]), 0)
    shared = inner[..., 0] * inner[..., 1]
    area = boxes[..., 2] * boxes[..., 3]
    union = area[:, :, None] + area[:, None] - shared
    return jnp.where(union > 0, shared / jnp.where(union > 0, union, 1), 0)


def union(boxes: Array, partner: Array) -> Array:
    """Least box [B, P, 4] around each person and the partner [B, P]."""
    other = jnp.take_along_axis(boxes, partner[..., None], axis=1)
    low = jnp.minimum(boxes[..., :2], other[..., :2])
    high = jnp.maximum(boxes[..., :2] + boxes[..., 2:], other[..., :2] + other[..., 2:])
    return jnp.concatenate((low, high - low), axis=-1)
