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

from occjax.data import augment, warp
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
        data: `config.data`: `size`, `max_persons`, `augment`, `threads` (0 reads in
            the calling thread) and, optionally, `min_joints`: images whose people
            have fewer labelled joints in all are left out.
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
    if source.max_persons > data["max_persons"]:
        raise UserError(
            f"{source.name} has images with {source.max_persons} labelled people, "
            f"data.max_persons is {data['max_persons']}."
        )
    view = augment.TrainView(
        size=int(data["size"]),
        max_persons=int(data["max_persons"]),
        skeleton=source.skeleton,
        **_options(data["augment"]),
    )
    chosen = _chosen(source, int(data.get("min_joints", 0)))
    # Order, repetition and random numbers come before the split among processes,
    # so that they belong to the batch and not to whoever makes it.
    examples = (
        grain.MapDataset.source(Shuffled(chosen, seed))  # pyright: ignore
        .seed(seed)
        .map(source.__getitem__)
        .random_map(view.random_map)
    )
    batches = examples.batch(local, batch_fn=functools.partial(_render, view))
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
    """Every image once, in the official test resize, in batches of one canvas shape.

    Shapes follow each other in the order of their first image, so that each is
    compiled for once. Rows that fill up the last batch of a shape are black, with
    image_id -1.

    Args:
        source: records.
        data: `config.data`: `size`, `threads`, and optionally `eval_images` (only the
            first so many; 0 all).
        batch_size: of all processes together; they see the same shapes in the same
            order.
        scales: of the test. `Inputs.image` is the view at 1, which must be among them,
            `Inputs.scaled` has the others in their order.
        process_index: which share of each batch to make.
        process_count: how many shares there are.
        labels: adds Labels, padded to `max_persons`.

    Raises:
        UserError: the batch does not divide among processes, the scales lack 1 or do
            not suit `size`, or an image cannot be read.
    """
    import grain

    size = int(data["size"])
    if 1 not in scales:
        raise UserError(f"the test scales {tuple(scales)} must have 1 among them.")
    view = augment.TestView(
        size=size,
        multiple=warp.multiple_for(size, scales),
        skeleton=source.skeleton,
        scales=tuple(float(scale) for scale in scales if scale != 1),
        max_persons=int(data["max_persons"]) if labels else 0,
    )
    plan = _plan(_sizes(source, int(data.get("eval_images", 0))), view, batch_size)
    local = _share(batch_size, process_count)
    rows = slice(process_index * local, (process_index + 1) * local)

    def read(indices: list[int]) -> Batch:
        views = {i: view.map(source[i]) for i in indices[rows] if i >= 0}
        # A share may hold padding only; its shapes come from the batch's first image.
        blank = _blank(next(iter(views.values()), None) or view.map(source[indices[0]]))
        return stack([views.get(i, blank) for i in indices[rows]])

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
        """As good as endless."""
        return sys.maxsize

    def __getitem__(self, position: int) -> int:
        """The index that comes at a position."""
        epoch, at = divmod(position, len(self._indices))
        return int(self._epoch(epoch)[at])

    def _order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng((self._seed, epoch))
        return rng.permutation(self._indices)


def stack(examples: Sequence[Any]) -> Any:
    """Stacks equal trees of tuples and arrays along a new first axis; None stays."""
    first = examples[0]
    if first is None:
        return None
    if isinstance(first, tuple):
        parts = [stack(column) for column in zip(*examples, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    return np.stack(examples)


def _render(view: augment.TrainView, placed: Sequence[augment.Placed]) -> Batch:
    """The examples of a batch, warped straight into its image array.

    A copy of every image into fresh memory would cost a fifth of decoding it.
    """
    images = np.empty((len(placed), view.size, view.size, 3), np.uint8)
    examples = []
    for place, image in zip(placed, images, strict=True):
        example = view.view(place, out=image)
        examples.append(example._replace(inputs=example.inputs._replace(image=None)))
    batch = stack(examples)
    return batch._replace(inputs=batch.inputs._replace(image=images))


def plain_loop(source: Source, data: Mapping[str, Any]) -> Callable[[int], np.ndarray]:
    """The least that reading one image costs: decode and one warp, nothing else.

    The benchmark compares the pipeline with it.
    """
    side = int(data["size"])

    def read(index: int) -> np.ndarray:
        record = source[index]
        image, height, width = record["image"], record["height"], record["width"]
        if not isinstance(image, np.ndarray):
            data = np.frombuffer(image, np.uint8)
            image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
        center, short = (width / 2, height / 2), min(height, width)
        matrix = warp.window_matrix(center, short, 20.0, side, side)
        return warp.warp_image(image, matrix, side, side)

    return read


def _reading(data: Mapping[str, Any]) -> Any:
    """Grain's options for so many threads, each a batch ahead."""
    import grain

    threads = int(data["threads"])
    # Reading threads are the parallelism; OpenCV's own would fight them for cores.
    cv2.setNumThreads(0)
    ahead = threads + 1 if threads else 0
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)


def _options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the training view; pairs become tuples, which hash."""
    options = dict(settings)
    if "scale" in options:
        options["scale"] = tuple(options["scale"])
    return options


def _share(batch_size: int, process_count: int) -> int:
    if batch_size % process_count:
        raise UserError(
            f"batch_size {batch_size} does not divide among {process_count} processes."
        )
    return batch_size // process_count


def _chosen(source: Source, min_joints: int) -> list[int]:
    """Indices of the images whose people have enough labelled joints."""
    if not min_joints:
        return list(range(len(source)))
    counts = getattr(source, "labelled_joints", None)
    if counts is None:
        everyone = (source[i]["persons"]["joints"] for i in range(len(source)))
        counts = [np.sum(joints[:, :, 2] > 0) for joints in everyone]
    chosen = np.flatnonzero(np.asarray(counts) >= min_joints).tolist()
    if not chosen:
        raise UserError(
            f"{source.name}: no image has data.min_joints = {min_joints} joints."
        )
    return chosen


def _sizes(source: Source, limit: int) -> np.ndarray:
    """Height and width [N, 2] of the images to test on."""
    count = min(limit, len(source)) if limit else len(source)
    known = getattr(source, "sizes", None)
    if known is not None:
        return known[:count]
    same = getattr(source, "size", None)
    if same is not None:
        return np.tile(same, (count, 1))
    sizes = [(source[i]["height"], source[i]["width"]) for i in range(count)]
    return np.array(sizes, np.int64).reshape(-1, 2)


def _plan(
    sizes: np.ndarray, view: augment.TestView, batch_size: int
) -> list[list[int]]:
    """Image indices of each batch, B of them, -1 for padding."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (height, width) in enumerate(sizes):
        canvas = warp.test_canvas(height, width, view.size, view.multiple)
        groups.setdefault(canvas, []).append(index)
    batches = []
    for indices in groups.values():
        for at in range(0, len(indices), batch_size):
            rows = indices[at : at + batch_size]
            batches.append(rows + [-1] * (batch_size - len(rows)))
    return batches


def _blank(example: Any) -> Any:
    """A padding row of the same shapes: black, without people, image_id -1."""
    if example is None:
        return None
    if isinstance(example, Batch):
        parts = [_blank(part) for part in example[:2]]
        return Batch(parts[0], parts[1], np.int64(-1))
    if isinstance(example, tuple):
        parts = [_blank(part) for part in example]
        return type(example)(*parts) if hasattr(example, "_fields") else tuple(parts)
    return np.zeros_like(example)
