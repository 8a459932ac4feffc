"""Part-based pose generation (PINet, section 3.2): poses at the peaks of part maps.

DEKR's centre is its one part.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from occjax.ops import flip_test, grouping, rescoring, sampling
from occjax.ops.poses import located
from occjax.types import Array, Poses


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
    pixels: Array  # [B, N, 2] where they were found, map pixels


class Scored(NamedTuple):
    """The candidates of all scales, N together."""

    joints: Array  # [B, N, J, 2] input pixels
    response: Array  # [B, N, J] keypoint maps at the joints, mean over the scales
    joint_score: Array  # [B, N, J] part score times response, 0 where there is no pose
    score: Array  # [B, N] mean over the joints, -inf where there is no pose
    part_score: Array  # [B, N] comparable between the scales, 0 where there is no pose


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
        pixels=pixels.reshape(batch, -1, 2).astype(offset.dtype),
    )


def scored(
    found: Sequence[Candidates],
    size: tuple[int, int],
    decrease: float,
    read: Callable[[Array, Array, tuple[int, int]], Array],
) -> Scored:
    """Joins the candidates of all scales and scores their joints.

    Args:
        found: candidates of each scale, those of the input's own size first.
        size: height and width of the input image.
        decrease: factor for further scales, see `grouping.comparable`.
        read: value of the maps at the joints, `sampling.response` for one.
    """
    joints = jnp.concatenate(
        [x.joints * (size[1] / x.heatmap.shape[2]) for x in found], axis=1
    )
    part_score = grouping.comparable([x.score for x in found], decrease)
    responses = [read(x.heatmap, joints, size) for x in found]
    response = sum(responses[1:], responses[0]) / len(responses)
    real = part_score > -jnp.inf
    part_score = jnp.where(real, part_score, 0)
    joint_score = part_score[..., None] * response
    score = jnp.where(real, jnp.mean(joint_score, axis=-1), -jnp.inf)
    return Scored(joints, response, joint_score, score, part_score)


def persons(
    joints: Array,
    joint_score: Array,
    score: Array,
    *,
    sigmas: Sequence[float],
    nms: float,
    fuse: bool,
    max_poses: int | None,
    labelled: Array | None = None,
) -> Poses:
    """Groups candidates by their similarity: one pose per person, best first.

    Neither method predicts visibility: keypoint maps learn hidden joints like those
    that show. If it is known which joints probably have a label, a pose is scored by
    OAKS of its joint scores, instead of their mean.

    Args:
        joints: [B, N, J, 2] source pixels.
        joint_score: [B, N, J].
        score: [B, N], -inf where there is no pose.
        sigmas: J joint deviations of the OKS.
        nms: strict lower bound of the OKS within one person's poses.
        fuse: pose fusion (PINet, section 3.4); False keeps the best of each person.
        max_poses: how many persons to give at most; None for as many as candidates.
        labelled: [B, N, J] probability of having a label.
    """

    def one(
        joints: Array, joint_score: Array, score: Array, labelled: Array | None
    ) -> Poses:
        area = grouping.extent_area(joints)
        oks = grouping.oks_matrix(joints, sigmas, area)
        groups = grouping.greedy_groups(oks, score, nms)
        giver, score = grouping.fuse(groups, joint_score, score, members=fuse)
        given = functools.partial(jnp.take_along_axis, indices=giver, axis=0)
        if labelled is not None:
            by_label = rescoring.oaks(given(labelled), given(joint_score))
            score = jnp.where(score > -jnp.inf, by_label, -jnp.inf)
        score, best = jax.lax.top_k(score, min(max_poses or len(score), len(score)))
        giver = giver[best]  # [P, J]
        given = functools.partial(jnp.take_along_axis, indices=giver, axis=0)
        joints = jnp.take_along_axis(joints, giver[..., None], axis=0)
        poses = located(joints, given(joint_score), score)
        return poses if labelled is None else poses._replace(labelled=given(labelled))

    return jax.vmap(one)(joints, joint_score, score, labelled)
