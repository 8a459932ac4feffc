"""Start values taken from another run: `config.init_from = "RUN[:PATTERN]"`.

RUN is the folder of a run. With a PATTERN only variables whose path contains it are
taken, for instance runs/hrnet:^trunk/ for the backbone alone.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp

from occjax.errors import UserError
from occjax.runtime import optim
from occjax.runtime.checkpoint import Checkpoints
from occjax.runtime.mesh import Layout
from occjax.runtime.step import TrainState


def start_from(state: TrainState, source: str, layout: Layout) -> TrainState:
    """A fresh state with the variables of another run's last checkpoint.

    Every variable of the run that the pattern matches must have its place.

    Args:
        state: from `step.init_state`.
        source: RUN or RUN:PATTERN; "" leaves the state as it is.
        layout: where to put the values.

    Raises:
        UserError: no such run, nothing matches, or names or shapes differ.
    """
    if not source:
        return state
    run, pattern = _split(source)
    with Checkpoints(run, read_only=True) as checkpoints:
        if checkpoints.latest is None:
            raise UserError(f"config.init_from: {run} has no checkpoint yet.")
        given = checkpoints.variables(checkpoints.latest, layout.replicated)
    ours = {"params": state.params, "batch_stats": state.batch_stats}
    filled = fill(ours, given, pattern, source)
    average = None
    if state.ema is not None:  # a copy, as both are donated to the step
        average = jax.tree.map(jnp.copy, filled["params"])
    return state.replace(**filled, ema=average)


def fill(ours: Any, given: Any, pattern: str, source: str) -> Any:
    """The variables `ours`, replaced by those `given` whose path has the pattern.

    Raises:
        UserError: nothing matches, or what matches has no place of its shape.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(ours)
    values = {path: value for path, value in leaves}
    problems, taken = [], 0
    for path, value in jax.tree_util.tree_leaves_with_path(given):
        name = optim.path_name(path[1:])  # without "params" or "batch_stats"
        if not re.search(pattern, name):
            continue
        taken += 1
        if path not in values:
            problems.append(f"{name} has no place in this model")
        elif values[path].shape != value.shape:
            problems.append(f"{name} is {value.shape}, here {values[path].shape}")
        values[path] = value
    if problems or not taken:
        problems = problems or ["nothing matches"]
        raise UserError(
            f"config.init_from: {source}: {len(problems)} variables do not fit: "
            f"{'; '.join(problems[:3])}{'; ...' if len(problems) > 3 else ''}."
        )
    return structure.unflatten([values[path] for path, _ in leaves])


def _split(source: str) -> tuple[str, str]:
    """RUN and PATTERN; the colon of gs:// parts nothing."""
    run, colon, pattern = source.rpartition(":")
    if not colon or pattern.startswith("//"):
        return source, ""
    return run, pattern
