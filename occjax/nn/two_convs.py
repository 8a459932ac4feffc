"""The least network of OAKS's Table 5 (Zhao et al. 2020): two convolutions."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from occjax.nn.blocks import ConvBN
from occjax.types import Array


class Backbone(nn.Module):
    """Convolutions of stride 2; the paper tells neither their widths nor strides."""

    widths: tuple[int, ...] = (64, 128)
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [B, H, W, C] to [B, H / 4, W / 4, widths[-1]]."""
        for i, width in enumerate(self.widths, start=1):
            layer = ConvBN(width, 3, 2, dtype=self.dtype, name=f"conv{i}")
            x = layer(x, train=train)
        return x
