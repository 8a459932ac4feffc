"""Shards over processes of this machine, or over the workers of Apache Beam."""

import concurrent.futures
import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import tqdm

from data_prep import shards
from occjax.errors import UserError


def run(work: Sequence[shards.Shard], workers: int, title: str) -> None:
    """Writes the shards that are not finished, with a progress bar of images.

    Args:
        work: shards of a split.
        workers: how many processes; 0 and 1 mean this one.
        title: of the bar.

    Raises:
        UserError: a process was ended from outside.
        KeyboardInterrupt: by Ctrl-C.
    """
    left = [shard for shard in work if not shards.finished(shard)]
    images = sum(shard.size for shard in work)
    initial = images - sum(shard.size for shard in left)
    workers = min(workers, len(left))
    each = _here(left) if workers < 2 else _apart(left, workers)
    # Without a terminal the bar would be noise in a log.
    with tqdm.tqdm(
        desc=title, total=images, initial=initial, unit=" images", disable=None
    ) as bar:
        for shard in each:
            bar.update(shard.size)


def beam_options(options: Sequence[str]) -> Any:
    """Options for a pipeline of Apache Beam.

    Args:
        options: each KEY=VALUE, as Beam's own commands take them after two dashes.

    Raises:
        UserError: Apache Beam is not installed.
    """
    try:
        beam = importlib.import_module("apache_beam.options.pipeline_options")
    except ImportError as error:
        raise UserError(
            "--beam_runner needs Apache Beam: pip install 'occjax[beam]'."
        ) from error
    return beam.PipelineOptions(flags=[f"--{option}" for option in options])


def _here(left: Sequence[shards.Shard]) -> Iterator[shards.Shard]:
    """Writes shards in this process, and yields each when it is finished."""
    for shard in left:
        shards.write(shard)
        yield shard


def _apart(left: Sequence[shards.Shard], workers: int) -> Iterator[shards.Shard]:
    """Writes shards in other processes, and yields each when it is finished."""
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    started: list[Any] = []
    try:
        futures = {pool.submit(shards.write, shard): shard for shard in left}
        started = multiprocessing.active_children()
        for future in concurrent.futures.as_completed(futures):
            future.result()
            yield futures[future]
    except BrokenProcessPool as error:
        pool.shutdown()  # afterwards it is known how each of them ended
        if any(process.exitcode == -signal.SIGINT for process in started):
            raise KeyboardInterrupt from error  # the workers heard of it first
        raise UserError(
            "a worker process was ended, perhaps for want of memory; the same command "
            f"goes on where it was, and --workers may be less than {workers}."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Ends the worker at Ctrl-C without a word, and with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A worker waits for work for ever, and nobody else tells it of a killed parent.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
