"""From joint scores, and the shape of a pose, to its score."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from occjax.types import Array, Labels

_MEASURES = (9, 11)  # numbers of the links whose mean length is the unit
_NO_LABELS = 1e-6  # keeps the score of a pose without labelled joints finite


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


def similarity(
    joints: Array, truth: Array, area: Array, sigmas: Sequence[float]
) -> Array:
    """Similarity of each joint with where it should be (OAKS, equation 2).

    exp(-d^2 / (2 s^2 k^2)) with s^2 the area, at least 1, and k twice the deviation.

    Args:
        joints: [..., J, 2].
        truth: [..., J, 2], in the same pixels.
        area: [...] of the people, in these pixels too.
        sigmas: J joint deviations relative to sqrt(area).

    Returns:
        [..., J].
    """
    gap = jnp.sum(jnp.square(joints - truth), axis=-1)
    spread = 8 * np.square(np.asarray(sigmas))
    spread = spread.reshape((1,) * (gap.ndim - 1) + (-1,)).astype(gap.dtype)
    return jnp.exp(-gap / (jnp.maximum(area, 1)[..., None] * spread))


def oaks(labelled: Array, quality: Array) -> Array:
    """The OAKS score: joints count as far as they probably have a label (algorithm 1).

    Args:
        labelled: [..., J] probability of having a label.
        quality: [..., J] expected similarity of each joint.

    Returns:
        [...]: sum(labelled * quality) / sum(labelled).
    """
    total = jnp.sum(labelled, axis=-1)
    return jnp.sum(labelled * quality, axis=-1) / (total + _NO_LABELS)


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
    return jnp.max(_alike(joints, labels, sigmas)[1], axis=-1)


def of_nearest(
    joints: Array, labels: Labels, sigmas: Sequence[float]
) -> tuple[Array, Array]:
    """What OAKS asks of each pose, by the person whom it resembles most.

    Args:
        joints: [B, N, J, 2] input pixels.
        labels: the truth, P persons.
        sigmas: J joint deviations relative to sqrt(area).

    Returns:
        Similarity of the joints [B, N, J], and which have a label [B, N, J] bool.
    """
    alike, oks = _alike(joints, labels, sigmas)
    nearest = jnp.argmax(oks, axis=-1)[..., None]  # [B, N, 1]
    alike = jnp.take_along_axis(alike, nearest[..., None], axis=2)[:, :, 0]
    labelled = jnp.take_along_axis(_labelled(labels), nearest, axis=1)
    return alike, labelled


def _alike(
    joints: Array, labels: Labels, sigmas: Sequence[float]
) -> tuple[Array, Array]:
    """Similarity of poses with all people, [B, N, P, J] and over labels [B, N, P]."""
    labelled = _labelled(labels)  # [B, P, J]
    truth = labels.joints.astype(joints.dtype)[:, None]
    area = labels.area.astype(joints.dtype)[:, None]
    alike = similarity(joints[:, :, None], truth, area, sigmas)
    count = jnp.sum(labelled, axis=-1, dtype=joints.dtype)[:, None]
    total = jnp.sum(alike, axis=-1, where=labelled[:, None])
    return alike, total / jnp.maximum(count, 1)


def _labelled(labels: Labels) -> Array:
    """[B, P, J] bool; padding has no labels."""
    return (labels.visibility > 0) & (labels.area > 0)[..., None]
