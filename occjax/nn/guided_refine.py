"""A pose moved by DAG's graph network, guided by the features at its joints.

Xu et al., ICASSP 2024, section 2.3: FGMH-GCN.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn.attention import weighed
from occjax.nn.multi_hop import FeatureGuidedGCN
from occjax.ops import graph, sampling
from occjax.skeletons import Skeleton
from occjax.types import Array

# The graphs of DAG's code. Ours of COCO leaves the head apart from the body.
BONES = {
    "coco": (
        *((0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 6), (5, 7), (7, 9)),
        *((6, 8), (8, 10), (5, 11), (6, 12), (11, 12), (11, 13), (13, 15)),
        *((12, 14), (14, 16)),
    ),
    "crowdpose": (
        *((0, 2), (0, 6), (0, 13), (1, 3), (1, 7), (1, 13), (2, 4), (3, 5), (6, 7)),
        *((6, 8), (7, 9), (8, 10), (9, 11), (12, 13)),
    ),
}


def wanted(fields: Mapping[str, Any] | None) -> bool:
    """Whether fields of a `GuidedRefine` ask for one: with "hops" 0 there is none."""
    return fields is not None and fields.get("hops") != 0


class GuidedRefine(nn.Module):
    """Moves poses in frames of about -1 to 1; `gcn` is a `FeatureGuidedGCN`."""

    skeleton: Skeleton
    hops: int = 2  # bones that a joint looks far
    norm: str = "symmetric"  # of the adjacency, see `graph.hop_adjacency`
    hidden: int = 128  # see `FeatureGuidedGCN`
    blocks: int = 3
    mix: str = "sum"
    dtype: Any = jnp.float32  # computation; poses are float32 or wider

    @nn.compact
    def __call__(
        self,
        features: Array,
        joints: Array,
        low: Array,
        high: Array,
        *,
        train: bool,
        mask: Array | None = None,
        centre: Array | None = None,
    ) -> Array:
        """Moved joints [B, N, J, 2], in map pixels; where they were is a constant.

        Args:
            features: [B, h, w, C].
            joints: [B, N, J, 2] of N poses, map pixels.
            low: corner of the frame of each pose, broadcastable to the joints.
            high: the opposite corner.
            train: normalise by this batch.
            mask: [B, N] bool, the poses that enter its statistics.
            centre: [B, N, C] what speaks for each pose; its joints' features are then
                weighed by it, as in the attention of channels.

        Raises:
            ValueError: there is no such norm.
        """
        bones = BONES.get(self.skeleton.name, self.skeleton.bones)
        count = self.skeleton.num_joints
        hops = graph.hop_adjacency(bones, count, self.hops, self.norm)
        wide = np.promote_types(self.dtype, np.float32)
        batch, poses = joints.shape[:2]
        joints = jax.lax.stop_gradient(joints)
        points = joints.reshape(batch, poses * count, 2)
        at_joints = sampling.bilinear(features, points)
        at_joints = at_joints.reshape(batch, poses, count, -1)
        if centre is not None:
            at_joints = weighed(at_joints, centre, self.dtype)
        unit = sampling.to_unit(joints.astype(wide), low, high)
        gcn = FeatureGuidedGCN(
            self.hidden, self.blocks, self.mix, self.dtype, name="gcn"
        )
        moved = gcn(
            unit.reshape(batch * poses, count, 2),
            at_joints.reshape(batch * poses, count, -1),
            jnp.asarray(hops, wide),
            train=train,
            mask=None if mask is None else mask.reshape(-1),
        )
        return sampling.from_unit(unit + moved.reshape(unit.shape), low, high)

    def of_crops(
        self, features: Array, joints: Array, stride: int, *, train: bool
    ) -> Array:
        """Moved joints [B, J, 2] of a pose a crop, in input pixels.

        The frame is the crop.

        Args:
            features: [B, h, w, C], which lie at multiples of the stride.
            joints: [B, J, 2] input pixels.
            stride: input pixels per pixel of the features.
            train: normalise by this batch.
        """
        size = features.shape[2:0:-1]
        moved = self(features, joints[:, None] / stride, (0, 0), size, train=train)
        return stride * moved[:, 0]
