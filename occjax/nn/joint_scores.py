"""OAKS without a crop: what each joint of a found pose is worth, told at the joint.

Zhao et al. 2020 tell labels from a crop's deepest features and similarity from its
heatmaps. Where a whole image is read at once there is neither, so both are told from
the features at the joint, those at the part that found the person, and the value of the
joint's map.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn.dense import Perceptron
from occjax.ops import sampling
from occjax.types import Array


class Told(NamedTuple):
    """What is expected of the joints of N poses."""

    labelled: Array  # [B, N, J] logits of having a label
    quality: Array  # [B, N, J] similarity with the truth, 0..1


class JointScores(nn.Module):
    """Two hidden layers that all joints share, each with a code of its own."""

    hidden: int = 128  # units of each hidden layer
    dtype: Any = jnp.float32  # computation; what is told is float32 or wider

    @nn.compact
    def __call__(
        self, features: Array, heatmap: Array, joints: Array, centres: Array
    ) -> Told:
        """Tells of poses; nothing that is read learns from it.

        Args:
            features: [B, h, w, C].
            heatmap: [B, h, w, J].
            joints: [B, N, J, 2] map pixels.
            centres: [B, N, 2] of the parts that found them, map pixels.
        """
        features, heatmap, joints, centres = jax.lax.stop_gradient(
            (features, heatmap, joints, centres)
        )
        batch, poses, count = joints.shape[:3]
        points = joints.reshape(batch, poses * count, 2)
        at_joints = sampling.bilinear(features, points)
        at_joints = at_joints.reshape(batch, poses, count, -1)
        maps = sampling.bilinear(heatmap, points).reshape(batch, poses, count, count)
        value = jnp.diagonal(maps, axis1=2, axis2=3)[..., None]
        centre = sampling.bilinear(features, centres)[:, :, None]
        code = jnp.eye(count, dtype=self.dtype)[None, None]
        spread = (batch, poses, count, -1)
        parts = [
            at_joints,
            jnp.broadcast_to(centre, at_joints.shape),
            value,
            jnp.broadcast_to(code, (*spread[:3], count)),
        ]
        x = jnp.concatenate([part.astype(self.dtype) for part in parts], axis=-1)
        told = Perceptron(self.hidden, 2, self.dtype, name="layers")(
            x.reshape(batch * poses * count, -1)
        ).reshape(spread)
        told = told.astype(np.promote_types(told.dtype, np.float32))
        return Told(told[..., 0], jax.nn.sigmoid(told[..., 1]))
