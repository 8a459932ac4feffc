"""Files of weights: torch's .pth, .safetensors and NumPy's .npz, in and out.

    state_dict = weight_files.read("hrnet_w32.pth")  # name -> array

A state dict may stand alone or under "state_dict" or "model", that of DAG's graph
beside it under "gcn_state_dict", and its names may all begin with "module." or
"model.module.", which is left out. Nothing in a file is run, and an array is read when
it is asked for.
"""

import json
import math
import os
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np

from occjax import files
from occjax.errors import UserError
from occjax.runtime import stored, torch_files

SUFFIXES = (".pth", ".pth.tar", ".pt", ".safetensors", ".npz")
_WRAPPERS = ("state_dict", "model")
_BESIDE = "gcn_state_dict"  # in DAG's files, further arrays of the same model
_PREFIXES = ("model.module.", "module.")  # of torch's DataParallel
_SAFE = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def is_weights(path: str | os.PathLike[str]) -> bool:
    """Whether a path is named like a file of weights and is no folder."""
    return os.fspath(path).endswith(SUFFIXES) and not os.path.isdir(path)


def read(path: str | os.PathLike[str]) -> stored.Arrays:
    """Name -> array of a state dict; arrays are read one by one, when asked for.

    Raises:
        UserError: no such file, an unknown kind of file, a damaged one, or one that
            holds something else than arrays by name.
    """
    check_name(path)
    if not os.path.isfile(path):
        raise UserError(f"{path}: there is no such file.")
    if os.fspath(path).endswith(".npz"):
        arrays = _read_npz(path)
    elif os.fspath(path).endswith(".safetensors"):
        arrays = _read_safetensors(path)
    else:
        arrays = _state_dict(path, torch_files.read(path))
    if not arrays:
        raise UserError(f"{path}: has no arrays.")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in arrays):
            return arrays.shortened(prefix)
    return arrays


def read_together(paths: Sequence[str | os.PathLike[str]]) -> stored.Arrays:
    """The arrays of a model that was published in several files.

    Raises:
        UserError: as `read`, or two files have arrays of one name.
    """
    together = stored.Arrays({})
    for path in paths:
        arrays = read(path)
        twice = sorted(arrays.keys() & together.keys())
        if twice:
            raise UserError(
                f"{path}: has {len(twice)} arrays that another file given has too, "
                f"the first {twice[0]}."
            )
        together = together.beside(arrays)
    return together


def write(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes float32 arrays by name; the file appears whole or not at all.

    Raises:
        UserError: the name of the file tells no kind that is known.
    """
    check_name(path)
    with files.writing(os.fspath(path)) as file:
        if os.fspath(path).endswith(".npz"):
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
        elif os.fspath(path).endswith(".safetensors"):
            _write_safetensors(file, arrays)
        else:
            torch_files.write(file, arrays)


def check_name(path: str | os.PathLike[str]) -> None:
    """Raises UserError unless a file is named like one of weights."""
    if not os.fspath(path).endswith(SUFFIXES):
        raise UserError(f"{path}: expected a file named *{', *'.join(SUFFIXES)}.")


def _state_dict(path: Any, tree: Any) -> stored.Arrays:
    """The arrays of what torch.save wrote, which may have wrapped them."""
    for name in _WRAPPERS:
        if isinstance(tree, dict) and isinstance(tree.get(name), dict):
            beside = tree.get(_BESIDE)
            tree = tree[name] | (beside if isinstance(beside, dict) else {})
            break
    if not isinstance(tree, dict):
        raise UserError(
            f"{path}: holds a {type(tree).__name__}, expected a state dict."
        )
    odd = [str(k) for k, x in tree.items() if not isinstance(x, stored.Stored)]
    if odd:
        raise UserError(
            f"{path}: expected a state dict, alone or under {' or '.join(_WRAPPERS)}; "
            f"these are no arrays: {', '.join(odd)}."
        )
    return stored.Arrays({str(name): array.read for name, array in tree.items()})


def _read_npz(path: Any) -> stored.Arrays:
    """Arrays of numpy.savez; those that would need a pickle are refused."""
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: not read: truncated, or no .npz file.")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile raises many kinds
        raise UserError(f"{path}: not read: a damaged .npz file.") from error

    def reader(name: str, entry: zipfile.ZipInfo) -> Any:
        def read_one() -> np.ndarray:
            try:
                with open(path, "rb") as file:
                    file.seek(torch_files.start(file, entry))
                    part = zipfile.ZipExtFile(file, "r", entry)
                    return np.lib.format.read_array(part, allow_pickle=False)
            except Exception as error:
                why = str(error).strip().split("\n", 1)[0]
                raise UserError(f"{path}: {name} is not read: {why}") from error

        return read_one

    named = {entry.filename.removesuffix(".npy"): entry for entry in entries}
    return stored.Arrays({name: reader(name, entry) for name, entry in named.items()})


def _read_safetensors(path: Any) -> stored.Arrays:
    """Eight bytes, the length of the json header; the header; the arrays' bytes."""
    size = os.path.getsize(path)
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        start, rest = 8 + length, size - 8 - length
        places = {
            name: _safe_place(path, name, x, start, rest) for name, x in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise UserError(f"{path}: no sound .safetensors file: {error}.") from error
    return stored.Arrays({name: place.read for name, place in places.items()})


def _safe_place(path: Any, name: str, entry: Any, start: int, rest: int) -> Any:
    """Where an array lies.

    Raises:
        ValueError: outside of the file, or not as long as its shape asks for.
        KeyError: an unknown type, or the entry is incomplete.
    """
    dtype = stored.DTYPES[_SAFE[entry["dtype"]]]
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"{name} has no sound shape or place")
    if end > rest or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} does not fit its {rest} bytes; is it truncated?")
    strides = stored.row_major(shape)
    return stored.Stored(os.fspath(path), start + begin, dtype, shape, strides)


def _write_safetensors(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    header, end = {}, 0
    for name, array in arrays.items():
        begin, end = end, end + 4 * array.size
        place = [begin, end]
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": place}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # arrays begin at a multiple of eight
    file.write(struct.pack("<Q", len(text)) + text)
    for array in arrays.values():
        file.write(np.asarray(array, "<f4").tobytes())
