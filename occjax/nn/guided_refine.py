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
from occjax.nn.blocks import conv
from occjax.nn.heads import JOINT_MLP_NAMES, JointMLP
from occjax.nn.multi_hop import GCN_NAMES, FeatureGuidedGCN
from occjax.nn.torch_names import prefixed
from occjax.ops import frames, graph, sampling
from occjax.skeletons import Skeleton
from occjax.types import Array, Inputs

FRAMES = ("crop", "box")
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
    """Moves poses in frames of about -1 to 1; `gcn` is a `FeatureGuidedGCN`.

    It is guided by features at the joints. With `seek`, as in the published code, these
    are all joints' heatmaps after a convolution (`level`), and where to read them for
    each joint is regressed from its map by a network (`seeker`) that knows one size of
    map.
    """

    skeleton: Skeleton
    hops: int = 2  # bones that a joint looks far
    norm: str = "symmetric"  # of the adjacency, see `graph.hop_adjacency`
    hidden: int = 128  # see `FeatureGuidedGCN`
    blocks: int = 3
    mix: str = "sum"
    seek: bool = False  # read heatmaps where a network says
    frame: str = "crop"  # one of FRAMES, of poses of crops
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
            features: [B, h, w, C]; with `seek` heatmaps [B, h, w, J] of one pose.
            joints: [B, N, J, 2] of N poses, map pixels.
            low: corner of the frame of each pose, broadcastable to the joints.
            high: the opposite corner.
            train: normalise by this batch.
            mask: [B, N] bool, the poses that enter its statistics.
            centre: [B, N, C] what speaks for each pose; its joints' features are then
                weighed by it, as in the attention of channels.

        Raises:
            ValueError: there is no such norm, or `seek` gets something else than maps
                of one pose.
        """
        bones = BONES.get(self.skeleton.name, self.skeleton.bones)
        count = self.skeleton.num_joints
        hops = graph.hop_adjacency(bones, count, self.hops, self.norm)
        wide = np.promote_types(self.dtype, np.float32)
        batch, poses = joints.shape[:2]
        joints = jax.lax.stop_gradient(joints)
        points = joints.reshape(batch, poses * count, 2)
        if self.seek:
            features, points = self._sought(features, poses)
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

    def _sought(self, maps: Array, poses: int) -> tuple[Array, Array]:
        """Maps [B, h, w, J] to be read, and where to, [B, J, 2] map pixels."""
        count = self.skeleton.num_joints
        if maps.shape[-1] != count or poses != 1:
            raise ValueError(
                f"seek: expected heatmaps of {count} joints of one pose, got "
                f"{maps.shape[-1]} channels and {poses} poses."
            )
        level = conv(count, dtype=self.dtype, use_bias=True, name="level")(maps)
        where = JointMLP(dtype=self.dtype, name="seeker")(level)
        # half a pixel beyond the outermost is -1 and 1, as in the published code
        size = np.array(maps.shape[2:0:-1])
        return level, sampling.from_unit(where, (-0.5, -0.5), size - 0.5)

    def of_crops(
        self,
        features: Array,
        joints: Array,
        stride: int,
        inputs: Inputs,
        *,
        train: bool,
    ) -> Array:
        """Moved joints [B, J, 2] of a pose a crop, in input pixels.

        The frame is the crop, or the person's box as in the published code.

        Args:
            features: [B, h, w, C], which lie at multiples of the stride.
            joints: [B, J, 2] input pixels.
            stride: input pixels per pixel of the features.
            inputs: the crops.
            train: normalise by this batch.

        Raises:
            ValueError: there is no such frame, or the crops have no boxes.
        """
        if self.frame not in FRAMES:
            raise ValueError(
                f"frame: expected one of {', '.join(FRAMES)}, got {self.frame!r}."
            )
        low, high = (0, 0), features.shape[2:0:-1]
        if self.frame == "box":
            if inputs.box is None:
                raise ValueError("frame: 'box' needs crops of boxes.")
            found = frames.corners(inputs.box, sampling.inverse(inputs.to_source))
            low, high = (corner[:, None, None] / stride for corner in found)
        moved = self(features, joints[:, None] / stride, low, high, train=train)
        return stride * moved[:, 0]


# Names of DAG's code; see torch_names.py.
REFINE_NAMES = (
    ("level_conv", "level", "conv"),
    *prefixed(JOINT_MLP_NAMES, "FC.", "seeker"),
    *prefixed(GCN_NAMES, "", "gcn"),
)
