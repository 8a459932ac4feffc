"""Dense layers: one that starts as torch's does, and a stack of three."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.types import Array


def symmetric_uniform(bound: float) -> nn.initializers.Initializer:
    """Initial values uniform in -bound .. bound."""

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        values = jax.random.uniform(key, shape, dtype, -bound, bound)
        return values if out_sharding is None else jax.device_put(values, out_sharding)

    return init


def torch_dense(features: int, x: Array, dtype: Any, name: str) -> Array:
    """A dense layer [..., C] -> [..., features] with torch's default start.

    Kernel and bias are uniform in +-1 / sqrt(fan in).
    """
    spread = symmetric_uniform(x.shape[-1] ** -0.5)
    return nn.Dense(
        features, dtype=dtype, kernel_init=spread, bias_init=spread, name=name
    )(x)


class Perceptron(nn.Module):
    """Two hidden layers with ReLU; the last one is in float32 or wider."""

    hidden: int
    outputs: int
    dtype: Any = jnp.float32  # computation of the hidden layers

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, C] to [B, outputs]."""
        start = nn.initializers.he_normal()
        for i in (1, 2):
            name = f"hidden{i}"
            layer = nn.Dense(
                self.hidden, dtype=self.dtype, kernel_init=start, name=name
            )
            x = nn.relu(layer(x))
        wide = np.promote_types(self.dtype, np.float32)
        return nn.Dense(self.outputs, dtype=wide, name="last")(x)
