"""HRNet (Sun et al., CVPR 2019): branches of four resolutions that keep exchanging."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from occjax.nn.blocks import BasicBlock, Bottleneck, ConvBN
from occjax.nn.resize import upsample_nearest
from occjax.types import Array


class Backbone(nn.Module):
    """High-resolution network; W32 and W48 are widths 32 and 48, all else as given.

    Branch b (0..3) has stride 4 * 2^b and width * 2^b channels; stages 2, 3 and 4 have
    2, 3 and 4 branches.
    """

    width: int = 32  # channels of the finest branch
    modules: tuple[int, ...] = (1, 4, 3)  # exchanges in stages 2, 3 and 4
    blocks: int = 4  # residual blocks per branch between two exchanges
    stem: int = 64  # channels of the two stem convolutions
    bottlenecks: int = 4  # blocks before the branches
    concat: bool = True  # all branches; otherwise the finest alone (top-down HRNet)
    all_levels: bool = False  # give the coarser branches before the last exchange too
    early: bool = False  # give the finest branch before the last stage too
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> Array | tuple[Array, ...]:
        """Maps normalised images [B, H, W, 3] to features [B, H / 4, W / 4, C].

        C is 15 * width, finest branch first, or width without `concat`. With
        `all_levels` the branches of strides 32, 16 and 8 stand before them, with
        `early` the finest branch as it was before stage 4.

        Raises:
            ValueError: a side of the image is no multiple of 32.
        """
        if image.shape[1] % 32 or image.shape[2] % 32:
            raise ValueError(
                f"image: sides must be multiples of 32, got {image.shape[1:3]}."
            )
        x = image.astype(self.dtype)
        for i in (1, 2):
            x = self._conv(self.stem, stride=2, name=f"stem{i}")(x, train=train)
        for i in range(self.bottlenecks):
            block = Bottleneck(4 * self.stem, dtype=self.dtype, name=f"layer1_{i}")
            x = block(x, train=train)
        branches = [self._conv(self.width, name="transition1_0")(x, train=train)]
        entering = branches
        early = branches  # those that enter the last stage
        for stage, modules in enumerate(self.modules, start=2):
            early = branches
            branches, entering = self._stage(branches, x, stage, modules, train=train)
            x = branches[-1]
        finest = concatenate(branches) if self.concat else branches[0]
        coarser = entering[:0:-1] if self.all_levels else ()
        before = (*coarser, *(early[:1] if self.early else ()))
        return (*before, finest) if before else finest

    def _stage(
        self, branches: list[Array], x: Array, stage: int, modules: int, *, train: bool
    ) -> tuple[list[Array], list[Array]]:
        """Adds a branch made from x (half its size, or layer1's), then exchanges.

        Returns:
            The branches after the last exchange, and before it.
        """
        b = stage - 1
        widen = self._conv(
            self.width * 2**b, stride=2, name=f"transition{stage - 1}_{b}"
        )
        branches = entering = [*branches, widen(x, train=train)]
        for m in range(modules):
            entering = branches
            last = stage == 1 + len(self.modules) and m == modules - 1
            branches = Exchange(
                blocks=self.blocks,
                outputs=len(branches) if self.concat or not last else 1,
                dtype=self.dtype,
                name=f"stage{stage}_{m}",
            )(branches, train=train)
        return branches, entering

    def _conv(self, features: int, stride: int = 1, *, name: str) -> ConvBN:
        return ConvBN(features, stride=stride, dtype=self.dtype, name=name)


class Exchange(nn.Module):
    """Residual blocks on each branch, then every output sums all branches."""

    blocks: int  # per branch
    outputs: int  # branches that are given on, finest first
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, branches: Sequence[Array], *, train: bool) -> list[Array]:
        """Maps branches [B, H / 2^b, W / 2^b, C * 2^b] to the first `outputs` ones."""
        branches = list(branches)
        for b, x in enumerate(branches):
            for i in range(self.blocks):
                block = BasicBlock(x.shape[-1], dtype=self.dtype, name=f"branch{b}_{i}")
                branches[b] = block(branches[b], train=train)
        return [
            nn.relu(functools.reduce(jnp.add, self._terms(branches, i, train=train)))
            for i in range(self.outputs)
        ]

    def _terms(self, branches: list[Array], i: int, *, train: bool) -> list[Array]:
        """All branches, each brought to the shape of branch i."""
        return [
            x if j == i else self._bring(branches, j, i, train=train)
            for j, x in enumerate(branches)
        ]

    def _bring(self, branches: list[Array], j: int, i: int, *, train: bool) -> Array:
        """Branch j in the shape of branch i."""
        x = branches[j]
        if j > i:
            x = self._conv(branches[i], 1, 1, False, f"fuse{i}_{j}")(x, train=train)
            return upsample_nearest(x, 2 ** (j - i))
        for k in range(i - j):
            last = k == i - j - 1
            like = branches[i] if last else branches[j]
            halve = self._conv(like, 3, 2, not last, f"fuse{i}_{j}_{k}")
            x = halve(x, train=train)
        return x

    def _conv(
        self, like: Array, kernel: int, stride: int, relu: bool, name: str
    ) -> ConvBN:
        features = like.shape[-1]
        return ConvBN(features, kernel, stride, relu, dtype=self.dtype, name=name)


def concatenate(branches: Sequence[Array]) -> Array:
    """Brings all branches to the finest size, bilinearly, and joins their channels."""
    size = branches[0].shape[:3]
    coarser = [
        jax.image.resize(x, (*size, x.shape[-1]), "bilinear") for x in branches[1:]
    ]
    return jnp.concatenate([branches[0], *coarser], axis=-1)


# Names of the official code, deep-high-resolution-net.pytorch; see torch_names.py.
TORCH_NAMES = (
    (r"conv([12])", r"stem\1/conv", "conv"),
    (r"bn([12])", r"stem\1/bn", "norm"),
    (r"layer1\.(\d+)\.conv(\d)", r"layer1_\1/conv\2/conv", "conv"),
    (r"layer1\.(\d+)\.bn(\d)", r"layer1_\1/conv\2/bn", "norm"),
    (r"layer1\.(\d+)\.downsample\.0", r"layer1_\1/downsample/conv", "conv"),
    (r"layer1\.(\d+)\.downsample\.1", r"layer1_\1/downsample/bn", "norm"),
    (r"transition1\.0\.0", "transition1_0/conv", "conv"),
    (r"transition1\.0\.1", "transition1_0/bn", "norm"),
    (r"transition(\d)\.(\d)\.0\.0", r"transition\1_\2/conv", "conv"),
    (r"transition(\d)\.(\d)\.0\.1", r"transition\1_\2/bn", "norm"),
    (
        r"stage(\d)\.(\d+)\.branches\.(\d)\.(\d+)\.conv(\d)",
        r"stage\1_\2/branch\3_\4/conv\5/conv",
        "conv",
    ),
    (
        r"stage(\d)\.(\d+)\.branches\.(\d)\.(\d+)\.bn(\d)",
        r"stage\1_\2/branch\3_\4/conv\5/bn",
        "norm",
    ),
    # Coarser to finer: one convolution; finer to coarser: a chain of them.
    (
        r"stage(\d)\.(\d+)\.fuse_layers\.(\d)\.(\d)\.0",
        r"stage\1_\2/fuse\3_\4/conv",
        "conv",
    ),
    (
        r"stage(\d)\.(\d+)\.fuse_layers\.(\d)\.(\d)\.1",
        r"stage\1_\2/fuse\3_\4/bn",
        "norm",
    ),
    (
        r"stage(\d)\.(\d+)\.fuse_layers\.(\d)\.(\d)\.(\d)\.0",
        r"stage\1_\2/fuse\3_\4_\5/conv",
        "conv",
    ),
    (
        r"stage(\d)\.(\d+)\.fuse_layers\.(\d)\.(\d)\.(\d)\.1",
        r"stage\1_\2/fuse\3_\4_\5/bn",
        "norm",
    ),
)
# The ImageNet file has a classification head that poses have no use for, and gives all
# branches on at its end, which a network that reads the finest alone does not.
IMAGENET_NAMES = (
    *((x, to, kind + "?" if "fuse" in x else kind) for x, to, kind in TORCH_NAMES),
    (r"(incre_modules|downsamp_modules|final_layer|classifier)\..*", "", "drop"),
)
