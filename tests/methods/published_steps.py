"""Five steps of Adam in float64, as those of the published code that are stored."""

from typing import Any, NamedTuple

import jax
import numpy as np
import optax


class Trajectory(NamedTuple):
    training: Any  # what was trained
    rows: list[list[float]]  # losses before each update and after the last
    grad: Any  # of the first step
    outputs: Any  # of the first step
    stats: Any  # after the first step
    after_one: Any  # parameters
    after_all: Any  # parameters


def five_steps(training) -> Trajectory:
    """Trains from `training.variables` by the gradient of `training.loss`.

    `loss(params, stats)` gives the total, and (terms, outputs, new statistics).
    """
    params, stats = (training.variables[k] for k in ("params", "batch_stats"))
    adam = optax.adam(1e-3)
    update = jax.jit(adam.update)
    state, rows, first = adam.init(params), [], {}
    for step in range(6):
        (total, (terms, outputs, stats)), grad = jax.value_and_grad(
            training.loss, has_aux=True
        )(params, stats)
        rows.append([float(total), *map(float, terms.values())])
        if step == 5:
            break
        updates, state = update(grad, state)
        params = optax.apply_updates(params, updates)
        if step == 0:
            first = {"grad": grad, "outputs": outputs, "stats": stats}
            first = jax.tree.map(np.asarray, first | {"after_one": params})
    return Trajectory(
        training, rows, after_all=jax.tree.map(np.asarray, params), **first
    )


def by_name(names, tree) -> dict:
    """Torch name -> array in Flax's layout; `names` has the form of the tree."""
    return dict(zip(jax.tree.leaves(names), jax.tree.leaves(tree), strict=True))


def lengths(arrays) -> dict:
    """The L2 norm of each array."""
    return {name: np.linalg.norm(np.ravel(x)) for name, x in arrays.items()}
