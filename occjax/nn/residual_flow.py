"""Residual log-likelihood estimation (RLE; Li et al., ICCV 2021): a loss of poses.

A pose is told as a mean and a deviation of each coordinate. How true joints scatter
around it is the product of a simple density and of what a small flow learns.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.types import Array

LEAST_DEVIATION = 1e-3  # keeps the residuals of sure and wrong poses finite
_LOG_AMPLITUDE = -0.5 * math.log(2 * math.pi)


def deviation(logits: Array) -> Array:
    """Deviations between `LEAST_DEVIATION` and 1, float32 or wider, of any logits.

    The published code has a plain sigmoid, whose logarithm is infinite for low logits.
    """
    wide = logits.astype(np.promote_types(logits.dtype, np.float32))
    return LEAST_DEVIATION + (1 - LEAST_DEVIATION) * jax.nn.sigmoid(wide)


def loss(
    log_density: Callable[[Array], Array], mean: Array, spread: Array, truth: Array
) -> Array:
    """The loss of RLE with a Laplace density (equation 8), summed over x and y.

    As in the published code the flow's density and log sigma count once for each
    coordinate, and the Laplace density is 1 / sqrt(2 pi) high.

    Args:
        log_density: of residuals [..., 2]: [...]; a `ResidualFlow`.
        mean: [..., 2].
        spread: [..., 2] deviations, above 0.
        truth: [..., 2].

    Returns:
        [...], float32 or wider.
    """
    wide = np.promote_types(mean.dtype, np.float32)
    mean, spread, truth = (x.astype(wide) for x in (mean, spread, truth))
    learnt = jnp.log(spread) - log_density((mean - truth) / spread)[..., None]
    away = jnp.abs(truth - mean) / (math.sqrt(2) * spread + 1e-9)
    simple = jnp.log(spread) - _LOG_AMPLITUDE + away
    return jnp.sum(learnt + simple, axis=-1)


class Coupling(nn.Module):
    """How one coordinate scales and shifts the other: three dense layers."""

    hidden: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Maps a coordinate [...] to log scale, within -1..1, and shift, both [...]."""
        x = x[..., None]
        for i in (1, 2):
            dense = nn.Dense(self.hidden, dtype=x.dtype, name=f"hidden{i}")
            x = nn.leaky_relu(dense(x))
        # close to 0, so that the flow starts as the normal distribution
        start = nn.initializers.normal(0.001)
        x = nn.Dense(2, dtype=x.dtype, kernel_init=start, name="last")(x)
        return jnp.tanh(x[..., 0]), x[..., 1]


class ResidualFlow(nn.Module):
    """RealNVP (Dinh et al., ICLR 2017) over the plane of (mean - truth) / sigma.

    The published flow has separate networks for scales and shifts; here each coupling
    has one with two outputs. It computes in float32 or wider.
    """

    couplings: int = 6
    hidden: int = 64

    def __call__(self, residual: Array) -> Array:
        """Log density [...] of residuals [..., 2]."""
        normal, log_det = self.to_normal(residual)
        square = jnp.sum(jnp.square(normal), axis=-1)
        return log_det - 0.5 * square + 2 * _LOG_AMPLITUDE

    @nn.compact
    def to_normal(self, residual: Array) -> tuple[Array, Array]:
        """Where residuals [..., 2] lie in a standard normal distribution.

        Returns:
            points [..., 2], and log |det| [...] of the map's derivative.
        """
        wide: Any = np.promote_types(residual.dtype, np.float32)
        pair = [residual[..., i].astype(wide) for i in (0, 1)]
        log_det = jnp.zeros_like(pair[0])
        for i in range(self.couplings):
            by, moved = i % 2, 1 - i % 2
            coupling = Coupling(self.hidden, name=f"coupling{i}")
            scale, shift = coupling(pair[by])
            pair[moved] = (pair[moved] - shift) * jnp.exp(-scale)
            log_det -= scale
        return jnp.stack(pair, axis=-1), log_det
