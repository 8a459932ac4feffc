"""Batches put on the devices by a thread, so that the devices never wait for Python."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from occjax.runtime.mesh import Layout


class Fetched(NamedTuple):
    """A batch on the devices."""

    batch: Any
    position: Any  # the iterator's state after this batch, as JSON values


class Prefetch:
    """Iterates over `source` some batches ahead; `with` ends its thread.

    Attributes:
        waited: seconds that `next` has spent waiting, in all.
    """

    def __init__(self, source: Iterator[Any], layout: Layout, ahead: int = 2):
        """Starts reading. `source` may have `get_state()`, as Grain's iterators do."""
        self.waited = 0.0
        self._source = source
        self._layout = layout
        self._queue: queue.Queue[Any] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __iter__(self) -> "Prefetch":
        """Itself."""
        return self

    def __next__(self) -> Fetched:
        """The next batch; an error of the source is raised here."""
        start = time.perf_counter()
        item = self._queue.get()
        self.waited += time.perf_counter() - start
        if isinstance(item, BaseException):
            self._queue.put(item)  # so that asking again ends the same way
            raise item
        return item

    def __enter__(self) -> "Prefetch":
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Ends the thread and lets go of the batches it holds."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.01)
            except queue.Empty:
                continue

    def _read(self) -> None:
        get_state = getattr(self._source, "get_state", lambda: None)
        try:
            for batch in self._source:
                placed = self._layout.shard_batch(batch)
                self._queue.put(Fetched(placed, get_state()))
                if self._stopped.is_set():
                    return
            self._queue.put(StopIteration())
        except Exception as error:  # noqa: BLE001  # handed on to the reader
            self._queue.put(error)
