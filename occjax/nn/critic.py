"""The convolution through which OASNet's mimicry looks at features."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from occjax.nn.blocks import TORCH_UNIFORM, conv
from occjax.types import Array


class Critic(nn.Module):
    """One convolution that halves the size (OASNet, section 3.3), for training alone.

    The paper gives neither its kernel nor its stride: 3 and 2, with a bias.
    """

    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, H / 2, W / 2, C]."""
        half = conv(
            x.shape[-1],
            3,
            2,
            use_bias=True,
            kernel_init=TORCH_UNIFORM,
            dtype=self.dtype,
            name="conv",
        )
        return half(x)
