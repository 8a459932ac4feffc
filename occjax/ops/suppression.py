"""Suppression among the poses that the crops of one image gave.

All take P poses of each of B images, padded with scores of -inf, and return scores in
the order of the poses: -inf for what is suppressed. OKS comes from
`grouping.oks_matrix`, whose area is the choice of the method: `grouping.extent_area` of
the poses, or `crop_area` of what they were found in.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from occjax.ops import grouping, sampling
from occjax.types import Array, Poses


def crop_area(to_source: Array, size: tuple[int, int]) -> Array:
    """Area of crops in source pixels^2: HRNet's enlarged, aspect-fixed boxes.

    Args:
        to_source: [..., 2, 3], crop pixel -> source pixel.
        size: height and width of the crop.
    """
    return jnp.abs(sampling.determinant(to_source)) * (size[0] * size[1])


def oks_nms(oks: Array, score: Array, threshold: float) -> Array:
    """Greedy suppression: the best remaining pose drops all that resemble it.

    Args:
        oks: [B, P, P].
        score: [B, P], -inf for padding.
        threshold: a pose goes when its OKS with a better one is strictly above.

    Returns:
        [B, P], unchanged for those that stay. Of equal scores the first pose stays.
    """

    def one(oks: Array, score: Array) -> Array:
        order, head = grouping.greedy_groups(oks, score, threshold)
        stays = head == jnp.arange(head.shape[0], dtype=head.dtype)
        return jnp.where(jnp.zeros_like(stays).at[order].set(stays), score, -jnp.inf)

    return jax.vmap(one)(oks, score)


def nms_of_crops(
    poses: Poses, sigmas: Sequence[float], area: Array, threshold: float
) -> Array:
    """`oks_nms` of poses whose scale is the area [B, P] of their crops (HRNet)."""
    oks = grouping.oks_matrix(poses.joints, sigmas, area)
    return oks_nms(oks, poses.score, threshold)


def soft_oks_nms(oks: Array, score: Array, spread: float, keep: int = 20) -> Array:
    """Soft suppression: the best remaining pose lowers all that resemble it.

    By exp(-oks^2 / spread) each time, until `keep` poses were taken. HRNet's published
    code orders and cuts by these scores but writes the ones that came in: to have its
    figures, take `score` where the result is above -inf.

    Args:
        oks: [B, P, P].
        score: [B, P], not negative, -inf for padding.
        spread: HRNet passes the threshold of `oks_nms`.
        keep: how many poses to take in each image.

    Returns:
        [B, P], the score that each pose had when it was taken.
    """

    def one(oks: Array, score: Array) -> Array:
        number = jnp.arange(score.shape[0])

        def take(state: tuple[Array, Array], _: None):
            left, taken = state
            best = jnp.argmax(left)
            waits = left > -jnp.inf  # nobody, once all were taken
            taken = jnp.where(waits & (number == best), left, taken)
            lower = left * jnp.exp(-jnp.square(oks[best]) / spread)
            left = jnp.where(waits & (number != best), lower, -jnp.inf)
            return (left, taken), None

        start = (score, jnp.full_like(score, -jnp.inf))
        rounds = min(keep, score.shape[0])
        (_, taken), _ = jax.lax.scan(take, start, length=rounds)
        return taken

    return jax.vmap(one)(oks, score)


def distance_nms(joints: Array, score: Array, near: float, count: int) -> Array:
    """DEKR's suppression: of the poses that share most joints the best stays.

    Each pose in turn, unless it was dealt with, calls up all that have more than
    `count` joints within `near` times the diagonal of its extent. The best of them
    stays, unless that one was dealt with, and all are dealt with. So, as in the
    published code, the order of the poses matters.

    Args:
        joints: [B, P, J, 2], in any one unit.
        score: [B, P], -inf for padding. DEKR: the mean heatmap value at the joints.
        near: DEKR has 0.05.
        count: DEKR has 8 for COCO, 7 for CrowdPose.

    Returns:
        [B, P], unchanged for those that stay.
    """
    extent = jnp.max(joints, axis=-2) - jnp.min(joints, axis=-2)
    reach = near * jnp.sqrt(jnp.sum(jnp.square(extent), -1))[..., None, None]
    gap = joints[:, :, None] - joints[:, None]  # [B, P, P, J, 2]
    shared = jnp.sqrt(jnp.sum(jnp.square(gap), axis=-1)) < reach
    alike = jnp.sum(shared, axis=-1) > count
    alike |= jnp.eye(score.shape[1], dtype=bool)[None]  # a point resembles itself

    def one(alike: Array, score: Array) -> Array:
        number = jnp.arange(score.shape[0])
        real = score > -jnp.inf

        def call(state: tuple[Array, Array], caller: Array):
            stays, dealt = state
            called = alike[caller] & real
            best = jnp.argmax(jnp.where(called, score, -jnp.inf))
            valid = real[caller] & ~dealt[caller] & ~dealt[best]
            stays |= valid & (number == best)
            return (stays, dealt | (valid & called)), None

        start = (jnp.zeros_like(real), jnp.zeros_like(real))
        (stays, _), _ = jax.lax.scan(call, start, number)
        return jnp.where(stays, score, -jnp.inf)

    return jax.vmap(one)(alike, score)
