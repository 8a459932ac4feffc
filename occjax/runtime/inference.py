"""The device's part of an evaluation: every image of a dataset once, poses back."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from occjax.runtime.mesh import Layout
from occjax.runtime.step import PredictStep
from occjax.types import Batch, Poses


class Predictions(NamedTuple):
    """Poses of N images, in the order in which they were read."""

    poses: Poses  # NumPy, first axis N
    image_ids: np.ndarray  # [N] int64


def predict_dataset(
    predict_step: PredictStep,
    variables: Mapping[str, Any],
    batches: Iterable[Batch],
    layout: Layout,
) -> Predictions:
    """Runs a jitted step over test batches; padding (image id -1) is left out.

    All processes must call it with batches of the same shapes; each gets all poses.
    The next batch is dispatched before the last one's poses are read.
    """
    found: list[Predictions] = []
    waiting: tuple[Poses, np.ndarray] | None = None
    for batch in batches:
        poses = predict_step(variables, layout.shard_batch(batch.inputs))
        if waiting is not None:
            found.append(_read(*waiting))
        waiting = poses, _all_ids(np.asarray(batch.image_id))
    if waiting is None:
        raise ValueError("predict_dataset needs at least one batch; there is none.")
    found.append(_read(*waiting))
    return _join(found)


def _all_ids(local: np.ndarray) -> np.ndarray:
    """Image ids of the global batch, in its order."""
    if jax.process_count() == 1:
        return local
    # As two 32-bit halves: without x64, jax would cut 64-bit ids.
    halves = local.astype(np.int64).view(np.int32)
    gathered = multihost_utils.process_allgather(halves)
    return np.asarray(gathered).reshape(-1).view(np.int64)


def _read(poses: Poses, image_ids: np.ndarray) -> Predictions:
    host = jax.device_get(poses)
    real = image_ids >= 0
    return Predictions(Poses(*(x[real] for x in host)), image_ids[real])


def _join(parts: list[Predictions]) -> Predictions:
    """All parts as one; parts with fewer persons are padded."""
    persons = max(part.poses.score.shape[1] for part in parts)

    def pad(x: np.ndarray, fill: float) -> np.ndarray:
        widths = [(0, 0), (0, persons - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
        return np.pad(x, widths, constant_values=fill)

    fills = Poses(0.0, 0.0, 0.0, -np.inf)
    fields = [
        np.concatenate([pad(part.poses[i], fills[i]) for part in parts])
        for i in range(len(fills))
    ]
    ids = np.concatenate([part.image_ids for part in parts])
    return Predictions(Poses(*fields), ids)
