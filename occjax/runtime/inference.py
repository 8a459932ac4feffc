"""The device's part of an evaluation: every image of a dataset once, poses back."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from occjax.runtime.mesh import Layout
from occjax.runtime.step import PredictStep, SuppressStep
from occjax.types import Batch, Inputs, Poses

_IMAGES = 64  # whose poses are suppressed at once
_NOBODY = Poses(0.0, 0.0, 0.0, 0.0, -np.inf)  # type: ignore  # what fills up rows


class Predictions(NamedTuple):
    """Poses of N images or crops, in the order in which they were read."""

    poses: Poses  # NumPy, first axis N
    image_ids: np.ndarray  # [N] int64


class _Seen(NamedTuple):
    """The same, and how many source pixels each input spans."""

    poses: Poses
    image_ids: np.ndarray  # [N] int64
    area: np.ndarray  # [N, 1], or [N, P] of P crops; 0 where nothing is suppressed


def predict_dataset(
    predict_step: PredictStep,
    variables: Mapping[str, Any],
    batches: Iterable[Batch],
    layout: Layout,
    suppress: SuppressStep | None = None,
) -> Predictions:
    """Runs a jitted step over test batches; padding (image id -1) is left out.

    With `suppress` batches are of crops, whose poses come back a row an image; inputs
    of several crops each are of images already.

    All processes must call it with batches of the same shapes; each gets all poses.
    The next batch is dispatched before the last one's poses are read.
    """
    found: list[_Seen] = []
    waiting: tuple[Poses, np.ndarray, np.ndarray] | None = None
    for batch in batches:
        poses = predict_step(variables, layout.shard_batch(batch.inputs))
        if waiting is not None:
            found.append(_read(*waiting))
        ids = _all_ids(np.asarray(batch.image_id), layout)
        area = np.zeros((len(ids), 1))
        if suppress:
            area = _gathered(_areas(batch.inputs), layout)
        waiting = poses, ids, area
    if waiting is None:
        raise ValueError("predict_dataset needs at least one batch; there is none.")
    found.append(_read(*waiting))
    joined = _join(found)
    if suppress is None:
        return Predictions(joined.poses, joined.image_ids)
    return _by_image(joined, suppress)


def _by_image(found: _Seen, suppress: SuppressStep) -> Predictions:
    """Poses of crops as poses of images, in the order of each image's first crop."""
    ids, first, image = np.unique(
        found.image_ids, return_index=True, return_inverse=True
    )
    order = np.argsort(image, kind="stable")  # crops, image after image
    counts = np.bincount(image)
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    images = -(-len(ids) // _IMAGES) * _IMAGES  # a whole number of equal parts

    def rows(x: np.ndarray, fill: float) -> np.ndarray:
        """[N, P, ...] of crops to [images, crops * P, ...]."""
        full = np.full((images, counts.max(), *x.shape[1:]), fill, x.dtype)
        full[image[order], place] = x[order]
        return full.reshape(images, -1, *x.shape[2:])

    poses = Poses(*map(rows, found.poses, _NOBODY))
    area = rows(np.broadcast_to(found.area, found.poses.score.shape), 0.0)
    parts = [slice(at, at + _IMAGES) for at in range(0, images, _IMAGES)]
    scores = [suppress(Poses(*(x[part] for x in poses)), area[part]) for part in parts]
    poses = poses._replace(score=np.concatenate(jax.device_get(scores)))
    shown = np.argsort(first)
    return Predictions(Poses(*(x[shown] for x in poses)), ids[shown])


def _areas(inputs: Inputs) -> np.ndarray:
    """How many source pixels each input [B, 1], or each of P crops [B, P], spans."""
    height, width = inputs.image.shape[-3:-1]
    linear = np.asarray(inputs.to_source)[..., :2]
    area = np.abs(np.linalg.det(linear)) * (height * width)
    return area.reshape(len(area), -1)


def _all_ids(local: np.ndarray, layout: Layout) -> np.ndarray:
    """Image ids of the global batch, in its order."""
    if jax.process_count() == 1:
        return local
    # As two 32-bit halves: without x64, jax would cut 64-bit ids.
    halves = np.ascontiguousarray(local, np.int64).view(np.int32).reshape(-1, 2)
    return np.ascontiguousarray(_gathered(halves, layout)).view(np.int64)[:, 0]


def _gathered(local: np.ndarray, layout: Layout) -> np.ndarray:
    """The rows of all processes, as they lie in the global batch.

    That is the order of the mesh, which on a TPU pod is not that of the processes.
    """
    if jax.process_count() == 1:
        return local
    spread = layout.shard_batch(local)
    return np.asarray(multihost_utils.process_allgather(spread, tiled=True))


def _read(poses: Poses, image_ids: np.ndarray, area: np.ndarray) -> _Seen:
    host = jax.device_get(poses)
    real = image_ids >= 0
    return _Seen(Poses(*(x[real] for x in host)), image_ids[real], area[real])


def _join(parts: list[_Seen]) -> _Seen:
    """All parts as one; parts with fewer persons are padded."""
    persons = max(part.poses.score.shape[1] for part in parts)

    def pad(x: np.ndarray, fill: float) -> np.ndarray:
        widths = [(0, 0), (0, persons - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
        return np.pad(x, widths, constant_values=fill)

    fields = [
        np.concatenate([pad(part.poses[i], _NOBODY[i]) for part in parts])
        for i in range(len(_NOBODY))
    ]
    ids, area = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("image_ids", "area")
    )
    return _Seen(Poses(*fields), ids, area)
