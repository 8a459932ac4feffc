"""Poses of methods that tell where joints are and no more."""

import jax.numpy as jnp

from occjax.types import Array, Poses


def located(joints: Array, joint_score: Array, score: Array) -> Poses:
    """Poses without a prediction of what can be seen or has a label.

    Args:
        joints: [..., J, 2] source pixels.
        joint_score: [..., J].
        score: [...].
    """
    unknown = jnp.full(joint_score.shape, jnp.nan, jnp.float32)
    return Poses(joints, joint_score, unknown, unknown, score)
