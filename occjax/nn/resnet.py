"""Residual networks (He et al., CVPR 2016) as torchvision builds them."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from occjax.nn.blocks import BasicBlock, Bottleneck, ConvBN
from occjax.nn.resize import max_pool
from occjax.types import Array

# What torchvision starts from, and learns faster from than from HRNet's tiny kernels.
_KAIMING = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
BLOCKS = {  # depth -> residual blocks of the four stages
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class Backbone(nn.Module):
    """ResNet without its classifier: basic blocks up to depth 34, then bottlenecks.

    Stage s (1..4) has stride 2 * 2^s and width * 2^(s - 1) channels, four times as
    many with bottlenecks.
    """

    depth: int = 50  # 18, 34, 50, 101 or 152
    width: int = 64  # channels of the stem and inside the first stage
    excite: bool = False  # squeeze and excitation in each stage's first bottleneck
    caffe: bool = False  # bottlenecks have their stride in the first convolution
    dtype: Any = jnp.float32  # computation only

    def __call__(self, image: Array, *, train: bool) -> Array:
        """Maps images [B, H, W, 3] to features [B, H / 32, W / 32, C].

        C is 8 * width, or 32 * width with bottlenecks.

        Raises:
            ValueError: the depth is unknown, or a field needs bottlenecks.
        """
        return self.stages(image, train=train)[-1]

    @nn.compact
    def stages(self, image: Array, *, train: bool) -> list[Array]:
        """Maps images [B, H, W, 3] to the outputs of the four stages, finest first.

        Also known as C2 to C5: strides 4, 8, 16 and 32.

        Raises:
            ValueError: the depth is unknown, or a field needs bottlenecks.
        """
        if self.depth not in BLOCKS:
            raise ValueError(f"depth: expected one of {(*BLOCKS,)}, got {self.depth}.")
        if self.depth < 50 and (self.excite or self.caffe):
            raise ValueError(f"depth {self.depth} has no bottlenecks to change.")
        x = image.astype(self.dtype)
        stem = ConvBN(
            *(self.width, 7, 2), dtype=self.dtype, kernel_init=_KAIMING, name="stem"
        )
        x = stem(x, train=train)
        x = max_pool(x, 3, pad=1)
        outputs = []
        for stage, blocks in enumerate(BLOCKS[self.depth], start=1):
            for i in range(blocks):
                x = self._block(stage, i)(x, train=train)
            outputs.append(x)
        return outputs

    def _block(self, stage: int, i: int) -> nn.Module:
        """Block i of a stage; the first one halves the map, but not in stage 1."""
        features = self.width * 2 ** (stage - 1)
        stride = 2 if stage > 1 and i == 0 else 1
        name = f"layer{stage}_{i}"
        if self.depth < 50:
            return BasicBlock(features, stride, self.dtype, _KAIMING, name=name)
        return Bottleneck(
            4 * features,
            stride,
            self.dtype,
            kernel_init=_KAIMING,
            caffe=self.caffe,
            excite=self.excite and i == 0,
            name=name,
        )


# Names of torchvision, shared by SimpleBaseline, CPN and FastPose; see torch_names.py.
TORCH_NAMES = (
    ("conv1", "stem/conv", "conv"),
    ("bn1", "stem/bn", "norm"),
    (r"layer(\d)\.(\d+)\.conv(\d)", r"layer\1_\2/conv\3/conv", "conv"),
    (r"layer(\d)\.(\d+)\.bn(\d)", r"layer\1_\2/conv\3/bn", "norm"),
    (r"layer(\d)\.(\d+)\.downsample\.0", r"layer\1_\2/downsample/conv", "conv"),
    (r"layer(\d)\.(\d+)\.downsample\.1", r"layer\1_\2/downsample/bn", "norm"),
    (r"layer(\d)\.(\d+)\.se\.fc\.0", r"layer\1_\2/excite/fc1", "linear"),
    (r"layer(\d)\.(\d+)\.se\.fc\.2", r"layer\1_\2/excite/fc2", "linear"),
)
# The ImageNet file has a classifier that poses have no use for.
IMAGENET_NAMES = (*TORCH_NAMES, (r"fc\.(weight|bias)", "", "drop"))
