"""VGG with batch norm (Simonyan and Zisserman, ICLR 2015) as torchvision builds it."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from occjax.nn.blocks import ConvBN
from occjax.types import Array

_CONVOLUTIONS = {  # depth -> convolutions before each of the five poolings
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


class Backbone(nn.Module):
    """The convolutions; the depth counts the three layers of the classifier too."""

    depth: int = 19  # 11, 13, 16 or 19
    width: int = 64  # channels of the first convolutions
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [B, H, W, C] to [B, H / 32, W / 32, 8 * width], sizes rounded up.

        Raises:
            ValueError: the depth is unknown.
        """
        if self.depth not in _CONVOLUTIONS:
            known = (*_CONVOLUTIONS,)
            raise ValueError(f"depth: expected one of {known}, got {self.depth}.")
        for stage, count in enumerate(_CONVOLUTIONS[self.depth], start=1):
            width = self.width * min(2 ** (stage - 1), 8)
            for i in range(1, count + 1):
                layer = ConvBN(width, dtype=self.dtype, name=f"conv{stage}_{i}")
                x = layer(x, train=train)
            x = nn.max_pool(x, (2, 2), (2, 2), padding="SAME")
        return x
