"""Where a run's figures go: the screen, metrics.jsonl and TensorBoard."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from occjax import files
from occjax.runtime import metrics
from occjax.runtime.metrics import Mean
from occjax.types import Batch


class Writer:
    """Appends figures to WORKDIR/metrics.jsonl and to TensorBoard; `with` closes them.

    Only process 0 writes. What was written after step `start`, by a run that then died,
    is removed first: every step stands in the files once.

    An object store such as gs:// cannot append: there metrics.jsonl is written anew
    with every line, and there is no TensorBoard log, whose writer cannot do that.
    """

    def __init__(self, workdir: epath.PathLike, start: int):
        """Opens the files; `start` is the number of steps already taken."""
        self._file = self._board = self._lines = None
        if jax.process_index() != 0:
            return
        self._path = epath.Path(workdir) / "metrics.jsonl"
        kept = _kept(self._path, start)
        if files.is_remote(self._path):
            self._lines = kept
            return
        import tensorboardX

        files.write_bytes(self._path, "".join(kept).encode())
        self._file = self._path.open("a")
        folder = os.fspath(workdir)
        self._board = tensorboardX.SummaryWriter(folder, purge_step=start + 1)

    def __enter__(self) -> "Writer":
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the files."""
        if self._file is not None and self._board is not None:
            self._file.close()
            self._board.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line {"step": step, name: value, ...}; the same names on the board."""
        line = {"step": step, **{name: float(v) for name, v in values.items()}}
        text = json.dumps(line) + "\n"
        if self._lines is not None:
            self._lines.append(text)
            files.write_bytes(self._path, "".join(self._lines).encode())
        if self._file is None or self._board is None:
            return
        self._file.write(text)
        self._file.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)


def _kept(path: epath.Path, start: int) -> list[str]:
    """The whole lines of a JSON-lines file up to a step."""
    kept = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            if json.loads(line)["step"] <= start:
                kept.append(line + "\n")
        except json.JSONDecodeError:
            continue  # the line that a killed run was writing
    return kept


class Progress:
    """Gathers the figures of steps, and shows and writes them every so often.

    The figures of a step are read once the next one was dispatched, so that the devices
    never wait for it. On a terminal there is a bar, elsewhere a line each time.
    """

    def __init__(
        self,
        writer: Writer,
        start: int,
        config: ConfigDict,
        last_good: Callable[[], str],
    ):
        """Begins after `start` steps.

        Args:
            writer: takes the figures.
            start: number of steps already taken.
            config: uses `steps`, `log_every` and `batch_size`.
            last_good: names the last checkpoint, for the error of `flush`.
        """
        self._writer, self._config, self._last_good = writer, config, last_good
        self._bar = _bar(start, config.steps)
        self._waiting: tuple[int, Mapping[str, Mean]] | None = None
        self._sums: dict[str, Mean] | None = None
        self._waited = 0.0
        self._clock: tuple[float, int, float] | None = None  # time, step, waited
        self._begun = time.perf_counter()
        self._compiled = False

    def __enter__(self) -> "Progress":
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.close()

    def add(self, step: int, measured: Mapping[str, Mean], waited: float) -> None:
        """Takes the figures of a step just dispatched, and reads those before it.

        Args:
            step: its number, from 1.
            measured: its metrics, on the devices.
            waited: seconds spent waiting for input since the start of the run.

        Raises:
            UserError: as `flush`.
        """
        self._waited = waited
        self.flush()
        if not self._compiled:
            self._compiled = True
            seconds = time.perf_counter() - self._begun
            self.say(f"first batch read and step compiled in {seconds:.1f} s")
        if self._clock is None:
            self._clock = time.perf_counter(), step - 1, waited
        self._waiting = step, measured

    def flush(self) -> None:
        """Reads the figures of the last step added.

        Raises:
            UserError: they are not finite.
        """
        if self._waiting is None:
            return
        (step, measured), self._waiting = self._waiting, None
        measured = jax.device_get(measured)
        metrics.check_finite(step, measured, self._last_good)
        self._sums = metrics.merge(self._sums, measured)
        if self._bar is not None:
            self._bar.update(1)
        if step % self._config.log_every == 0 or step == self._config.steps:
            self._log(step)

    def restart_clock(self) -> None:
        """Leaves out of the rates what was no training, such as an evaluation.

        Raises:
            UserError: as `flush`.
        """
        self.flush()
        self._clock = None

    def say(self, text: str) -> None:
        """Prints a line above the bar; process 0 alone."""
        if self._bar is not None:
            self._bar.write(text)
        elif jax.process_index() == 0:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def _log(self, step: int) -> None:
        sums, self._sums = self._sums or {}, None
        values = {name: float(mean.value) for name, mean in sums.items()}
        values |= self._rates(step)
        self._writer.write(step, values)
        self._show(step, values)
        self._clock = time.perf_counter(), step, self._waited

    def _rates(self, step: int) -> dict[str, float]:
        assert self._clock is not None  # set when the step was added
        since, before, waited_before = self._clock
        seconds = max(time.perf_counter() - since, 1e-9)
        rates = {
            "images_per_second": (step - before) * self._config.batch_size / seconds,
            "input_wait_share": (self._waited - waited_before) / seconds,
        }
        memory = jax.local_devices()[0].memory_stats()
        if memory is not None:  # the CPU does not count
            rates["device_memory_gib"] = memory["peak_bytes_in_use"] / 2**30
        return rates

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        rate, steps = values["images_per_second"], self._config.steps
        text = (
            f"loss {values['loss']:.4g}  {rate:.1f} images/s  "
            f"input wait {values['input_wait_share']:.0%}"
        )
        if self._bar is not None:
            self._bar.set_postfix_str(text)
            return
        left = (steps - step) * self._config.batch_size / max(rate, 1e-9)
        self.say(f"step {step}/{steps}  {text}  {left / 60:.1f} min left")


def _bar(start: int, steps: int) -> Any:
    """A progress bar where there is a terminal to draw it on, else None."""
    if jax.process_index() != 0 or not sys.stderr.isatty():
        return None
    import tqdm

    return tqdm.tqdm(initial=start, total=steps, unit="step", dynamic_ncols=True)


def watched(batches: Iterable[Batch], total: int) -> Iterator[Batch]:
    """The same batches, with a bar on a terminal and some plain lines elsewhere."""
    seen = set()  # an image comes once for each of its crops
    with counted(total, "image") as show:
        for batch in batches:
            yield batch
            seen |= {i for i in np.asarray(batch.image_id).tolist() if i >= 0}
            show(len(seen))


@contextlib.contextmanager
def counted(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """What shows how many of a total are done: a bar, or ten plain lines elsewhere."""
    import tqdm

    talks, terminal = jax.process_index() == 0, sys.stderr.isatty()
    told = 0

    with tqdm.tqdm(total=total, unit=unit, disable=not (talks and terminal)) as bar:

        def show(done: int) -> None:
            nonlocal told
            bar.update(done - bar.n)
            if talks and not terminal and total and 10 * done // total > told:
                told = 10 * done // total
                sys.stderr.write(f"{done}/{total} {unit}s\n")

        yield show
