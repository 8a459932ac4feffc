"""SHA-256 of every image of a prepared split, and what may not be trained on.

They stand beside the split as `sha256sum` writes them: run in the folder of the
images, `sha256sum --check NAME-SPLIT.sha256` says whether all are still the same.

Equal bytes are the same photograph, but not the other way round: a dataset that saved
COCO's photographs anew shares none of COCO's bytes. Of CrowdPose, which reuses many,
this is not known: the two of its own files that were looked at are progressive JPEG,
which none of 152 COCO files is. An exclusion that finds no image says so.
"""

import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Sequence

from occjax.data.records import VERSION
from occjax.errors import UserError

EVALUATION = ("val", "test")  # splits that figures are reported on


def file_name(dataset: str, split: str) -> str:
    """Name of the file that holds the hashes of a split."""
    return f"{dataset}-{split}.sha256"


def of(data: bytes) -> str:
    """SHA-256 of an image's bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def text(digests: Iterable[str], names: Iterable[str]) -> str:
    """The file's text from one hash and one file name for each image."""
    pairs = zip(digests, names, strict=True)
    return "".join(f"{digest}  {name}\n" for digest, name in pairs)


def excluded(
    out: str | pathlib.Path, names: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Splits whose images are to be left out, as (DATASET/SPLIT, path of hashes).

    Args:
        out: folder of all datasets.
        names: each DATASET, which stands for its evaluation splits, or DATASET/SPLIT.

    Raises:
        UserError: a dataset or split is not there, or was prepared without hashes.
    """
    found = []
    for name in names:
        dataset, _, split = name.partition("/")
        folder = pathlib.Path(out) / dataset / VERSION
        there = _splits(folder, name)
        chosen = [split] if split else [one for one in EVALUATION if one in there]
        if not chosen or not set(chosen) <= set(there):
            raise UserError(
                f"--exclude {name}: {folder} has no split "
                f"{split or ' or '.join(EVALUATION)}, only {', '.join(there)}."
            )
        for one in chosen:
            path = folder / file_name(dataset, one)
            if not path.is_file():
                raise UserError(f"--exclude {name}: {path} is not there; prepare it.")
            found.append((f"{dataset}/{one}", str(path)))
    return tuple(found)


@functools.cache
def holders(splits: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Which split holds an image, by the image's hash; read once in each process."""
    held: dict[str, str] = {}
    for label, path in splits:
        for line in pathlib.Path(path).read_text("utf-8").split("\n"):
            held.setdefault(line[:64], label)
    return held


def _splits(folder: pathlib.Path, name: str) -> list[str]:
    try:
        return list(json.loads((folder / "metadata.json").read_text())["splits"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"--exclude {name}: there is no prepared dataset {folder}."
        ) from error
