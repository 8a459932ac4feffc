"""Optimisers and learning rate schedules from `config.optim`.

    optim = dict(name="adam", lr=1e-3, schedule=dict(name="cosine", warmup=100), ...)

Besides `name`, `lr`, `schedule`, `clip` and `ema`, every key is an argument of the
optax optimiser of that name; every key of `schedule` is an argument of the function
here. A key that nobody takes is refused.
"""

import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from occjax.errors import UserError

OPTIMIZERS = {
    "adam": optax.adam,  # betas 0.9 and 0.999, eps 1e-8, no weight decay
    "adamw": optax.adamw,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
}


def constant(lr: float, steps: int) -> optax.Schedule:
    """The same learning rate for all steps."""
    del steps
    return optax.constant_schedule(lr)


def milestones(
    lr: float, steps: int, at: tuple[int, ...], factor: float = 0.1
) -> optax.Schedule:
    """Multiplies the learning rate by `factor` at each step of `at`."""
    if any(not 0 < step < steps for step in at):
        raise ValueError(f"at={at} must lie between 0 and the {steps} steps of the run")

    def rate(step: Any) -> jax.Array:
        # A power, as XLA would copy cheaper formulas into the update of every kernel.
        passed = jnp.sum(step >= jnp.asarray(at), dtype=jnp.float32)
        return jnp.asarray(lr) * jnp.power(factor, passed)

    return rate


def cosine(lr: float, steps: int, warmup: int = 0, end: float = 0.0) -> optax.Schedule:
    """Rises linearly for `warmup` steps, then falls to `end` * lr along a cosine."""
    _check_warmup(warmup, steps)
    return optax.warmup_cosine_decay_schedule(0.0, lr, warmup, steps, end * lr)


def floored_cosine(
    lr: float, steps: int, warmup: int = 0, end: float = 0.0
) -> optax.Schedule:
    """A cosine from lr to 0 over all steps, cut off below `end` * lr: OPEC-Net's.

    The first `warmup` steps rise linearly from `end` * lr to where the cosine then is,
    so lr itself is never reached.
    """
    _check_warmup(warmup, steps)

    def fall(step: Any) -> jax.Array:
        share = jnp.asarray(step, jnp.float32) / steps
        return lr * jnp.maximum((1 + jnp.cos(jnp.pi * share)) / 2, end)

    rise = optax.linear_schedule(end * lr, float(fall(warmup)), warmup)

    def rate(step: Any) -> jax.Array:
        return jnp.where(step < warmup, rise(step), fall(step))

    return rate


SCHEDULES = {
    "constant": constant,
    "steps": milestones,
    "cosine": cosine,
    "floored_cosine": floored_cosine,
}


def schedule(optim: Mapping[str, Any], steps: int) -> optax.Schedule:
    """Learning rate of each step (from 0) by `optim.schedule` and `optim.lr`.

    Raises:
        UserError: an unknown schedule, or a key or value that it does not take.
    """
    options = dict(optim["schedule"])
    make = _choose("optim.schedule.name", SCHEDULES, options.pop("name"))
    return _call("optim.schedule", make, optim["lr"], steps, **options)


def optimizer(
    optim: Mapping[str, Any], steps: int, trainable: Any, flat: bool = True
) -> optax.GradientTransformation:
    """Gradient -> update, with clipping first; what is not trainable stays as it is.

    Args:
        optim: `config.optim`.
        steps: length of the run.
        trainable: pytree of bool shaped like the parameters; see `trainable_mask`.
        flat: keep moments as vectors of all parameters; else like the parameters, so
            that they can be split as those are.

    Raises:
        UserError: an unknown optimiser, or a key or value that it does not take.
    """
    options = {
        key: value
        for key, value in dict(optim).items()
        if key not in ("name", "lr", "schedule", "clip", "ema")
    }
    make = _choose("optim.name", OPTIMIZERS, optim["name"])
    transform = _call("optim", make, schedule(optim, steps), **options)
    if optim.get("clip", 0):
        clip = optax.clip_by_global_norm(optim["clip"])
        transform = optax.chain(clip, transform)
    labels = jax.tree.map(lambda learns: "learn" if learns else "keep", trainable)
    # All parameters as one vector: an update each would be a kernel each, 957 times
    # over in HRNet-W32, and compiling or loading them takes longer than the rest.
    transform = _promoting(transform)
    parts: dict[Hashable, Any] = {
        "learn": optax.flatten(transform) if flat else transform,
        "keep": optax.set_to_zero(),
    }
    return optax.partition(parts, labels)


def regrouped(state: Any, like: Any) -> Any:
    """The state of an optimiser with `flat` for one without, or the other way round.

    Both hold the same numbers in the same order, one vector for the arrays of a tree.

    Args:
        state: arrays that every device holds all of.
        like: arrays of the wanted shapes, on the wanted devices.
    """
    found: dict[Any, list[np.ndarray]] = {}
    for leaf in jax.tree.leaves(state):
        values = np.asarray(leaf.addressable_data(0)).reshape(-1)
        found.setdefault(leaf.dtype, []).append(values)
    left = {dtype: np.concatenate(vectors) for dtype, vectors in found.items()}

    def take(x: jax.Array) -> jax.Array:
        values, left[x.dtype] = np.split(left[x.dtype], [x.size])
        values = values.reshape(x.shape)
        return jax.make_array_from_callback(x.shape, x.sharding, lambda at: values[at])

    return jax.tree.map(take, like)


def trainable_mask(params: Any, pattern: str) -> Any:
    """True for every parameter that `config.trainable` lets learn; empty means all.

    Raises:
        UserError: no parameter matches, or the pattern is no regular expression.
    """
    mask = matches(params, pattern)
    if not any(jax.tree.leaves(mask)):
        raise UserError(
            f"config.trainable: {pattern!r} matches no parameter; "
            f"they start with {', '.join(sorted(params))}."
        )
    return mask


def matches(tree: Any, pattern: str) -> Any:
    """Pytree of bool: whether the path of a leaf, such as "pr/adj", has the pattern.

    Raises:
        UserError: the pattern is no regular expression.
    """
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise UserError(f"config.trainable: {pattern!r}: {error}.") from error
    return jax.tree_util.tree_map_with_path(
        lambda path, _: search(path_name(path)) is not None, tree
    )


def path_name(path: tuple[Any, ...]) -> str:
    """Path of a leaf as text: a/b/c."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def ema_update(average: Any, params: Any, decay: float, step: jax.Array) -> Any:
    """Moving average of the parameters, with less memory in the first steps.

    The decay at step t is min(decay, (1 + t) / (10 + t)), so that the random start is
    soon forgotten (Abadi et al., tf.train.ExponentialMovingAverage).
    """
    count = step.astype(jnp.float32)
    keep = jnp.minimum(decay, (1 + count) / (10 + count))
    return jax.tree.map(
        lambda old, new: old + (1 - keep) * (new - old), average, params
    )


def _promoting(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Allows optax to mix floats and its int32 step count, under strict promotion."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


def _check_warmup(warmup: int, steps: int) -> None:
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup={warmup} must be below the {steps} steps of the run")


def _choose(key: str, choices: Mapping[str, Any], name: str) -> Any:
    if name not in choices:
        raise UserError(f"config.{key}: {name!r} is none of {', '.join(choices)}.")
    return choices[name]


def _call(key: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        return function(*args, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"config.{key}: {error}.") from error
