"""Stacked hourglass network (Newell, Yang and Deng, ECCV 2016)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn.blocks import TORCH_UNIFORM, BatchNorm, conv
from occjax.nn.erase_reconstruct import EraseReconstruct, Repaired
from occjax.nn.resize import max_pool, upsample_nearest
from occjax.nn.torch_names import Row
from occjax.types import Array


class Stack(NamedTuple):
    """What one hourglass gives."""

    features: Array  # [B, H / 4, W / 4, features], what the heatmaps are made of
    heatmaps: Array  # [B, H / 4, W / 4, joints], float32 or wider
    repaired: Repaired | None  # where the features were repaired


class Hourglass(nn.Module):
    """Stacked hourglasses that all predict heatmaps; each sees those before.

    The stem of pytorch-pose is (128, 256, 256), that of princeton-vl's code
    (128, 128, 256); they are the same otherwise.
    """

    joints: int
    stacks: int = 2  # 8 in the paper
    blocks: int = 1  # residual blocks at each place
    levels: int = 4  # halvings inside an hourglass
    stem: tuple[int, int, int] = (128, 256, 256)  # block, pooling, two blocks
    repair: Mapping[str, Any] | None = None  # fields of `EraseReconstruct`
    repair_all: bool = False  # the features of every stack, not of the last alone
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> list[Stack]:
        """Maps normalised images [B, H, W, 3] to one Stack per hourglass, last best.

        Raises:
            ValueError: a side of the image is no multiple of 4 * 2^levels.
        """
        least = 4 * 2**self.levels
        if image.shape[1] % least or image.shape[2] % least:
            raise ValueError(
                f"image: sides must be multiples of {least}, got {image.shape[1:3]}."
            )
        x = self._stem(image.astype(self.dtype), train=train)
        features, wide = x.shape[-1], np.promote_types(self.dtype, np.float32)
        outputs = []
        for s in range(self.stacks):
            y = self._hourglass(x, s, self.levels, train=train)
            y = self._residuals(y, features, f"stack{s}_res", train=train)
            y = self._conv(features, f"stack{s}_fc")(y)
            y = self._norm_relu(y, f"stack{s}_bn", train=train)
            repaired = self._repaired(y, s, train=train)
            y = y if repaired is None else repaired.features
            maps = _conv(self.joints, 1, 1, wide, f"stack{s}_score")(y)
            outputs.append(Stack(y, maps, repaired))
            if s + 1 < self.stacks:
                x = x + self._conv(features, f"stack{s}_merge_features")(y)
                x = x + self._conv(features, f"stack{s}_merge_heatmaps")(maps)
        return outputs

    def _repaired(self, x: Array, stack: int, *, train: bool) -> Repaired | None:
        """The repaired features of a stack, if they are to be."""
        if self.repair is None or not (self.repair_all or stack + 1 == self.stacks):
            return None
        name = f"stack{stack}_repair"
        fields = {"read": 0, **self.repair}  # they have their width already
        repair = EraseReconstruct(self.joints, **fields, dtype=self.dtype, name=name)
        return repair(x, train=train)

    def _stem(self, x: Array, *, train: bool) -> Array:
        """[B, H, W, 3] -> [B, H / 4, W / 4, stem[-1]]."""
        x = self._conv(self.stem[0] // 2, "stem_conv", 7, 2)(x)
        x = self._norm_relu(x, "stem_bn", train=train)
        for i, features in enumerate(self.stem):
            x = Residual(features, dtype=self.dtype, name=f"stem{i}")(x, train=train)
            x = max_pool(x, 2) if i == 0 else x
        return x

    def _hourglass(self, x: Array, stack: int, level: int, *, train: bool) -> Array:
        """Residual blocks at this size, plus what half the size has to say."""
        place = f"stack{stack}_level{level}"
        features = x.shape[-1]
        skip = self._residuals(x, features, f"{place}_skip", train=train)
        y = self._residuals(max_pool(x, 2), features, f"{place}_down", train=train)
        if level > 1:
            y = self._hourglass(y, stack, level - 1, train=train)
        else:
            y = self._residuals(y, features, f"{place}_middle", train=train)
        y = self._residuals(y, features, f"{place}_up", train=train)
        return skip + upsample_nearest(y, 2)

    def _residuals(self, x: Array, features: int, name: str, *, train: bool) -> Array:
        for i in range(self.blocks):
            block = Residual(features, dtype=self.dtype, name=f"{name}{i}")
            x = block(x, train=train)
        return x

    def _conv(
        self, features: int, name: str, kernel: int = 1, stride: int = 1
    ) -> nn.Conv:
        return _conv(features, kernel, stride, self.dtype, name)

    def _norm_relu(self, x: Array, name: str, *, train: bool) -> Array:
        return nn.relu(BatchNorm(dtype=self.dtype, name=name)(x, train=train))


class Residual(nn.Module):
    """Bottleneck whose batch norms come first (He et al., ECCV 2016), with biases."""

    features: int  # channels of the output, twice those inside
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [B, H, W, C] to [B, H, W, features]; 1x1 shortcut if C differs."""
        inner = self.features // 2
        y = x
        for i, (features, kernel) in enumerate(
            ((inner, 1), (inner, 3), (self.features, 1)), start=1
        ):
            y = nn.relu(BatchNorm(dtype=self.dtype, name=f"bn{i}")(y, train=train))
            y = _conv(features, kernel, 1, self.dtype, f"conv{i}")(y)
        if x.shape[-1] != self.features:
            x = _conv(self.features, 1, 1, self.dtype, "skip")(x)
        return x + y


def _conv(features: int, kernel: int, stride: int, dtype: Any, name: str) -> nn.Conv:
    return conv(
        features,
        kernel,
        stride,
        dtype=dtype,
        use_bias=True,
        kernel_init=TORCH_UNIFORM,
        name=name,
    )


def _residual_names(torch: str, flax: str, conv: str = "") -> tuple[Row, ...]:
    """Rows of a residual block: patterns of its names and our path.

    princeton-vl's code wraps each convolution: `conv` follows its name there.
    """
    group = rf"\{1 + torch.count('(')}"  # those of `torch` come first
    return (
        (torch + r"\.bn(\d)", f"{flax}/bn{group}", "norm"),
        (torch + r"\.conv(\d)" + conv, f"{flax}/conv{group}", "conv"),
    )


# Names of pytorch-pose; see torch_names.py. Its levels count from the innermost, 0.
_PLACES = {0: "skip", 1: "down", 2: "up", 3: "middle"}
TORCH_NAMES = (
    ("conv1", "stem_conv", "conv"),
    ("bn1", "stem_bn", "norm"),
    *(
        row
        for i in range(3)
        for row in (
            *_residual_names(rf"layer{i + 1}\.0", f"stem{i}"),
            (rf"layer{i + 1}\.0\.downsample\.0", f"stem{i}/skip", "conv"),
        )
    ),
    *(
        row
        for level in range(4)
        for place, name in _PLACES.items()
        for row in _residual_names(
            rf"hg\.(\d)\.hg\.{level}\.{place}\.(\d)",
            rf"stack\1_level{level + 1}_{name}\2",
        )
    ),
    *_residual_names(r"res\.(\d)\.(\d)", r"stack\1_res\2"),
    (r"fc\.(\d)\.0", r"stack\1_fc", "conv"),
    (r"fc\.(\d)\.1", r"stack\1_bn", "norm"),
    (r"score\.(\d)", r"stack\1_score", "conv"),
    (r"fc_\.(\d)", r"stack\1_merge_features", "conv"),
    (r"score_\.(\d)", r"stack\1_merge_heatmaps", "conv"),
)


def _wrapped_names(torch: str, flax: str) -> tuple[Row, ...]:
    return _residual_names(torch, flax, conv=r"\.conv")


def _princeton_level(level: int) -> tuple[Row, ...]:
    """The outermost level of four has no `low2` before its names, the next has one."""
    before = r"hgs\.(\d)\.0" + r"\.low2" * (4 - level)
    places = {"up1": "skip", "low1": "down", "low3": "up"}
    if level == 1:
        places["low2"] = "middle"
    return tuple(
        row
        for theirs, ours in places.items()
        for row in _wrapped_names(
            rf"{before}\.{theirs}", rf"stack\1_level{level}_{ours}0"
        )
    )


# Names of pytorch_stacked_hourglass. It has a shortcut convolution in every block and
# uses those that change the width.
PRINCETON_NAMES = (
    (r"pre\.0\.conv", "stem_conv", "conv"),
    (r"pre\.0\.bn", "stem_bn", "norm"),
    *_wrapped_names(r"pre\.1", "stem0"),
    *_wrapped_names(r"pre\.3", "stem1"),
    *_wrapped_names(r"pre\.4", "stem2"),
    (r"pre\.1\.skip_layer\.conv", "stem0/skip", "conv"),
    (r"pre\.4\.skip_layer\.conv", "stem2/skip", "conv"),
    (r".*\.skip_layer\.conv\..*", "", "drop"),
    *(row for level in range(1, 5) for row in _princeton_level(level)),
    *_wrapped_names(r"features\.(\d)\.0", r"stack\1_res0"),
    (r"features\.(\d)\.1\.conv", r"stack\1_fc", "conv"),
    (r"features\.(\d)\.1\.bn", r"stack\1_bn", "norm"),
    (r"outs\.(\d)\.conv", r"stack\1_score", "conv"),
    (r"merge_features\.(\d)\.conv\.conv", r"stack\1_merge_features", "conv"),
    (r"merge_preds\.(\d)\.conv\.conv", r"stack\1_merge_heatmaps", "conv"),
)
