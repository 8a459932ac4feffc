"""What all commands share: flags, one-line errors, the device's set-up and report."""

import gc
import os
import pathlib
import platform
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

from absl import app, flags, logging

import occjax
from occjax.errors import UserError
from occjax.runtime import config, processes

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain")


def run(main: Callable[[Sequence[str]], Any]) -> None:
    """Runs a command; what a user can put right becomes one line and exit status 1.

    That is a UserError, what the operating system refuses (a full disk, a folder that
    may not be written), and the death of another process of the job. `--verbosity=1`
    shows the traceback as well.
    """
    try:
        app.run(main, flags_parser=_parse)
    except (Exception, KeyboardInterrupt) as error:
        told = processes.blame(error)
        if told is None and isinstance(error, UserError | OSError):
            told = str(error)
        if told is None and not processes.several():
            raise
        if told is None or logging.get_verbosity() >= logging.DEBUG:
            traceback.print_exception(error)
        sys.stderr.write(f"error: {told or type(error).__name__}\n")
        processes.leave(1)


def define_distributed_flags() -> None:
    """Declares how the processes of one job find each other."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0, when several processes work together. TPU pods and "
        "Slurm steps (srun) are detected without it.",
    )
    flags.DEFINE_integer("num_processes", None, "How many processes work together.")
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")


def start_jax() -> None:
    """Turns the compilation cache on and joins the other processes, if there are any.

    The cache lies in JAX_COMPILATION_CACHE_DIR, or ~/.cache/occjax. Programs in it are
    executed: keep it writable for yourself alone.
    """
    import jax

    # Tracing a large model makes millions of objects that stay: looking through them
    # for garbage again and again takes a fifth of its time.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = pathlib.Path.home() / ".cache" / "occjax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    given = _given_processes(flags.FLAGS.flag_values_dict())
    if given or _cluster_detected(os.environ):
        processes.join(**given)


def environment() -> dict[str, Any]:
    """Versions, devices and command line, for `environment.json`."""
    import jax

    return {
        "occjax": occjax.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "processes": jax.process_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "backend": jax.default_backend(),
        "command": sys.argv,
    }


def _parse(argv: Sequence[str]) -> list[str]:
    """Flags of a command: `--help` shows the module's docstring and its own flags."""
    app.define_help_flags()
    rest = config.parse_flags(argv)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.ERROR)  # libraries tell too much otherwise
    if len(rest) > 1:
        raise UserError(f"{rest[1]}: unexpected; flags start with two dashes.")
    return rest


def _given_processes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of jax.distributed.initialize from flags: all three, or none.

    Raises:
        UserError: some are given and others are not.
    """
    names = ("coordinator", "num_processes", "process_id")
    given = {name: values.get(name) for name in names}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(names):
        return {}
    if missing:
        raise UserError(f"--{missing[0]}: needed beside the other two of {names}.")
    given["coordinator_address"] = given.pop("coordinator")
    return given


def _cluster_detected(variables: Mapping[str, str]) -> bool:
    """Whether several processes were started together by a launcher jax knows.

    A Slurm allocation alone is no sign: only `srun` sets the step's task number.
    """
    return (
        "JAX_COORDINATOR_ADDRESS" in variables
        or int(variables.get("SLURM_STEP_NUM_TASKS", "1")) > 1
        or "," in variables.get("TPU_WORKER_HOSTNAMES", "")
        or "MEGASCALE_COORDINATOR_ADDRESS" in variables
    )
