"""Pose refinement (PINet, section 3.3): corrects poses by the features at joints."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn.attention import weighed
from occjax.nn.blocks import BatchNorm
from occjax.nn.dense import torch_dense
from occjax.nn.graph_conv import GraphBlock, GraphConv
from occjax.ops.graph import normalized_adjacency
from occjax.ops.sampling import bilinear, gather, misaligned
from occjax.types import Array

GRAPHS = ("dynamic", "static", "no_graph")


class PoseRefine(nn.Module):
    """Samples features at the joints, passes them along the body, predicts corrections.

    Graph convolutions share one [J, J] adjacency: "dynamic" is a free parameter that
    starts at the skeleton's normalised adjacency (the same for every input), "static"
    keeps that start. "no_graph" pools the sampled features directly; the paper does
    not say whether a layer per joint stays, here none does.

    The paper counts "3 layers"; its code has 1 + 2 * 3 graph convolutions (1 + 2 * 2
    for COCO). Its "two fully connected layers" have a batch norm between them.
    """

    num_joints: int  # J
    bones: tuple[tuple[int, int], ...]
    layers: int = 3  # residual blocks of two graph convolutions
    features: int | None = None  # hidden channels F; None: those of the feature map
    graph: str = "dynamic"  # one of GRAPHS
    aligned: bool = False  # sample where asked; False: the published, shifted grid
    weigh: bool = False  # channels weighed by the feature of the pose's pixel; DAG's
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(
        self,
        features: Array,
        pixels: Array,
        joints: Array,
        *,
        train: bool,
        mask: Array | None = None,
    ) -> Array:
        """Corrections to be subtracted from the joints.

        Args:
            features: [B, H, W, C].
            pixels: [B, N, 2] integers, where each pose was detected.
            joints: [B, N, J, 2] in map pixels.
            train: normalise by this batch.
            mask: [B, N] bool, the poses that enter its statistics.

        Returns:
            [B, N, J, 2] in map pixels, float32 or wider.
        """
        width = self.features or features.shape[-1]
        x = self._at_joints(features, joints)  # [B, N, J, C]
        centre = gather(features, pixels)  # [B, N, C]
        if self.weigh:
            x = weighed(x, centre, self.dtype)
        if self.graph != "no_graph":
            x = self._graph(x, width, train, None if mask is None else mask[..., None])
        x = jnp.concatenate((jnp.mean(x, axis=2), jnp.max(x, axis=2), centre), axis=-1)
        x = torch_dense(width, x, self.dtype, "hidden")
        x = nn.relu(BatchNorm(dtype=self.dtype, name="bn")(x, train=train, mask=mask))
        wide = np.promote_types(self.dtype, np.float32)
        x = torch_dense(2 * self.num_joints, x, wide, "out")
        return x.reshape(joints.shape)

    def _at_joints(self, features: Array, joints: Array) -> Array:
        """Bilinear samples [B, N, J, C]."""
        batch, count, num_joints, _ = joints.shape
        points = joints.reshape(batch, count * num_joints, 2)
        if not self.aligned:
            points = misaligned(points, features.shape[1:3])
        sampled = bilinear(features, points)
        return sampled.reshape(batch, count, num_joints, -1)

    def _graph(self, x: Array, width: int, train: bool, mask: Array | None) -> Array:
        """Graph convolutions, [B, N, J, C] -> [B, N, J, F]."""
        start = normalized_adjacency(self.bones, self.num_joints)
        adjacency = jnp.asarray(start, np.promote_types(self.dtype, np.float32))
        if self.graph == "dynamic":
            adjacency = self.param("adjacency", lambda _: jnp.float32(start))
        head = GraphConv(width, self.dtype, name="head")
        x = head(x, adjacency, train=train, mask=mask)
        for i in range(self.layers):
            block = GraphBlock(self.dtype, name=f"layer{i}")
            x = block(x, adjacency, train=train, mask=mask)
        return x


# Names of the official code; see torch_names.py.
TORCH_NAMES = (
    (r"adj", "adjacency", "keep"),
    (r"gconv_head\.conv\.weight", "head/kernel", "keep"),
    (r"gconv_head\.conv\.bias", "head/bias", "keep"),
    (r"gconv_head\.bn", "head/bn", "norm"),
    (
        r"gconv_layers\.(\d)\.gconv(\d)\.conv\.weight",
        r"layer\1/conv\2/kernel",
        "keep",
    ),
    (r"gconv_layers\.(\d)\.gconv(\d)\.conv\.bias", r"layer\1/conv\2/bias", "keep"),
    (r"gconv_layers\.(\d)\.gconv(\d)\.bn", r"layer\1/conv\2/bn", "norm"),
    (r"gconv_pred\.0", "hidden", "pointwise"),
    (r"gconv_pred\.1", "bn", "norm"),
    (r"gconv_pred\.3", "out", "pointwise"),
)
