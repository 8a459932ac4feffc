"""Start values from a run or a file: `config.init_from = "RUN_OR_FILE[:PATTERN]"`.

RUN is the folder of a run or of `occjax.convert`; FILE has torch's names, see
weight_files.py. With a PATTERN only variables whose path contains it are taken, for
instance runs/hrnet:^trunk/ for the backbone alone.

A FILE is read by the method's table PUBLISHED for its backbone. With a PATTERN it may
also be one of the backbone alone, as trained on ImageNet: hrnet_w32.pth:^trunk/ is read
by the table PRETRAINED, as that knows more of its names.
"""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from occjax.errors import UserError
from occjax.runtime import optim, weight_files, weights
from occjax.runtime.checkpoint import Checkpoints
from occjax.runtime.mesh import Layout
from occjax.runtime.step import TrainState


class Tables(NamedTuple):
    """Where torch's names go in a model; see occjax/nn/torch_names.py."""

    owner: str  # method and backbone, for messages
    published: weights.Rows | None  # of files with the whole model
    pretrained: weights.Rows | None  # of files with the backbone alone

    @property
    def whole(self) -> weights.Rows:
        """The table of the whole model.

        Raises:
            UserError: there is none.
        """
        if self.published is None:
            raise UserError(f"{self.owner} has no table of torch names.")
        return self.published


def tables_of(method: Any, model: Any) -> Tables:
    """The tables of a method for its model's backbone, as far as there are some."""
    backbone = getattr(model, "backbone", {}).get("name", "")
    published, pretrained = (
        getattr(method, name, {}).get(backbone) for name in ("PUBLISHED", "PRETRAINED")
    )
    owner = f"{method.__name__.rpartition('.')[2]} {backbone}".strip()
    return Tables(owner, published, pretrained)


def start_from(
    state: TrainState, source: str, layout: Layout, tables: Tables | None = None
) -> TrainState:
    """A fresh state with the variables of another run's last checkpoint, or a file's.

    Every variable there that the pattern matches must have its place; a file must also
    fill every variable here that the pattern matches.

    Args:
        state: from `step.init_state`.
        source: as `config.init_from`; "" leaves the state as it is.
        layout: where to put the values.
        tables: of the model; a file needs them.

    Raises:
        UserError: no such run or file, nothing matches, or names or shapes differ.
    """
    if not source:
        return state
    path, pattern = _split(source)
    _check_pattern(pattern)
    ours = {"params": state.params, "batch_stats": state.batch_stats}
    if weight_files.is_weights(path):
        given = layout.replicate(_from_file(path, pattern, ours, tables))
    else:
        given = _from_run(path, layout)
    filled = fill(ours, given, pattern, source)
    average = None
    if state.ema is not None:  # a copy, as both are donated to the step
        average = jax.tree.map(jnp.copy, filled["params"])
    return state.replace(**filled, ema=average)


def _from_run(run: str, layout: Layout) -> dict[str, Any]:
    """All variables of a run."""
    with Checkpoints(run, read_only=True) as checkpoints:
        if checkpoints.latest is None:
            raise UserError(f"config.init_from: {run} has no checkpoint yet.")
        return checkpoints.variables(checkpoints.latest, layout.replicated)


def _from_file(
    path: str, pattern: str, ours: Any, tables: Tables | None
) -> dict[str, Any]:
    """The variables of a file that have the pattern; all of them must be there."""
    state_dict = weight_files.read(path)
    if tables is None:
        raise UserError(f"config.init_from: {path}: this model has no torch names.")
    try:
        whole, backbone = tables.published or (), tables.pretrained or ()
        if weights.matching(state_dict, backbone) > weights.matching(state_dict, whole):
            if not pattern:
                raise UserError(f"holds a backbone alone; take {path}:^trunk/ instead.")
            rows = backbone
        else:
            rows = tables.whole
        return weights.convert(state_dict, rows, ours, pattern)
    except UserError as error:
        raise UserError(f"config.init_from: {path}: {error}") from error


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


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(f"config.init_from: {pattern!r}: {error}.") from error


def _split(source: str) -> tuple[str, str]:
    """RUN or FILE, and PATTERN; the colon of gs:// parts nothing."""
    run, colon, pattern = source.rpartition(":")
    if not colon or pattern.startswith("//"):
        return source, ""
    return run, pattern
