"""Part-based pose generation (PINet, section 3.2): poses at the peaks of part maps."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp

from occjax.ops import flip_test, grouping, sampling
from occjax.types import Array


class Maps(NamedTuple):
    """What is read at each pixel of a view."""

    heatmap: Array  # [B, h, w, J] keypoint scores
    parts: Array  # [B, h, w, K] part centre scores
    offset: Array  # [B, h, w, K, J, 2] pixel - joint, map pixels


class Candidates(NamedTuple):
    """Poses found in the view at one test scale, N = parts * peaks."""

    heatmap: Array  # [B, h, w, J] mean over the orientations
    joints: Array  # [B, N, J, 2] map pixels of this scale
    score: Array  # [B, N] value of the part map, -inf where there is no pose


def candidates(
    maps: Maps,
    refine: Callable[[Array, Array], Array] | None = None,
    *,
    joint_order: Sequence[int],
    part_order: Sequence[int],
    peaks: int,
    threshold: float,
) -> Candidates:
    """Poses at the peaks of the part maps.

    Keypoint and part maps are averaged over the orientations and peaks taken of the
    mean. Offsets are not averaged: each orientation regresses and refines its own pose
    at the peak, and the two poses are averaged.

    Args:
        maps: with a second axis O of orientations, [B, O, h, w, ...]: upright and, if O
            is 2, mirrored. (The published code fails with the upright view alone.)
        refine: pixels [B O, K, n, 2], offsets [B O, K, n, J, 2] -> better offsets.
        joint_order: order of the J joints after mirroring.
        part_order: order of the K parts after mirroring.
        peaks: n, how many maxima of each part map to look at.
        threshold: what a maximum must exceed.
    """
    batch, views, _, width = maps.heatmap.shape[:4]
    pixels, score = grouping.peaks(flip_test.average(maps.parts, part_order), peaks)
    at = pixels[:, None]  # [B, O, K, n, 2]
    if views == 2:
        at = flip_test.pixels_in_each(pixels, part_order, width)
    at = at.reshape(-1, *at.shape[2:])  # [B O, K, n, 2]
    offset = maps.offset.reshape(-1, *maps.offset.shape[2:])
    offset = sampling.gather_each(offset, at)  # [B O, K, n, J, 2]
    if refine is not None:
        offset = refine(at, offset)
    joints = at[..., None, :].astype(offset.dtype) - offset
    joints = joints.reshape(batch, views, *joints.shape[1:])
    joints = flip_test.mean_pose(joints, part_order, joint_order, width)
    return Candidates(
        heatmap=flip_test.average(maps.heatmap, joint_order),
        joints=joints.reshape(batch, -1, *joints.shape[3:]),
        score=jnp.where(score > threshold, score, -jnp.inf).reshape(batch, -1),
    )
