"""Image-guided progressive GCN (OPEC-Net): corrects an estimated pose in stages."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn.sem_graph import (
    BLOCK_NAMES,
    CONV_NAMES,
    LAYER_NAMES,
    Bones,
    ResidualAttention,
    SemGraphConv,
    SemGraphLayer,
)
from occjax.nn.torch_names import prefixed
from occjax.types import Array


class ProgressiveGCN(nn.Module):
    """Stages that each add image features at the nodes and give a whole pose.

    A stage is a residual block, so there is one block more than stages. The poses are
    positions, although the paper speaks of displacements. Nodes are the joints of a
    person, or of a couple (`ops.graph.couple`, CoupleGraph): then the second person's
    joints follow the first's in all arguments.
    """

    bones: Bones
    features: int = 128  # channels before the first image features
    every: bool = True  # a pose of each stage; False: of the last alone
    dtype: Any = jnp.float32  # computation only; the first and last layers are float32

    @nn.compact
    def __call__(
        self,
        pose: Array,
        sampled: Sequence[Array | None],
        *,
        train: bool,
        mask: Array | None = None,
    ) -> tuple[Array, ...]:
        """Poses of the stages.

        Args:
            pose: [B, N, 3], x and y in -1 .. 1 and score.
            sampled: for each stage, image features [B, N, C] at the nodes, or None: the
                stage sees no image.
            train: normalise by this batch.
            mask: [B] bool, the poses that enter its statistics.

        Returns:
            One array [B, N, 2] for each stage, float32 or wider, in the pose's frame.
        """
        wide: Any = np.promote_types(self.dtype, np.float32)
        how: Any = {"train": train, "mask": None if mask is None else mask[:, None]}
        x = SemGraphLayer(self.features, self.bones, wide, name="input")(pose, **how)
        x = self._block(1)(x.astype(self.dtype), **how)
        poses = []
        for i, features in enumerate(sampled, start=1):
            if features is not None:
                x = jnp.concatenate((features.astype(self.dtype), x), axis=-1)
            x = self._block(i + 1)(x, **how)
            if self.every or i == len(sampled):
                poses.append(SemGraphConv(2, self.bones, wide, name=f"output{i}")(x))
        return tuple(poses)

    def _block(self, place: int) -> ResidualAttention:
        return ResidualAttention(self.bones, self.dtype, name=f"block{place}")


# Names of OPEC-Net's code; see torch_names.py.
TORCH_NAMES = (
    *prefixed(LAYER_NAMES, "gconv_input.", "input"),
    *(
        row
        for i in (1, 2, 3, 4)
        for row in prefixed(BLOCK_NAMES, f"gconv_layers{i}.", f"block{i}")
    ),
    *(
        row
        for i in (1, 2, 3)
        for row in prefixed(CONV_NAMES, f"gconv_output{i}.", f"output{i}")
    ),
)
