"""Gradient of the loss of a batch: whole, in groups that batch norm sees, or in parts.

All three reduce a term as sum(values * weights) / sum(weights) over the global batch.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from occjax.errors import UserError
from occjax.runtime import config as configs
from occjax.runtime.mesh import Layout
from occjax.runtime.metrics import Mean, mean_of, single
from occjax.types import Array, Batch

Terms = Mapping[str, tuple[Array, Array]]  # values and weights by name
# (parameters, batch statistics, random key, batch) -> terms and new statistics
TermsOf = Callable[[Any, Any, Array, Batch], tuple[Terms, Any]]
# The same -> gradient, metrics and new statistics
Gradient = Callable[[Any, Any, Array, Batch], tuple[Any, dict[str, Mean], Any]]


def make(config: ConfigDict, terms: TermsOf) -> Gradient:
    """The gradient that `config.loss`, `accumulate` and `norm_group` ask for."""
    size = configs.computing(config, "norm_group")
    parts = configs.computing(config, "accumulate")
    weights = config.loss.to_dict()
    if size:
        terms = by_groups(terms, size)
    return accumulated(terms, weights, parts) if parts > 1 else whole(terms, weights)


def check_batch(config: ConfigDict, layout: Layout) -> None:
    """Refuses a batch that devices, parts or groups cannot share evenly.

    Args:
        config: uses `batch_size`, `accumulate` and `norm_group`.
        layout: over which batches are split.

    Raises:
        UserError: naming the key, and what would do.
    """
    size, devices = config.batch_size, layout.mesh.size
    layout.check_batch_size(size)
    parts, group = (configs.computing(config, x) for x in ("accumulate", "norm_group"))
    if parts < 1 or size % (parts * devices):
        raise UserError(
            f"config.accumulate: expected a number of parts >= 1 that {devices} "
            f"devices can share evenly of {size} images, got {parts}."
        )
    if group < 0 or (group and (size // parts) % group):
        raise UserError(
            f"config.norm_group: expected a divisor of the {size // parts} images of a "
            f"step{' part' * (parts > 1)}, or 0, got {group}."
        )


def total_loss(
    terms: Terms, weights: Mapping[str, float]
) -> tuple[jax.Array, dict[str, Mean]]:
    """Weighted sum of the reduced terms, and the terms (and "loss") as metrics.

    Raises:
        UserError: `config.loss` does not name exactly the terms of the method; those
            that it weighs by 0 may be missing.
    """
    wanted = {name for name in weights if weights[name] or name in terms}
    if set(terms) != wanted:
        raise UserError(
            f"config.loss: it weighs {', '.join(sorted(weights)) or 'nothing'}, but "
            f"the method's terms are {', '.join(sorted(terms))}."
        )
    return _summed({name: mean_of(*terms[name]) for name in terms}, weights)


def whole(terms: TermsOf, weights: Mapping[str, float]) -> Gradient:
    """Gradient of a batch at once."""

    def loss(params: Any, stats: Any, key: Array, batch: Batch) -> tuple[Array, Any]:
        found, stats = terms(params, stats, key, batch)
        value, metrics = total_loss(found, weights)
        return value, (metrics, stats)

    def gradient(
        params: Any, stats: Any, key: Array, batch: Batch
    ) -> tuple[Any, dict[str, Mean], Any]:
        grads, (metrics, stats) = jax.grad(loss, has_aux=True)(
            params, stats, key, batch
        )
        return grads, metrics, stats

    return gradient


def by_groups(terms: TermsOf, size: int) -> TermsOf:
    """Ghost batch norm: each `size` consecutive images as if they were the batch.

    So does a framework whose GPUs share gradients alone. Every layer that looks across
    the batch sees its group, whichever module it is in. Running statistics move by the
    mean over the groups.
    """

    def grouped(params: Any, stats: Any, key: Array, batch: Batch) -> tuple[Terms, Any]:
        groups = jax.tree.leaves(batch)[0].shape[0] // size
        if groups == 1:
            return terms(params, stats, key, batch)
        batch = jax.tree.map(lambda x: x.reshape(groups, size, *x.shape[1:]), batch)
        keys = jax.random.split(key, groups)
        each = jax.vmap(terms, in_axes=(None, None, 0, 0))
        found, new = each(params, stats, keys, batch)  # values [groups, ...]
        # As differences: what no group moved then stays as it is, to the bit.
        stats = jax.tree.map(
            lambda old, x: old + jnp.mean(x - old[None], axis=0), stats, new
        )
        return found, stats

    return grouped


def accumulated(terms: TermsOf, weights: Mapping[str, float], parts: int) -> Gradient:
    """Gradient of a batch in `parts`, one after the other, for the memory of one.

    It is that of the whole batch, not the mean of the parts' own: a part with fewer
    labels would weigh too much in that. So the weights of the terms are summed over the
    parts beforehand; what these do not depend on, usually the whole network, the
    compiler leaves out there. They carry no gradient. Batch norm sees one part at a
    time, and its running statistics move as often.
    """

    def gradient(
        params: Any, stats: Any, key: Array, batch: Batch
    ) -> tuple[Any, dict[str, Mean], Any]:
        split = jax.random.split(key, parts), _interleaved(batch, parts)

        def weigh(part: tuple[Array, Batch]) -> dict[str, Array]:
            found, _ = terms(params, stats, *part)
            total_loss(found, weights)  # are the names right?
            return {name: jnp.sum(found[name][1]) for name in found}

        sums = _added(jax.lax.map(weigh, split))

        def share(params: Any, stats: Any, key: Array, part: Batch) -> Any:
            found, stats = terms(params, stats, key, part)
            means = {name: mean_of(*found[name]) for name in found}
            shared = {name: Mean(means[name].total, sums[name]) for name in means}
            return _summed(shared, weights)[0], (means, stats)

        def step(carry: Any, part: tuple[Array, Batch]) -> tuple[Any, Any]:
            grads, stats = carry
            more, (means, stats) = jax.grad(share, has_aux=True)(params, stats, *part)
            return (jax.tree.map(jnp.add, grads, more), stats), means

        start = jax.tree.map(jnp.zeros_like, params), stats
        (grads, stats), means = jax.lax.scan(step, start, split)
        return grads, _summed(_added(means), weights)[1], stats

    return gradient


def _summed(
    means: Mapping[str, Mean], weights: Mapping[str, float]
) -> tuple[jax.Array, dict[str, Mean]]:
    """Weighted sum of terms, and the terms with "loss" beside them."""
    values = [weights[name] * means[name].value for name in sorted(means)]
    loss = functools.reduce(jnp.add, values)
    return loss, {**means, "loss": single(loss)}


def _interleaved(batch: Batch, parts: int) -> Batch:
    """[B, ...] -> [parts, B / parts, ...]: every `parts`-th image goes to one part.

    Each device then has its share of each part, and none of its images move.
    """
    return jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), batch
    )


def _added(parts: Any) -> Any:
    """Sum of each array over its first axis."""
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), parts)
