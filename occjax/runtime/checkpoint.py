"""Checkpoints of a run: what they hold, when they are written, how a run goes on.

WORKDIR/checkpoints/STEP holds the state after STEP steps, the position of the data
iterator and the config. A checkpoint appears whole or not at all, so a run killed at
any moment goes on from the last one. This is the only module that knows orbax.
"""

import contextlib
import signal
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from occjax.errors import UserError
from occjax.runtime import config as configs
from occjax.runtime import optim
from occjax.runtime import step as steps

_SMALL_FILE = 2**24  # bytes
KEEP = 3  # checkpoints of a run; older ones are deleted
STOPPED = 128 + signal.SIGTERM  # exit status of a command that SIGTERM ended


class Restored(NamedTuple):
    """A checkpoint that was read."""

    state: Any
    position: Any  # of the data iterator, JSON values


class Checkpoints:
    """The checkpoints of one run; `with` waits until the last one is written."""

    def __init__(self, workdir: epath.PathLike, read_only: bool = False):
        """Opens WORKDIR/checkpoints, which need not exist yet.

        `read_only` leaves alone what a training that still runs is writing there.

        Raises:
            UserError: to read only, and there are no checkpoints.
        """
        self.folder = epath.Path(workdir).resolve() / "checkpoints"
        if read_only and not self.folder.is_dir():  # orbax would make it
            raise UserError(
                f"{workdir}: no run of occjax.train, it has no checkpoints."
            )
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(KEEP),
                cleanup_tmp_directories=not read_only,
            ),
            item_names=("state", "data", "config"),
        )

    def __enter__(self) -> "Checkpoints":
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Waits for the writing to end."""
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """Step of the last whole checkpoint; None without one."""
        return self._manager.latest_step()

    def last_good(self) -> str:
        """Path of the last whole checkpoint, for messages; waits for its writing."""
        self._manager.wait_until_finished()
        return (
            "none yet" if self.latest is None else f"{self.folder / str(self.latest)}"
        )

    def save(self, step: int, state: Any, position: Any, config: ConfigDict) -> None:
        """Starts to write the state after `step` steps; training need not wait.

        Raises:
            UserError: the disk refuses (full, read-only, gone).
        """
        if step != self.latest:
            self._save(step, ocp.args.StandardSave(state), state, position, config)

    def _save(
        self, step: int, how: Any, state: Any, position: Any, config: ConfigDict
    ) -> None:
        items = ocp.args.Composite(
            state=how,
            data=ocp.args.JsonSave({"position": position, "crc32": checksums(state)}),
            config=ocp.args.JsonSave(configs.as_json(config)),
        )
        try:
            self._manager.save(step, args=items)
        except OSError as error:
            raise UserError(f"{self.folder / str(step)}: not saved: {error}") from error

    def save_weights(self, variables: Mapping[str, Any], config: ConfigDict) -> None:
        """Writes weights without a run: enough for `variables`, not to go on training.

        Args:
            variables: "params" and "batch_stats", on the devices.
            config: of the model.

        Raises:
            UserError: the disk refuses.
        """
        state = {**variables, "ema": None}
        # With large files orbax would hold a second copy of all weights in memory.
        how = ocp.args.PyTreeSave(state, ocdbt_target_data_file_size=_SMALL_FILE)
        self._save(0, how, state, None, config)

    def only_weights(self, step: int) -> bool:
        """Whether `save_weights` made a checkpoint."""
        items = ocp.args.Composite(data=ocp.args.JsonRestore())
        return "step" not in self._restore(step, items)["data"]["crc32"]

    def config(self, step: int) -> ConfigDict:
        """Config of a checkpoint.

        Raises:
            UserError: the checkpoint is damaged.
        """
        items = ocp.args.Composite(config=ocp.args.JsonRestore())
        return configs.from_json(self._restore(step, items)["config"])

    def restore(self, step: int, like: Any) -> Restored:
        """Reads a checkpoint onto the devices.

        Args:
            step: which one, such as `latest`.
            like: a state with the wanted structure, shapes and shardings.

        Raises:
            UserError: the checkpoint is damaged, or of another model.
        """
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(shapes), data=ocp.args.JsonRestore()
        )
        found = self._restore(step, items)
        self._verify(step, found["state"], found["data"]["crc32"])
        return Restored(found["state"], found["data"]["position"])

    def variables(self, step: int, sharding: jax.sharding.Sharding) -> dict[str, Any]:
        """Reads "params" (their moving average if there is one) and "batch_stats".

        Needs no model: names and shapes are the checkpoint's own.

        Raises:
            UserError: there is no such checkpoint, or it is damaged.
        """
        with _clear_errors(self.folder / str(step)), ocp.PyTreeCheckpointer() as reader:
            path = self.folder / str(step) / "state"
            there: Any = reader.metadata(path).item_metadata
            params = "params" if there.tree["ema"] is None else "ema"
            wanted = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
                {name: there.tree[name] for name in (params, "batch_stats")},
            )
            how = ocp.checkpoint_utils.construct_restore_args(wanted)
            items = ocp.args.PyTreeRestore(
                wanted, restore_args=how, partial_restore=True
            )
            found: Any = reader.restore(path, args=items)
        data = ocp.args.Composite(data=ocp.args.JsonRestore())
        self._verify(step, found, self._restore(step, data)["data"]["crc32"])
        return {"params": found[params], "batch_stats": found["batch_stats"]}

    def _verify(self, step: int, state: Any, expected: dict[str, int]) -> None:
        for name, checksum in checksums(state).items():
            if checksum != expected[name]:
                raise UserError(_damaged(self.folder / str(step), f"{name} changed"))

    def _restore(self, step: int, items: ocp.args.Composite) -> Any:
        with _clear_errors(self.folder / str(step)):
            return self._manager.restore(step, args=items)


def checksums(state: Any) -> dict[str, int]:
    """CRC-32 of all values below each first name of a pytree, however it is split.

    The arrays in a checkpoint's files carry none: a flipped bit would train on.
    """
    found: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path[:1], simple=True)
        if leaf.is_fully_replicated:
            whole = leaf.addressable_data(0)
        else:
            whole = multihost_utils.process_allgather(leaf, tiled=True)
        values = np.ascontiguousarray(whole).reshape(-1)
        found[name] = zlib.crc32(values.view(np.uint8).data, found.get(name, 0))
    return found


def _damaged(path: epath.Path, why: str) -> str:
    return (
        f"{path}: damaged, or of another model; delete this folder to go on from the "
        f"checkpoint before it ({why})."
    )


@contextlib.contextmanager
def _clear_errors(path: epath.Path) -> Iterator[None]:
    """Turns whatever a damaged checkpoint makes its readers raise into one line."""
    if not path.is_dir():
        raise UserError(f"{path}: there is no such checkpoint.")
    hook, sys.unraisablehook = sys.unraisablehook, _hush(sys.unraisablehook)
    try:
        yield
    except Exception as error:  # orbax itself raises bare Exceptions
        why = str(error.__cause__ or error).strip().split("\n", 1)[0][:160]
        raise UserError(_damaged(path, f"{type(error).__name__}: {why}")) from error
    sys.unraisablehook = hook


def _hush(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Leaves out what reads that a damaged file cut off say to their event loop."""

    def filtered(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    return filtered


class Preemption:
    """Whether the job was asked to stop; every process gets the same answer.

    `with` installs it for SIGTERM and Ctrl-C; a second signal acts as it always did. A
    run then saves at the next step and ends with status STOPPED: not 0, so that a
    scheduler starts it again and a script does not take it for done.
    """

    def __init__(self) -> None:
        """Listens to nothing yet."""
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Preemption":
        """Starts to listen."""
        # With several processes, jax.distributed listens and agrees on a step.
        if jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        """Restores what the signals did before."""
        while self._before:
            signal.signal(*self._before.popitem())

    def asked(self, step: int) -> bool:
        """Whether to stop after `step` steps; call it once for each step."""
        if jax.process_count() == 1:
            return self._asked
        return multihost_utils.reached_preemption_sync_point(step)

    def _ask(self, *signal_and_frame: object) -> None:
        self._asked = True
        self.__exit__()


def resume(checkpoints: Checkpoints, state: Any, asked: ConfigDict) -> Restored:
    """The last checkpoint of a run, or the given state where there is none.

    The run may have had its state on its devices in another way.

    Raises:
        UserError: the checkpoint is damaged, the run had another config, or there are
            weights only.
    """
    step = checkpoints.latest
    if step is None:
        return Restored(state, None)
    if checkpoints.only_weights(step):
        run = checkpoints.folder.parent
        raise UserError(
            f"{run}: holds weights alone, no run to go on with; choose another "
            f"--workdir and start from them by --config.init_from={run}."
        )
    saved = checkpoints.config(step)
    configs.check_resumable(saved, asked)
    if steps.is_flat(saved) == steps.is_flat(asked):
        return checkpoints.restore(step, state)
    tx = steps.make_optimizer(saved, state.params)
    there = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=state.step.sharding),
        jax.eval_shape(tx.init, state.params),
    )
    found, position = checkpoints.restore(step, state.replace(opt_state=there))
    opt_state = optim.regrouped(found.opt_state, state.opt_state)
    return Restored(found.replace(opt_state=opt_state), position)
