"""What reading costs, beside a loop that only decodes and warps with OpenCV."""

import concurrent.futures
import itertools
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from occjax.data import augment, pipeline, views, warp
from occjax.data.sources import Source

_IMAGES = 1024  # of one trial: its start and end take tens of milliseconds
# What `--data` measures: whole images, crops of people, crops with pasted people.
_CROP = {"view": "person", "size": (256, 192), "max_persons": 1, "augment": {}}
PIPELINES = {
    "whole image 512": {"view": "image", "size": 512, "augment": {}},
    "crop 256x192": _CROP,
    "crop, pasting": {**_CROP, "occlusion": ({"name": "paste_instance"},)},
}


class Files:
    """Records of a source with their images as JPEG files in a folder."""

    def __init__(self, source: Source, folder: str | os.PathLike[str]):
        """Writes all images of a source that has them decoded."""
        self.name, self.skeleton = source.name, source.skeleton
        self.max_persons = source.max_persons
        self._records = []
        for index in range(len(source)):
            record = source[index]
            path = pathlib.Path(folder) / f"{index}.jpg"
            cv2.imwrite(os.fspath(path), record["image"][..., ::-1])
            self._records.append({**record, "image": path})

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record at an index, its image encoded."""
        record = self._records[index]
        return {**record, "image": record["image"].read_bytes()}


def plain_loop(
    task: views.Training, count: int
) -> list[Callable[[], list[np.ndarray]]]:
    """The least that so many examples of training cost: decode, and warp each crop.

    Records are read and maps are drawn beforehand.
    """
    rng = np.random.default_rng(0)
    order = pipeline.Shuffled(range(len(task.source)), 0)
    records = [task.source[order[i]] for i in range(count)]
    placed = [task.view.random_map(record, rng) for record in records]
    height, width = task.view.canvas[-2:]

    def job(places: Sequence[augment.Placed]) -> Callable[[], list[np.ndarray]]:
        image, matrices = places[0].record["image"], [one.matrix for one in places]

        def run() -> list[np.ndarray]:
            pixels = image
            if not isinstance(image, np.ndarray):
                encoded = np.frombuffer(image, np.uint8)
                pixels = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
            return [warp.warp_image(pixels, m, height, width) for m in matrices]

        return run

    return [job(getattr(place, "places", [place])) for place in placed]


def compare(
    source: Source, data: Mapping[str, Any], batch_size: int, trials: int
) -> dict[str, float]:
    """Images/s of training's pipeline and of the plain loop in as many threads.

    The two take turns, as the machine's other work changes with time; rates are
    medians. A trial begins cold.

    Args:
        source: of images.
        data: `config.data`; `threads` 0 and 1 compare with one thread.
        batch_size: of the pipeline.
        trials: how often.

    Returns:
        `pipeline` and `plain`, images/s, where each crop of a person is one; the same
        with `_per_core`, images per second of processor time, which other work on the
        machine disturbs less; `ratio` and `ratio_per_core` of the two.
    """
    threads = max(int(data["threads"]), 1)
    batches = max(-(-_IMAGES // batch_size), 4 * (threads + 1))
    task = views.training(source, data)
    jobs = plain_loop(task, batches * batch_size)
    images = len(jobs) * math.prod(task.view.canvas[:-2])  # a crop of a person is one
    rates: dict[str, list[tuple[float, float]]] = {"pipeline": [], "plain": []}
    for trial in range(trials):
        feed = pipeline.train_batches(source, data, batch_size, seed=trial)
        rates["pipeline"].append(_rate(images, lambda feed=feed: _drain(feed, batches)))
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            rates["plain"].append(_rate(images, lambda pool=pool: _run(pool, jobs)))
    figures = {}
    for name, pairs in rates.items():
        figures[name] = statistics.median(pair[0] for pair in pairs)
        figures[f"{name}_per_core"] = statistics.median(pair[1] for pair in pairs)
    figures["ratio"] = figures["pipeline"] / figures["plain"]
    figures["ratio_per_core"] = figures["pipeline_per_core"] / figures["plain_per_core"]
    return figures


def _rate(images: int, work: Callable[[], None]) -> tuple[float, float]:
    """Images per second, and per second of processor time."""
    start, used = time.perf_counter(), time.process_time()
    work()
    taken = time.perf_counter() - start
    return images / taken, images / (time.process_time() - used)


def _drain(feed: Any, batches: int) -> None:
    for _ in itertools.islice(feed, batches):
        pass


def _run(pool: Any, jobs: Sequence[Callable[[], Any]]) -> None:
    for _ in pool.map(lambda job: job(), jobs):
        pass


def survey(
    source: Source, data: Mapping[str, Any], trials: int, batch_size: int = 16
) -> dict[str, dict[str, float]]:
    """`compare` for each of `PIPELINES` with one thread, and how two threads scale.

    Args:
        source: of images.
        data: `config.data` for what the pipelines leave open.
        trials: see `compare`.
        batch_size: see `compare`.
    """
    shared = {**data, "max_persons": source.max_persons}
    found = {}
    for name, settings in PIPELINES.items():
        rows = []
        for _ in range(trials):
            one, two = (
                compare(source, {**shared, "threads": n, **settings}, batch_size, 1)
                for n in (1, 2)
            )
            one["pipeline_scaling"] = two["pipeline"] / one["pipeline"]
            one["plain_scaling"] = two["plain"] / one["plain"]
            rows.append(one)
        found[name] = {
            key: statistics.median(row[key] for row in rows) for key in rows[0]
        }
    return found


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """What `survey` found, for the screen."""
    head = (
        f"{'':17}{'images/s per core':>18}{'plain loop':>12}{'ratio':>7}"
        f"{'1 thread':>10}{'plain':>8}{'2 threads':>11}{'plain':>7}"
    )
    rows = [
        f"{name:17}{row['pipeline_per_core']:18.1f}{row['plain_per_core']:12.1f}"
        f"{row['ratio_per_core']:7.2f}{row['pipeline']:10.1f}{row['plain']:8.1f}"
        f"{row['pipeline_scaling']:10.2f}x{row['plain_scaling']:6.2f}x"
        for name, row in found.items()
    ]
    return "\n".join([head, *rows])
