"""Methods that are built on trained runs: their models, their data, their variables.

`config.base` names the run whose poses are judged, `config.labels` one that tells which
joints have labels, if the base does not. The config that is trained and saved has both
models in it, and the data as the base saw them, so the new run is complete: nothing is
read from the others any more once it has begun.
"""

from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from occjax.errors import UserError
from occjax.runtime import optim, trained
from occjax.runtime.checkpoint import Checkpoints
from occjax.runtime.mesh import Layout
from occjax.runtime.step import TrainState

RUNS = ("base", "labels")  # keys of the config, and fields of the model
_LOOKS = ("view", "size", "padding")  # settings of data that frozen networks share


def resolve(config: ConfigDict) -> ConfigDict:
    """The config with the models of the runs that it names, and the base's data.

    What the config says of data itself goes before.

    Raises:
        UserError: a run is not there, or the two see other crops.
    """
    runs = {key: config[key] for key in RUNS if config.get(key)}
    if not runs:
        return config
    found = {key: _config_of(key, run) for key, run in runs.items()}
    new = config.copy_and_resolve_references()
    with new.unlocked():
        for key, other in found.items():
            new.model[key] = ConfigDict({"method": other.method, **other.model})
        if "base" in found:
            new.data = ConfigDict(found["base"].data.to_dict())
            new.data.update(config.data)
    for key, other in found.items():
        for name in _LOOKS:
            mine, theirs = new.data.get(name), other.data.get(name)
            if mine != theirs:
                raise UserError(
                    f"config.{key}: {runs[key]} has data.{name} {theirs}, "
                    f"expected {mine}."
                )
    return new.lock()


def fill(state: TrainState, config: ConfigDict, layout: Layout) -> TrainState:
    """A fresh state with the variables of the runs that the config names.

    Args:
        state: from `step.init_state`.
        config: from `resolve`.
        layout: where to put the values.

    Raises:
        UserError: a run lacks a variable of its model, or has another shape of it.
    """
    runs = {key: config[key] for key in RUNS if config.get(key)}
    if not runs:
        return state
    given = {key: _variables(run, layout) for key, run in runs.items()}
    filled = {}
    for kind in ("params", "batch_stats"):
        ours = getattr(state, kind)

        def taken(path: Any, value: Any, learns: bool, kind: str = kind) -> Any:
            name = optim.path_name(path)
            return value if learns else _given(runs, given, kind, name, value)

        learns = optim.matches(ours, config.trainable)
        filled[kind] = jax.tree_util.tree_map_with_path(taken, ours, learns)
    average = None
    if state.ema is not None:  # a copy, as both are donated to the step
        average = jax.tree.map(jnp.copy, filled["params"])
    return state.replace(**filled, ema=average)


def _config_of(key: str, run: str) -> ConfigDict:
    try:
        return trained.last(run)[1]
    except UserError as error:
        raise UserError(f"config.{key}: {error}") from error


def _variables(run: str, layout: Layout) -> dict[str, Any]:
    with Checkpoints(run, read_only=True) as checkpoints:
        assert checkpoints.latest is not None  # its config was read
        return checkpoints.variables(checkpoints.latest, layout.replicated)


def _given(
    runs: dict[str, str], given: dict[str, Any], kind: str, name: str, ours: Any
) -> Any:
    """The value that a run has for a variable, whose own path is `name`."""
    key, path = "base", name
    if name.startswith("labels/"):
        key, path = name.split("/", 1)
    found: Any = given[key][kind] if key in given else None
    for part in path.split("/"):
        found = found.get(part) if isinstance(found, dict) else None
    if found is None or found.shape != ours.shape:
        raise UserError(
            f"config.{key}: {runs.get(key)!r}: {path} is "
            f"{None if found is None else found.shape}, expected {ours.shape}."
        )
    return found
