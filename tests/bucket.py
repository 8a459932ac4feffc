"""A bucket gs:// in memory: what etils asks for one is answered without a network."""

from typing import Any

import fsspec
import pytest
from etils import epath
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """Objects by name; like a store it has no folders and nothing to append to."""

    protocol = ("gs", "gcs")
    store: dict[str, Any] = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        path = str(path).removeprefix("gs://").strip("/")
        return f"/{path}" if path else ""

    def _open(self, path: Any, mode: str = "rb", **kwargs: Any) -> Any:
        assert mode in ("rb", "wb"), mode
        return super()._open(path, mode, **kwargs)

    def mv(self, *_: Any, **__: Any) -> None:
        raise AssertionError("an object cannot be renamed")


def install(monkeypatch: pytest.MonkeyPatch) -> epath.Path:
    """The path of an empty bucket; any other one exists as well."""
    monkeypatch.setattr(Bucket, "store", {})
    monkeypatch.setattr(Bucket, "pseudo_dirs", [""])
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    return epath.Path("gs://bucket")
