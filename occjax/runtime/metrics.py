"""Weighted means that merge exactly over devices, steps and padded batches."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from occjax.errors import UserError
from occjax.types import Array


class Mean(NamedTuple):
    """A weighted mean as the pair that merges by addition."""

    total: Array  # sum of value * weight
    weight: Array  # sum of weight

    @property
    def value(self) -> Array:
        """The mean, total / max(weight, 1): 0 where nothing carries weight."""
        return self.total / jnp.maximum(self.weight, 1)

    def merge(self, other: "Mean") -> "Mean":
        """Mean over both sets of values."""
        return Mean(self.total + other.total, self.weight + other.weight)


def mean_of(values: jax.Array, weights: jax.Array) -> Mean:
    """Reduces unreduced losses of any one shape over the global batch.

    Raises:
        ValueError: values and weights differ in shape.
    """
    if values.shape != weights.shape:
        raise ValueError(
            "a loss needs values and weights of one shape; "
            f"got {values.shape} and {weights.shape}."
        )
    return Mean(jnp.sum(values * weights), jnp.sum(weights))


def single(value: Any) -> Mean:
    """One value with weight 1, so that steps are averaged."""
    value = jnp.asarray(value)
    return Mean(value, jnp.ones_like(value))


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum of values * weights over max(sum of weights, 1)."""
    return mean_of(values, weights).value


def merge(sums: Mapping[str, Mean] | None, more: Mapping[str, Mean]) -> dict[str, Mean]:
    """Adds the metrics of one more step on the host, in float64."""
    wide = {name: Mean(*map(np.float64, mean)) for name, mean in more.items()}
    if sums is None:
        return wide
    return {name: sums[name].merge(mean) for name, mean in wide.items()}


def check_finite(
    step: int, metrics: Mapping[str, Mean], last_good: Callable[[], str]
) -> None:
    """Stops a run whose figures are no longer numbers.

    Args:
        step: the step they belong to, counted from 1.
        metrics: of that step, on the host.
        last_good: says where to go on from.

    Raises:
        UserError: naming the step, every culprit and the last good checkpoint.
    """
    bad = [name for name, mean in metrics.items() if not np.all(np.isfinite(mean))]
    # The total only repeats what its terms say, unless it alone overflowed.
    culprits = [name for name in bad if name not in ("loss", "gradient_norm")] or bad
    if culprits:
        values = ", ".join(f"{name} = {metrics[name].value}" for name in culprits)
        raise UserError(
            f"step {step}: {values} is not finite; last good checkpoint: {last_good()}."
        )
