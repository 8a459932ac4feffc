"""From joint scores to the score of a pose."""

import jax.numpy as jnp
import numpy as np

from occjax.types import Array


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
