"""From joint scores, and the shape of a pose, to its score."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from occjax.types import Array, Labels

_MEASURES = (9, 11)  # numbers of the links whose mean length is the unit


def confident_mean(joint_score: Array, above: float) -> Array:
    """Mean of the joint scores strictly above a bound, 0 where none is.

    Times the box's score it is HRNet's score of a pose (bound 0.2). Without a bound,
    -inf, it is the plain mean.

    Args:
        joint_score: [..., J].
        above: strict lower bound.

    Returns:
        [...], float32 or wider.
    """
    wide = joint_score.astype(np.promote_types(joint_score.dtype, np.float32))
    counted = wide > above
    count = jnp.sum(counted, axis=-1, dtype=wide.dtype)
    return jnp.sum(wide, axis=-1, where=counted) / jnp.maximum(count, 1)


def limb_features(
    joints: Array, joint_score: Array, links: Sequence[tuple[int, int]]
) -> Array:
    """What DEKR's rescoring net sees of a pose: limbs, their lengths, joint scores.

    Limbs are measured in the mean length of links 9 and 11, at least 1 pixel: the sides
    of COCO's torso. The published code takes the same numbers for CrowdPose's links.

    Args:
        joints: [B, N, J, 2] source pixels.
        joint_score: [B, N, J].
        links: L joint pairs.

    Returns:
        [B, N, 3 L + J].
    """
    first, second = (jnp.asarray(ends) for ends in zip(*links, strict=True))
    limb = joints[:, :, first] - joints[:, :, second]  # [B, N, L, 2]
    length = jnp.sqrt(jnp.sum(jnp.square(limb), axis=-1))
    unit = jnp.mean(length[..., jnp.asarray(_MEASURES)], axis=-1, keepdims=True)
    unit = jnp.maximum(unit, 1)
    limb = limb.reshape(*limb.shape[:2], -1) / unit
    return jnp.concatenate((limb, length / unit, joint_score), axis=-1)


def best_oks(joints: Array, labels: Labels, sigmas: Sequence[float]) -> Array:
    """OKS of each pose with the labelled person whom it resembles most.

    Areas are those of boxes, as labels have no others.

    Args:
        joints: [B, N, J, 2] input pixels.
        labels: the truth, P persons.
        sigmas: J joint deviations relative to sqrt(area).

    Returns:
        [B, N], 0 where nobody is labelled.
    """
    labelled = (labels.visibility > 0) & (labels.area > 0)[..., None]  # [B, P, J]
    truth = labels.joints.astype(joints.dtype)
    gap = jnp.square(joints[:, :, None] - truth[:, None])  # [B, N, P, J, 2]
    area = jnp.maximum(labels.area, 1).astype(joints.dtype)[:, None, :, None]
    spread = jnp.asarray(8 * np.square(sigmas), joints.dtype).reshape(1, 1, 1, -1)
    alike = jnp.exp(-jnp.sum(gap, axis=-1) / (area * spread))
    count = jnp.sum(labelled, axis=-1, dtype=joints.dtype)[:, None]
    total = jnp.sum(alike, axis=-1, where=labelled[:, None])
    return jnp.max(total / jnp.maximum(count, 1), axis=-1)
