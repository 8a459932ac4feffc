"""Files that are never seen half-written."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO


@contextlib.contextmanager
def writing(path: str | pathlib.Path) -> Iterator[BinaryIO]:
    """A file to write to; at any moment the path is the old or the whole new one."""
    path = pathlib.Path(path)
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


def write_bytes(path: str | pathlib.Path, data: bytes) -> None:
    """Writes a file like `writing`."""
    with writing(path) as file:
        file.write(data)


def write_json(
    path: str | pathlib.Path, content: Any, indent: int | None = None
) -> None:
    """Writes json like `write_bytes`.

    Raises:
        ValueError: the content holds NaN or infinity, which json does not know.
    """
    text = json.dumps(content, indent=indent, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())
