"""Files of torch.save, read and written without torch.

Such a file is a pickle that names a function to call for each tensor, beside the
tensors' bytes. A pickle may name any function there is, so this reader looks names up
in a table of its own and runs nothing else; a file with another name is refused.

Both forms are read: the zip archive (torch 1.6 and later) and the one before it, a row
of pickles with the bytes behind them. Arrays stay in the file, see stored.py.
"""

import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from occjax.errors import UserError
from occjax.runtime import stored

_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the form before the zip archive
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


class _Storage(NamedTuple):
    """A block of bytes that tensors are cut from."""

    key: str
    dtype: str  # key of stored.DTYPES
    count: int  # elements


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Inert(dict):
    """A dict, or something nobody needs; what it would be told besides is ignored."""

    def __setstate__(self, state: Any) -> None:
        """Torch leaves version numbers here."""


class _Allowed:
    """A function that a pickle may call, and can do nothing else with."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes what it calls")


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, *unused: Any
) -> _Tensor:
    """Stands for torch._utils._rebuild_tensor_v2."""
    del unused  # whether it learns, and hooks
    sound = (
        isinstance(storage, _Storage)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides)
        and all(type(n) is int and n >= 0 for n in (offset, *shape, *strides))
    )
    if not sound:
        raise pickle.UnpicklingError("a tensor without sound storage, shape or strides")
    # No more elements than are stored: small files cannot ask for large memory.
    inside = offset + stored.span(shape, strides) <= storage.count
    if not inside or math.prod(shape) > storage.count:
        raise pickle.UnpicklingError(f"a tensor {shape} exceeds its storage")
    return _Tensor(storage, offset, shape, strides)


def _nothing(*unused: Any) -> _Inert:
    """Stands for NumPy's scalars: the epoch or score beside a state dict."""
    del unused
    return _Inert()


_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Allowed(_Inert),
    ("torch._utils", "_rebuild_tensor"): _Allowed(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Allowed(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Allowed(lambda tensor, *unused: tensor),
    ("torch", "Size"): _Allowed(tuple),
    ("numpy", "dtype"): _Allowed(_nothing),
    ("numpy.core.multiarray", "scalar"): _Allowed(_nothing),
    ("numpy._core.multiarray", "scalar"): _Allowed(_nothing),
    ("_codecs", "encode"): _Allowed(_nothing),  # the bytes of a NumPy scalar
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
}


class _Reader(pickle.Unpickler):
    """Unpickles with the names of the table alone."""

    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding="utf-8")

    def find_class(self, module: str, name: str) -> Any:
        """Looks a name up in the table; imports nothing."""
        try:
            return _NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which no state dict needs; nothing was "
                "run; save the state_dict alone"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage that a pickle refers to."""
        match pid:
            case ("storage", str(dtype), str(key), _, int(count)) if count >= 0:
                return _Storage(key, dtype, count)
            case ("storage", str(dtype), str(key), _, int(count), None) if count >= 0:
                return _Storage(key, dtype, count)
        raise pickle.UnpicklingError("it refers to something that is no storage")


def read(path: str | os.PathLike[str]) -> Any:
    """The object in a file of torch.save, with `stored.Stored` in place of tensors.

    Raises:
        UserError: the file is damaged, or no plain state dict; nothing in it was run.
    """
    try:
        with open(path, "rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        tree, places, order = _read_zip(path) if zipped else _read_old(path)
        return _located(tree, os.fspath(path), places, order)
    except Exception as error:  # a damaged pickle may raise anything
        if isinstance(error, OSError) and error.filename:  # it cannot be opened
            raise
        why = str(error).strip().split("\n", 1)[0] or type(error).__name__
        raise UserError(f"{path}: not read: {why}.") from error


_Places = dict[str, tuple[int, int]]  # key of a storage -> first byte, bytes


def _read_zip(path: str | os.PathLike[str]) -> tuple[Any, _Places, str]:
    """Object, storages and byte order of the zip form."""
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            entries = {info.filename: info for info in archive.infolist()}
            if any(info.compress_type != 0 for info in entries.values()):
                raise ValueError("its parts are compressed, as torch.save never does")
            if damaged := archive.testzip():
                raise ValueError(f"damaged at {damaged}")
            folder = _folder(entries)
            data = f"{folder}data/"
            places = {
                name.removeprefix(data): (start(file, info), info.file_size)
                for name, info in entries.items()
                if name.startswith(data)
            }
            order = ">" if _text(archive, f"{folder}byteorder") == "big" else "<"
            with archive.open(f"{folder}data.pkl") as part:
                return _Reader(part).load(), places, order  # pyright: ignore[reportArgumentType]
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"a truncated or damaged zip archive ({error})") from error


def _folder(entries: Mapping[str, Any]) -> str:
    """What precedes every name in the archive, "archive/" for one."""
    found = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
    if len(found) != 1:
        raise ValueError("a zip archive, but not of torch.save: data.pkl is not in it")
    return found[0].removesuffix("data.pkl")


def _text(archive: zipfile.ZipFile, name: str) -> str:
    return archive.read(name).decode() if name in archive.namelist() else ""


def start(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry begin: behind its own header, name and extras."""
    file.seek(info.header_offset + 26)
    name, extra = struct.unpack("<HH", file.read(4))
    return info.header_offset + 30 + name + extra


def _read_old(path: str | os.PathLike[str]) -> tuple[Any, _Places, str]:
    """Object, storages and byte order of the form before the zip archive.

    Pickles follow one another: magic number, version, system, object, the keys of the
    storages; then for each key the number of elements and the elements.
    """
    sizes: dict[str, int] = {}

    class Reader(_Reader):
        def persistent_load(self, pid: Any) -> _Storage:
            storage = super().persistent_load(pid)
            sizes[storage.key] = stored.DTYPES[storage.dtype].itemsize
            return storage

    with open(path, "rb") as file:
        if not _is_old(file):
            raise ValueError(
                "no file of torch.save, or of a torch before 0.1.10; load it with "
                "torch and save its state_dict again"
            )
        _Reader(file).load()  # version
        order = "<" if _Reader(file).load()["little_endian"] else ">"
        tree = Reader(file).load()
        places = {}
        for key in _Reader(file).load():
            (count,) = struct.unpack(f"{order}q", file.read(8))
            places[key] = (file.tell(), count * sizes[key])
            file.seek(count * sizes[key], os.SEEK_CUR)
            if count < 0 or file.tell() > os.path.getsize(path):
                raise ValueError("truncated: it ends before its arrays do")
        return tree, places, order


def _is_old(file: BinaryIO) -> bool:
    # the magic number as protocol 2 writes it; other files are not unpickled at all
    start = pickle.dumps(_MAGIC, 2)
    return file.read(len(start)) == start


def _located(tree: Any, path: str, places: _Places, order: str) -> Any:
    """The object with every tensor replaced by its place in the file."""
    if isinstance(tree, _Tensor):
        dtype = stored.DTYPES[tree.storage.dtype]
        if tree.storage.key not in places:
            raise ValueError(f"storage {tree.storage.key} is missing")
        start, size = places[tree.storage.key]
        if tree.storage.count * dtype.itemsize > size:
            raise ValueError(f"storage {tree.storage.key} is shorter than its tensors")
        start += tree.offset * dtype.itemsize
        return stored.Stored(path, start, dtype, tree.shape, tree.strides, order)
    if isinstance(tree, dict):
        return {key: _located(x, path, places, order) for key, x in tree.items()}
    return tree


def write(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a state dict of float32 arrays that torch.load reads, weights_only too."""
    with zipfile.ZipFile(file, "w") as archive:

        def add(name: str, data: bytes | str) -> None:
            # ZipInfo has no time of day: equal weights give equal bytes
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)

        shapes = {name: array.shape for name, array in arrays.items()}
        add("data.pkl", _pickled(shapes))
        add("byteorder", "little")
        for i, array in enumerate(arrays.values()):
            add(f"data/{i}", np.asarray(array, "<f4").tobytes())
        add("version", "3\n")


def _pickled(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """The pickle of a state dict, opcode by opcode: no torch is there to be pickled."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def many(*parts: bytes) -> bytes:
        return b"(" + b"".join(parts) + b"t"

    made = []
    for i, (name, size) in enumerate(shapes.items()):
        kind = b"ctorch\nFloatStorage\n"
        place = (
            text("storage"),
            kind,
            text(str(i)),
            text("cpu"),
            number(math.prod(size)),
        )
        shape = many(*map(number, size))
        strides = many(*map(number, stored.row_major(size)))
        hooks = b"ccollections\nOrderedDict\n)R"
        args = many(many(*place) + b"Q", number(0), shape, strides, b"\x89", hooks)
        made += [text(name), b"ctorch._utils\n_rebuild_tensor_v2\n", args, b"R"]
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + b"".join(made) + b"u."
