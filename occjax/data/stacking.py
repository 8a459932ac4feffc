"""Examples put together: equal trees of tuples and arrays with one more axis."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from occjax.types import Batch


def stack(examples: Sequence[Any]) -> Any:
    """Stacks equal trees of tuples and arrays along a new first axis; None stays."""
    first = examples[0]
    if first is None:
        return None
    if isinstance(first, tuple):
        parts = [stack(column) for column in zip(*examples, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    return np.stack(examples)


def around(images: np.ndarray, examples: Sequence[Batch]) -> Batch:
    """Stacks examples whose images lie in one array already.

    A copy of every image into fresh memory would cost a fifth of decoding it.

    Args:
        images: [B, ...] with a row for each example.
        examples: with images that need not be looked at.
    """
    bare = [one._replace(inputs=one.inputs._replace(image=None)) for one in examples]
    batch = stack(bare)
    return batch._replace(inputs=batch.inputs._replace(image=images))


def blank(example: Any) -> Any:
    """A padding row of the same shapes: black, without people, image_id -1."""
    if example is None:
        return None
    if isinstance(example, Batch):
        parts = [blank(part) for part in example[:2]]
        return Batch(parts[0], parts[1], np.int64(-1))
    if isinstance(example, tuple):
        parts = [blank(part) for part in example]
        return type(example)(*parts) if hasattr(example, "_fields") else tuple(parts)
    return np.zeros_like(example)
