"""Cascaded pyramid network (Chen et al., CVPR 2018)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from occjax.nn import resnet
from occjax.nn.blocks import BatchNorm, Bottleneck, ConvBN, conv
from occjax.nn.resize import bilinear_aligned
from occjax.nn.torch_names import Row, prefixed
from occjax.types import Array

# Scale of the norms that end in heatmaps. It is 1 in CPN, whose maps have peaks of 255;
# ours have peaks of 1, and would have to lose all that noise first.
START = 1 / 255


class Outputs(NamedTuple):
    """Heatmaps of both parts, all [B, H / 4, W / 4, joints], and features."""

    coarse: list[Array]  # GlobalNet's, from the four levels, coarsest level first
    refined: Array  # RefineNet's, the result
    levels: list[Array]  # P5 to P2 of the pyramid: [B, H / 2^s, W / 2^s, features]
    deepest: Array  # C5 of the ResNet: [B, H / 32, W / 32, C]


class CPN(nn.Module):
    """ResNet, GlobalNet for the easy joints, RefineNet for the hard ones."""

    joints: int
    depth: int = 50  # of the ResNet
    width: int = 64  # of the ResNet
    features: int = 256  # channels of the pyramid
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> Outputs:
        """Maps normalised images [B, H, W, 3] to heatmaps and features.

        Raises:
            ValueError: a side of the image is no multiple of 32.
        """
        if image.shape[1] % 32 or image.shape[2] % 32:
            raise ValueError(
                f"image: sides must be multiples of 32, got {image.shape[1:3]}."
            )
        sizes = {"joints": self.joints, "features": self.features, "dtype": self.dtype}
        trunk = resnet.Backbone(self.depth, self.width, dtype=self.dtype, name="trunk")
        stages = trunk.stages(image, train=train)
        levels, coarse = GlobalNet(**sizes, name="global_net")(stages, train=train)
        refined = RefineNet(**sizes, name="refine_net")(levels, train=train)
        return Outputs(coarse, refined, levels, stages[-1])


class GlobalNet(nn.Module):
    """Feature pyramid with a prediction at every level."""

    joints: int
    features: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, stages: Sequence[Array], *, train: bool
    ) -> tuple[list[Array], list[Array]]:
        """Maps stages C2..C5 to levels P5..P2 and the heatmaps of each.

        Args:
            stages: [B, H / 2^s, W / 2^s, C_s], finest first.
            train: use the batch's statistics.

        Returns:
            levels [B, H / 2^s, W / 2^s, features], and heatmaps of the finest stage's
            size [B, H / 4, W / 4, joints], both coarsest first.
        """
        finest = stages[0].shape[1:3]
        levels, coarse = [], []
        for i, stage in enumerate(reversed(stages)):
            x = self._conv(1, f"lateral{i}")(stage, train=train)
            if levels:
                above = bilinear_aligned(levels[-1], x.shape[1:3])
                bring = self._conv(1, f"upsample{i - 1}", relu=False)
                x = x + bring(above, train=train)
            levels.append(x)
            maps = self._conv(1, f"predict{i}")(x, train=train)
            maps = conv(self.joints, 3, dtype=self.dtype, name=f"maps{i}")(maps)
            maps = bilinear_aligned(maps, finest)
            norm = BatchNorm(dtype=self.dtype, start=START, name=f"maps{i}_bn")
            coarse.append(norm(maps, train=train))
        return levels, coarse

    def _conv(self, kernel: int, name: str, *, relu: bool = True) -> ConvBN:
        return ConvBN(self.features, kernel, 1, relu, dtype=self.dtype, name=name)


class RefineNet(nn.Module):
    """Brings all levels to one size, the coarser through more bottlenecks."""

    joints: int
    features: int = 256
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, levels: Sequence[Array], *, train: bool) -> Array:
        """Maps levels, coarsest first, to heatmaps of the finest level's size."""
        finest = levels[-1].shape[1:3]
        brought = []
        for i, x in enumerate(levels):
            for k in range(len(levels) - 1 - i):
                x = self._block(f"cascade{i}_{k}")(x, train=train)
            brought.append(bilinear_aligned(x, finest))
        x = self._block("final")(jnp.concatenate(brought, axis=-1), train=train)
        last = ConvBN(
            self.joints, relu=False, start=START, dtype=self.dtype, name="maps"
        )
        return last(x, train=train)

    def _block(self, name: str) -> Bottleneck:
        return Bottleneck(
            self.features, expansion=2, project=True, dtype=self.dtype, name=name
        )


def _block_names(torch: str, flax: str) -> tuple[Row, ...]:
    """Rows of a bottleneck of RefineNet: patterns of its names and our path."""
    group = rf"\{1 + torch.count('(')}"  # those of `torch` come first
    return (
        (torch + r"\.conv(\d)", f"{flax}/conv{group}/conv", "conv"),
        (torch + r"\.bn(\d)", f"{flax}/conv{group}/bn", "norm"),
        (torch + r"\.downsample\.0", f"{flax}/downsample/conv", "conv"),
        (torch + r"\.downsample\.1", f"{flax}/downsample/bn", "norm"),
    )


# Names of pytorch-cpn; see torch_names.py.
TORCH_NAMES = (
    *prefixed(resnet.TORCH_NAMES, "resnet.", "trunk"),
    (r"global_net\.laterals\.(\d)\.0", r"global_net/lateral\1/conv", "conv"),
    (r"global_net\.laterals\.(\d)\.1", r"global_net/lateral\1/bn", "norm"),
    (r"global_net\.upsamples\.(\d)\.1", r"global_net/upsample\1/conv", "conv"),
    (r"global_net\.upsamples\.(\d)\.2", r"global_net/upsample\1/bn", "norm"),
    (r"global_net\.predict\.(\d)\.0", r"global_net/predict\1/conv", "conv"),
    (r"global_net\.predict\.(\d)\.1", r"global_net/predict\1/bn", "norm"),
    (r"global_net\.predict\.(\d)\.3", r"global_net/maps\1", "conv"),
    (r"global_net\.predict\.(\d)\.5", r"global_net/maps\1_bn", "norm"),
    *_block_names(r"refine_net\.cascade\.(\d)\.(\d)", r"refine_net/cascade\1_\2"),
    *_block_names(r"refine_net\.final_predict\.0", "refine_net/final"),
    (r"refine_net\.final_predict\.1", "refine_net/maps/conv", "conv"),
    (r"refine_net\.final_predict\.2", "refine_net/maps/bn", "norm"),
)
