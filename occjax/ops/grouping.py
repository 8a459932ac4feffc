"""From maps to candidate positions, and from many candidate poses to persons."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from occjax.types import Array

_EPSILON = float(np.finfo(np.float64).eps)  # what the published code adds to the area


def peaks(maps: Array, count: int) -> tuple[Array, Array]:
    """The highest local maxima of each map.

    A pixel is a maximum when no pixel of the window around it is higher; all pixels of
    a plateau count. The window's side is 7, 5 or 3 for maps whose mean side is above
    300, above 200, or smaller.

    Args:
        maps: [B, H, W, K].
        count: how many maxima N to return, at most H * W.

    Returns:
        Pixels [B, K, N, 2] int32 (x, y), best first, and their values [B, K, N], -inf
        where a map has fewer maxima.
    """
    _, height, width, _ = maps.shape
    mean_side = (height + width) / 2
    side = 7 if mean_side > 300 else 5 if mean_side > 200 else 3
    low = jnp.asarray(-jnp.inf, maps.dtype)
    pooled = jax.lax.reduce_window(
        maps, low, jax.lax.max, (1, side, side, 1), (1, 1, 1, 1), "SAME"
    )
    return highest(jnp.where(maps == pooled, maps, low), count)


def highest(maps: Array, count: int) -> tuple[Array, Array]:
    """The `count` highest pixels of maps [B, H, W, K], best first.

    Returns:
        Pixels [B, K, N, 2] int32 (x, y) and their values [B, K, N].
    """
    batch, height, width, channels = maps.shape
    if count > height * width:
        raise ValueError(
            f"count: expected at most the {height * width} pixels of the map, "
            f"got {count}."
        )
    flat = jnp.moveaxis(maps, -1, 1).reshape(batch, channels, height * width)
    value, index = jax.lax.top_k(flat, count)
    return jnp.stack((index % width, index // width), axis=-1), value


def extent_area(poses: Array) -> Array:
    """Area of the upright box around the joints of each pose [..., J, 2]: [...]."""
    extent = jnp.max(poses, axis=-2) - jnp.min(poses, axis=-2)
    return extent[..., 0] * extent[..., 1]


def oks_matrix(poses: Array, sigmas: Sequence[float], area: Array) -> Array:
    """Object keypoint similarity of each pair of poses, all joints counted.

    mean_j exp(-d_j^2 / ((A_a + A_b) (2 sigma_j)^2)); PINet (eq. 11) takes for A the
    area of a pose's own extent, HRNet that of the enlarged box.

    Args:
        poses: [..., N, J, 2], in any one unit.
        sigmas: J joint deviations relative to sqrt(area).
        area: [..., N], in that unit squared.

    Returns:
        [..., N, N].
    """
    mean_area = (area[..., :, None] + area[..., None, :]) / 2 + _EPSILON
    x, y = jnp.moveaxis(poses, (-1, -2), (0, -2))  # [..., J, N] each
    apart = _squared_gaps(x) + _squared_gaps(y)  # [..., J, N, N]
    spread = jnp.asarray(1 / (8 * np.square(sigmas)), poses.dtype)
    spread = spread.reshape((1,) * (poses.ndim - 3) + (-1, 1, 1))
    exponent = -apart * spread * (1 / mean_area)[..., None, :, :]
    return jnp.mean(jnp.exp(exponent), axis=-3)


def _squared_gaps(x: Array) -> Array:
    """(x_a - x_b)^2 for [..., N]: [..., N, N]."""
    return jnp.square(x[..., :, None] - x[..., None, :])


class Groups(NamedTuple):
    """Candidates in descending order of score, and the group that each fell into."""

    order: Array  # [N] int32, candidate at each rank
    head: Array  # [N] int32, rank of the head of the group of the pose at each rank


def greedy_groups(oks: Array, score: Array, threshold: float) -> Groups:
    """Greedy suppression: each best remaining pose takes all that resemble it.

    A pose joins the first head, in order of score, with OKS strictly above the
    threshold. Poses of score -inf are padding: each stays alone. Heads are found by
    iterating "no earlier head resembles me" until nothing changes; rank i is settled
    after i rounds at the latest, in practice after a few.

    Args:
        oks: [N, N].
        score: [N].
        threshold: strict lower bound of the OKS within a group.
    """
    count = score.shape[0]
    order = jnp.argsort(-score, stable=True).astype(jnp.int32)
    real = score[order] > -jnp.inf
    alike = (oks[order][:, order] > threshold) & real[:, None] & real[None]
    rank = jnp.arange(count, dtype=jnp.int32)
    before = alike & (rank[:, None] < rank[None])  # [earlier, later]

    def settle(state):
        heads, _ = state
        again = ~jnp.any(before & heads[:, None], axis=0)
        return again, jnp.any(again != heads)

    heads, _ = jax.lax.while_loop(
        lambda state: state[1], settle, (jnp.ones(count, bool), jnp.asarray(True))
    )
    takes = (before & heads[:, None]) | (jnp.eye(count, dtype=bool) & heads[:, None])
    return Groups(order=order, head=jnp.argmax(takes, axis=0).astype(jnp.int32))


def fuse(
    groups: Groups, joint_score: Array, score: Array, *, members: bool
) -> tuple[Array, Array]:
    """One pose per group: its head, or joint by joint its most confident member.

    Pose fusion (PINet, section 3.4): from the head on, in order of pose score, a member
    gives its joint when its score is strictly higher. The fused score is the mean of
    the joint scores.

    Args:
        groups: from `greedy_groups`.
        joint_score: [N, J].
        score: [N], -inf for padding.
        members: fuse the members; False keeps the heads as they are.

    Returns:
        By rank of the head: index [N, J] int32 of the candidate that gives the joint,
        and score [N], -inf at ranks that head no group.
    """
    ordered = joint_score[groups.order]
    rank = jnp.arange(score.shape[0], dtype=jnp.int32)
    is_head = (groups.head == rank) & (score[groups.order] > -jnp.inf)
    if not members:
        giver = jnp.broadcast_to(groups.order[:, None], joint_score.shape)
        return giver, jnp.where(is_head, score[groups.order], -jnp.inf)
    head, last = groups.head, score.shape[0] - 1
    top = jnp.full_like(ordered, -jnp.inf).at[head].max(ordered)  # [N, J]
    # the first of equal scores: the head itself, if it is among them
    first = jnp.where(ordered == top[head], rank[:, None], last)
    best = jnp.full(ordered.shape, last, rank.dtype).at[head].min(first)
    fused = jnp.mean(jnp.take_along_axis(ordered, best, axis=0), axis=-1)
    return groups.order[best], jnp.where(is_head, fused, -jnp.inf)


def comparable(scores: Sequence[Array], decrease: float) -> Array:
    """Brings the scores of further test scales to the level of the first.

    A further scale is divided by its own best score and multiplied by the first scale's
    best and by `decrease`, which PINet's published configs lack (DEKR's are 0.9 for
    COCO, 0.8 for CrowdPose). Where a scale found nothing there is no level to go by,
    and only `decrease` applies.

    Args:
        scores: [B, N] of each scale, -inf for padding.
        decrease: factor for the further scales.

    Returns:
        [B, all N].
    """

    def level(score: Array) -> Array:
        best = jnp.max(score, axis=1, keepdims=True)
        return jnp.where(jnp.isfinite(best), best, 1)

    first = scores[0]
    found = jnp.isfinite(jnp.max(first, axis=1, keepdims=True))
    rest = [
        score * jnp.where(found, level(first) / level(score), 1) * decrease
        for score in scores[1:]
    ]
    return jnp.concatenate((first, *rest), axis=1)


def ranked(rank: Array, count: int, *, batch_cut: bool) -> tuple[Array, Array]:
    """The `count` pixels of highest positive rank of maps [B, H, W, K].

    Args:
        rank: not negative; 0 for pixels that shall not be chosen.
        count: pixels N per map.
        batch_cut: choose as many in each image as there are in the one that has fewest,
            and `count`, those of rank 0 included, if that one has none. The published
            PINet does so, per map and device batch.

    Returns:
        Pixels [B, K, N, 2] int32 (x, y), and [B, K, N] bool, true where chosen.
    """
    pixels, value = highest(rank, count)
    chosen = value > 0
    if batch_cut:
        fewest = jnp.min(jnp.sum(chosen, axis=-1), axis=0)  # [K]
        fewest = jnp.where(fewest == 0, count, fewest)[None, :, None]
        chosen = jnp.broadcast_to(jnp.arange(count)[None, None] < fewest, chosen.shape)
    return pixels, chosen
