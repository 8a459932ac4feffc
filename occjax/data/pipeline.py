"""From a source to batches: shuffled and endless for training, in order for testing.

Everything here runs on the host in threads, ships uint8 images and coordinates, and
never asks for jax: targets are made on the device.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from occjax.data import stacking, views
from occjax.data.sources import Source
from occjax.errors import UserError
from occjax.types import Batch


def train_batches(
    source: Source,
    data: Mapping[str, Any],
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    start_step: int = 0,
) -> Any:
    """Endless batches of random views, each a pure function of (seed, its number).

    The k-th batch of all processes together is the same for any number of processes:
    process i holds rows i * b to (i + 1) * b of it, b = batch_size / process_count.

    Args:
        source: records.
        data: `config.data`: what `views.training` takes, `threads` (0 reads in the
            calling thread) and, optionally, `min_joints`: images whose people have
            fewer labelled joints in all are left out, or people of a person view.
        batch_size: of all processes together.
        seed: of order and augmentation.
        process_index: which share of each batch to make.
        process_count: how many shares there are.
        start_step: number of the first batch.

    Returns:
        A Grain iterator of Batch, with `get_state()` (JSON) and `set_state(state)`.

    Raises:
        UserError: the batch does not divide among processes, no image is left, an
            image cannot be read, or one has more people than `max_persons`.
    """
    import grain

    local = _share(batch_size, process_count)
    task = views.training(source, data)
    chosen = _chosen(task.source, int(data.get("min_joints", 0)))
    # Order, repetition and random numbers come before the split among processes,
    # so that they belong to the batch and not to whoever makes it.
    examples = (
        grain.MapDataset.source(Shuffled(chosen, seed))  # pyright: ignore
        .seed(seed)
        .map(task.source.__getitem__)
        .random_map(task.view.random_map)
    )
    batches = examples.batch(local, batch_fn=functools.partial(_render, task))
    batches = batches.slice(slice(process_index, None, process_count))
    iterator = iter(batches.to_iter_dataset(_reading(data)))
    iterator.set_state({"next_index": start_step})
    return iterator


def test_batches(
    source: Source,
    data: Mapping[str, Any],
    batch_size: int,
    scales: Sequence[float] = (1.0,),
    process_index: int = 0,
    process_count: int = 1,
    labels: bool = False,
) -> Iterator[Batch]:
    """Every image or box once, as official testing sees it, in batches of one shape.

    Shapes follow each other in the order of their first image, so that each is
    compiled for once. Rows that fill up the last batch of a shape are black, with
    image_id -1.

    Args:
        source: records.
        data: `config.data`: what `views.testing` takes, and `threads`.
        batch_size: of all processes together; they see the same shapes in the same
            order.
        scales: of the test. `Inputs.image` is the view at 1, which must be among them,
            `Inputs.scaled` has the others in their order.
        process_index: which share of each batch to make.
        process_count: how many shares there are.
        labels: adds Labels, padded to `max_persons`.

    Raises:
        UserError: the batch does not divide among processes, the scales lack 1 or do
            not suit `size` or the view, or an image or file of boxes cannot be read.
    """
    import grain

    task = views.testing(source, data, scales, labels)
    plan = _plan(task.canvases, batch_size)
    local = _share(batch_size, process_count)
    rows = slice(process_index * local, (process_index + 1) * local)

    def read(indices: list[int]) -> Batch:
        seen = {i: task.view.map(task.source[i]) for i in indices[rows] if i >= 0}
        # A share may hold padding only; its shapes come from the batch's first image.
        some = next(iter(seen.values()), None) or task.view.map(task.source[indices[0]])
        blank = stacking.blank(some)
        return stacking.stack([seen.get(i, blank) for i in indices[rows]])

    batches = grain.MapDataset.source(plan).map(read)
    return iter(batches.to_iter_dataset(_reading(data)))


test_batches.__test__ = False  # pyright: ignore  # not a test of pytest


class Shuffled:
    """Endless order of some indices: every epoch has all of them in a new order.

    Grain's own shuffle takes milliseconds to find an index when there are few.
    """

    def __init__(self, indices: Sequence[int], seed: int):
        """Orders `indices` by `seed`."""
        self._indices, self._seed = np.asarray(indices), seed
        self._epoch = functools.lru_cache(maxsize=4)(self._order)

    def __len__(self) -> int:
        """As good as endless; Grain rounds it, so it keeps off the largest integer."""
        return sys.maxsize // 2

    def __getitem__(self, position: int) -> int:
        """The index that comes at a position."""
        epoch, at = divmod(position, len(self._indices))
        return int(self._epoch(epoch)[at])

    def _order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self._seed, epoch))
        return rng.permutation(self._indices)


def augmented(
    source: Source, data: Mapping[str, Any], seed: int
) -> tuple[Source, Callable[[int], Batch]]:
    """Training examples to be looked at.

    Args:
        source: records.
        data: `config.data`, see `train_batches`.
        seed: of the random draws; an index gives the same view whenever it is asked.

    Returns:
        The records that examples are made of, of images or of people, and the example
        of an index: a Batch without the axis B.

    Raises:
        UserError: as `train_batches`.
    """
    task = views.training(source, data)

    def example(index: int) -> Batch:
        rng = np.random.default_rng((seed, index))
        return _finished(task, task.view.random_map(task.source[index], rng))

    return task.source, example


def _render(task: views.Training, placed: Sequence[views.Placed]) -> Batch:
    """The examples of a batch, warped straight into its image array."""
    images = np.empty((len(placed), *task.view.canvas, 3), np.uint8)
    examples = [
        _finished(task, place, image)
        for place, image in zip(placed, images, strict=True)
    ]
    return stacking.around(images, examples)


def _finished(
    task: views.Training, placed: views.Placed, out: np.ndarray | None = None
) -> Batch:
    """A view with all that happens to it afterwards."""
    example = task.view.view(placed, out)
    if task.effects:
        rng = np.random.default_rng(placed.seed)
        for effect in task.effects:
            example = effect.random_map(example, rng)
    return example


def _reading(data: Mapping[str, Any]) -> Any:
    """Grain's options for so many threads, each a batch ahead."""
    import grain

    threads = int(data["threads"])
    # Reading threads are the parallelism; OpenCV's own would fight them for cores.
    cv2.setNumThreads(0)
    ahead = threads + 1 if threads else 0
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)


def _share(batch_size: int, process_count: int) -> int:
    if batch_size % process_count:
        raise UserError(
            f"batch_size {batch_size} does not divide among {process_count} processes."
        )
    return batch_size // process_count


def _chosen(source: Source, min_joints: int) -> list[int]:
    """Indices of the records whose people have enough labelled joints."""
    if not len(source):
        raise UserError(f"{source.name}: there is nothing to train on.")
    if not min_joints:
        return list(range(len(source)))
    counts = getattr(source, "labelled_joints", None)
    if counts is None:
        everyone = (source[i]["persons"]["joints"] for i in range(len(source)))
        counts = [np.sum(joints[:, :, 2] > 0) for joints in everyone]
    chosen = np.flatnonzero(np.asarray(counts) >= min_joints).tolist()
    if not chosen:
        raise UserError(
            f"{source.name}: nothing has data.min_joints = {min_joints} joints."
        )
    return chosen


def _plan(canvases: Sequence[tuple[int, int]], batch_size: int) -> list[list[int]]:
    """Indices of each batch, B of them with one canvas, -1 for padding."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, canvas in enumerate(canvases):
        groups.setdefault(canvas, []).append(index)
    batches = []
    for indices in groups.values():
        for at in range(0, len(indices), batch_size):
            rows = indices[at : at + batch_size]
            batches.append(rows + [-1] * (batch_size - len(rows)))
    return batches
