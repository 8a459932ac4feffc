"""A small feature pyramid: a backbone that two CPU cores can train."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from occjax.nn import blocks
from occjax.types import Array


class Patches(nn.Module):
    """Every size x size patch, flattened and mapped linearly; then batch norm and ReLU.

    The same function as a convolution whose stride is its size, as one matrix product.
    """

    features: int
    size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [B, H, W, C] to [B, H / size, W / size, features]."""
        batch, height, width, channels = x.shape
        s = self.size
        x = x.reshape(batch, height // s, s, width // s, s, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, height // s, width // s, s * s * channels)
        x = nn.Dense(self.features, use_bias=False, dtype=self.dtype)(x)
        return nn.relu(blocks.BatchNorm(dtype=self.dtype)(x, train=train))


class Backbone(nn.Module):
    """Feature pyramid (Lin et al. 2017) over residual stages at stride 4, 8, 16, ....

    Widths grow where the map is small, so most arithmetic is in wide convolutions and
    matrix products, which is what a CPU does best.
    """

    widths: tuple[int, ...] = (32, 64, 128)  # channels of each stage
    depths: tuple[int, ...] = (1, 2, 4)  # residual blocks of each stage
    features: int = 96  # channels of the output
    all_levels: bool = False  # give the maps of all levels, the coarsest first
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array | tuple[Array, ...]:
        """Maps normalised images [B, H, W, 3] to features [B, H / 4, W / 4, features].

        Raises:
            ValueError: height or width is no multiple of the coarsest stride.
        """
        stride = 4 * 2 ** (len(self.widths) - 1)
        if x.shape[1] % stride or x.shape[2] % stride:
            raise ValueError(
                f"pyramid needs a height and width that are multiples of {stride}; "
                f"got {x.shape[1]} x {x.shape[2]}."
            )
        x = x.astype(self.dtype)
        levels = []
        for stage, (width, depth) in enumerate(
            zip(self.widths, self.depths, strict=True)
        ):
            size = 4 if stage == 0 else 2
            x = Patches(width, size, self.dtype)(x, train=train)
            for _ in range(depth):
                x = blocks.BasicBlock(width, dtype=self.dtype)(x, train=train)
            levels.append(x)
        merged = self._merge(levels, train)
        return merged if self.all_levels else merged[-1]

    def _merge(self, levels: list[Array], train: bool) -> tuple[Array, ...]:
        """Adds the levels, coarse to fine, each brought up to the size of the next."""
        merged: list[Array] = []
        for x in reversed(levels):
            x = nn.Dense(self.features, dtype=self.dtype)(x)
            if merged:
                x = x + jax.image.resize(merged[-1], x.shape, "bilinear")
            merged.append(nn.relu(blocks.BatchNorm(dtype=self.dtype)(x, train=train)))
        return tuple(merged)
