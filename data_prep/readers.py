"""Reading the annotation files of public datasets: JSON and MATLAB, plain or packed."""

import gzip
import hashlib
import json
import multiprocessing
import pathlib
import zlib
from concurrent import futures
from concurrent.futures import process
from typing import Any

from occjax.errors import UserError


def read_bytes(path: pathlib.Path) -> tuple[bytes, str]:
    """What an annotation file holds, unpacked if it is .gz, and its SHA-256.

    Raises:
        UserError: it cannot be read or unpacked.
    """
    try:
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"--annotations: {path} cannot be read: {error}.") from error
    return text, hashlib.sha256(data).hexdigest()


def read_json(path: pathlib.Path) -> tuple[Any, dict]:
    """Content of a .json or .json.gz file, and first facts about it.

    Raises:
        UserError: it cannot be read or is no JSON.
    """
    text, digest = read_bytes(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON file: {error}.") from error
    return content, {"annotations": path.name, "sha256": digest}


def read_mat(path: pathlib.Path, key: str) -> tuple[Any, dict]:
    """A variable of a MATLAB file, structs as objects, and first facts about it.

    Raises:
        UserError: it cannot be read, is no MATLAB file, or lacks the variable.
    """
    _, digest = read_bytes(path)
    print(f"reading {path}")  # MPII's takes half a minute
    try:
        content = _load_apart(path)
    except Exception as error:  # noqa: BLE001  # damage makes SciPy raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path} is no MATLAB file: {reason[0]}.") from error
    if key not in content:
        found = ", ".join(name for name in content if not name.startswith("__"))
        raise UserError(f"{path} has no variable {key!r}, only {found or 'none'}.")
    return content[key], {"annotations": path.name, "sha256": digest}


def _load_apart(path: pathlib.Path) -> dict[str, Any]:
    """The variables of a MATLAB file, read by a process that may crash.

    Damaged structs can lead SciPy's parser, which is no Python, out of its memory.
    """
    import scipy.io  # slow, and only here

    context = multiprocessing.get_context("spawn")
    options = {"struct_as_record": False, "squeeze_me": True}
    with futures.ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(scipy.io.loadmat, str(path), **options).result()
        except process.BrokenProcessPool as error:
            raise ValueError("its parser crashed") from error
