"""Arrays that stay in their file until they are asked for, one at a time."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

# Element types of weight files; bfloat16 is no type of NumPy's own.
DTYPES = {
    name: np.dtype(name)
    for name in ("float64", "float32", "float16", "int64", "int32", "int16", "int8")
}
DTYPES |= {
    "uint8": np.dtype("uint8"),
    "bool": np.dtype("bool"),
    "bfloat16": np.dtype(jnp.bfloat16),
}


class Stored(NamedTuple):
    """Where and how an array lies in a file."""

    path: str
    start: int  # byte of its first element
    dtype: np.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements, as torch counts them
    order: str = "<"  # "<" little, ">" big endian

    @property
    def span(self) -> int:
        """Elements from the first to the last, those between included."""
        return span(self.shape, self.strides)

    def read(self) -> np.ndarray:
        """The array, contiguous and in this machine's byte order."""
        size = self.dtype.itemsize
        raw = np.fromfile(self.path, f"{self.order}u{size}", self.span, "", self.start)
        if len(raw) < self.span:
            raise OSError(f"{self.path}: ends before its arrays do.")
        flat = raw.astype(f"=u{size}", copy=False).view(self.dtype)
        steps = tuple(step * size for step in self.strides)
        view = np.lib.stride_tricks.as_strided(flat, self.shape, steps)
        return np.require(view, requirements="C")


class Arrays(Mapping[str, np.ndarray]):
    """Name -> array, read anew from its file at every access."""

    def __init__(self, readers: Mapping[str, Callable[[], np.ndarray]]):
        """From name -> function that reads the array."""
        self._readers = dict(readers)

    def __getitem__(self, name: str) -> np.ndarray:
        """Reads one array."""
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        """The names, in the order of the file."""
        return iter(self._readers)

    def __len__(self) -> int:
        """How many arrays there are."""
        return len(self._readers)

    def shortened(self, prefix: str) -> "Arrays":
        """The same arrays, their names without a prefix."""
        readers = self._readers.items()
        return Arrays({name.removeprefix(prefix): read for name, read in readers})

    def beside(self, other: "Arrays") -> "Arrays":
        """These arrays and those of another file; of equal names the other's."""
        return Arrays({**self._readers, **other._readers})

    def widened(self) -> "Arrays":
        """Floats of 16 bits as float32, which holds each of their values exactly."""

        def wide(read: Callable[[], np.ndarray]) -> np.ndarray:
            array = read()
            half = array.dtype in (DTYPES["float16"], DTYPES["bfloat16"])
            return array.astype(np.float32) if half else array

        return Arrays(
            {name: functools.partial(wide, x) for name, x in self._readers.items()}
        )


def span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first to the last of a strided array; 0 if it is empty."""
    if not math.prod(shape):
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of an array without gaps, last axis fastest."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
