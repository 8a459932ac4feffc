"""Batches of a pipeline, taken and compared."""

import numpy as np


def take(iterator, count: int) -> list:
    return [next(iterator) for _ in range(count)]


def leaves(batch) -> list[np.ndarray]:
    """All arrays of a batch."""
    if batch is None:
        return []
    if isinstance(batch, tuple | list):
        return [leaf for part in batch for leaf in leaves(part)]
    return [batch]


def assert_same(first, second):
    for a, b in zip(leaves(first), leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


def shapes_of(batch) -> dict:
    """Shape and type of each array of inputs and labels."""
    return {
        name: (value.shape, value.dtype)
        for part in (batch.inputs, batch.labels)
        for name, value in part._asdict().items()
        if isinstance(value, np.ndarray)
    }
