"""Dense layers that start as torch's do."""

from typing import Any

import jax
import jax.numpy as jnp
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
