"""Files that are never seen half-written, in folders and in buckets.

Every path that a user gives may be a local one or one that etils knows: gs://BUCKET/...
(with gcsfs installed), s3://... (with s3fs).
"""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from etils import epath


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path leads to an object store such as gs:// instead of a folder."""
    return "://" in os.fspath(epath.Path(path))


@contextlib.contextmanager
def writing(path: epath.PathLike) -> Iterator[BinaryIO]:
    """A file to write to; at any moment the path is the old or the whole new one.

    An object of a store appears whole once it was sent; until then it is in memory.
    """
    path = epath.Path(path)
    if is_remote(path):
        whole = io.BytesIO()
        yield whole
        path.write_bytes(whole.getvalue())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(temporary, 0o644)  # mkstemp lets only the owner read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextlib.contextmanager
def writing_local(path: epath.PathLike) -> Iterator[str]:
    """Name of a local file for a library that writes itself; else like `writing`."""
    path = epath.Path(path)
    place = None if is_remote(path) else path.parent
    with tempfile.TemporaryDirectory(dir=place, prefix=".writing-") as folder:
        name = os.path.join(folder, path.name)
        yield name
        if place is None:
            path.write_bytes(epath.Path(name).read_bytes())
        else:
            os.replace(name, path)


@contextlib.contextmanager
def local(path: epath.PathLike) -> Iterator[str]:
    """Name of a local file for a library that reads itself: the same, or a copy."""
    path = epath.Path(path)
    if not is_remote(path):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        name = os.path.join(folder, path.name)
        epath.Path(name).write_bytes(path.read_bytes())
        yield name


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Writes a file like `writing`."""
    with writing(path) as file:
        file.write(data)


def write_json(path: epath.PathLike, content: Any, indent: int | None = None) -> None:
    """Writes json like `write_bytes`.

    Raises:
        ValueError: the content holds NaN or infinity, which json does not know.
    """
    text = json.dumps(content, indent=indent, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())
