"""The processes of one job: they meet, wait for one another, and end together.

A process that dies ends the job: each of the others ends by itself, at the latest
HEARTBEAT seconds and a few more after it, with a status that is not 0 and a line that
says why, so that a launcher can start all of them again.
"""

import atexit
import itertools
import os
import re
import subprocess
import sys
from typing import Any, NoReturn

HEARTBEAT = 60  # seconds without a sign of life after which a process counts as dead
_PATIENCE = 10  # seconds in which the others of a failing process may fail as well
_WEEK = 7 * 24 * 3600  # seconds
_GOES_ON = "The same command goes on from the last checkpoint."
# What libraries say of a process that is gone.
_GONE = re.compile(
    "gloo|nccl|heartbeat|coordination|barrier|unavailable|deadline.exceeded|"
    "broken pipe|socket closed|connection (closed|reset|refused)",
    re.IGNORECASE,
)
_numbers = itertools.count()
_guard: subprocess.Popen[bytes] | None = None  # see `_watch`; None for one process


def join(**given: Any) -> None:
    """Joins the other processes; `given` is what jax.distributed.initialize takes."""
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT, **given)
    if several():
        _watch()


def several() -> bool:
    """Whether this process has others beside it."""
    if "jax" not in sys.modules:
        return False
    from jax._src import distributed  # as orbax does; jax has no public way

    return distributed.global_state.num_processes > 1


def first() -> bool:
    """Whether this process is the one that writes."""
    import jax

    return jax.process_index() == 0


def share() -> dict[str, Any]:
    """Which part of each batch this process reads, as `pipeline` asks for it."""
    import jax

    return {
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }


def wait() -> None:
    """Waits until all processes are here, however long one of them takes.

    Without it the others would wait in a collective or, at the end, in jax's own
    barrier, and both give up after some minutes.
    """
    if several():
        _client().wait_at_barrier(f"occjax {next(_numbers)}", _WEEK * 1000)


def blame(error: BaseException) -> str | None:
    """One line for an error that another process's death made, else None."""
    if not several():
        return None
    from jax.errors import JaxRuntimeError

    here: BaseException | None = error
    while here is not None:
        # A failing collective is a ValueError where jax waits for it on dispatch.
        kind = isinstance(here, JaxRuntimeError | ValueError)
        if kind and _GONE.search(str(here)):
            said = " ".join(str(here).split())[:120]
            return f"another process of the job has ended or hangs ({said}). {_GOES_ON}"
        here = here.__cause__ or here.__context__
    return None


def leave(status: int) -> NoReturn:
    """Ends this process, which failed, and thereby the job.

    If the others fail as well, as over a mistake in the config, all end in good order.
    Otherwise it must not wait for them, as jax would: they wait for this one.
    """
    if several():
        _dismiss()  # why it ends has been said
        try:
            _client().wait_at_barrier("occjax failed", _PATIENCE * 1000)
        except Exception:  # noqa: BLE001  whatever it is, the job is lost
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    sys.exit(status)


def _client() -> Any:
    from jax._src import distributed

    return distributed.global_state.client


def _watch() -> None:
    """Has a shell say why, should this process end without a word.

    Where a process waits for a dead one in a collective, jax aborts it. Python gets no
    chance then, and what jax writes is long.
    """
    global _guard
    import jax

    index, count = jax.process_index(), jax.process_count()
    line = (
        f"error: process {index} of {count} was ended from outside, most likely "
        f"because another process died; see what that one said. {_GOES_ON}"
    )
    try:
        _guard = subprocess.Popen(
            ["sh", "-c", 'read -r told || echo "$0" >&2', line],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it
        )
    except OSError:
        return  # no shell, no line
    atexit.register(_end)


def _end() -> None:
    """Leaves the other processes in good order, waiting for them."""
    import jax

    jax.distributed.shutdown()
    _dismiss()


def _dismiss() -> None:
    """Tells the shell that there is nothing to say."""
    if _guard is not None and _guard.stdin is not None:
        try:
            _guard.communicate(b"told\n")  # and ends it
        except (OSError, ValueError):
            return  # it is gone already
