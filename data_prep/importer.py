"""Images and annotations in COCO's form to records: what all builders share.

A builder reads its dataset's files and says the same in COCO's form, a dictionary with
the lists "images" and "annotations". An annotation may have, besides COCO's keys,
`is_target` and `head_size` of a record. Images are kept as they are, byte for byte.
Everything that is left out is counted.
"""

import collections
import os
import pathlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data_prep import builder, hashes, persons
from data_prep.account import Account
from occjax import skeletons
from occjax.data.records import Record, decode
from occjax.errors import UserError

# Other people's joints in a person's box, by the person's own: far below this.
_LARGEST_INDEX = 1e4


def prepare(
    out: str | pathlib.Path,
    name: str,
    split: str,
    images: str | pathlib.Path,
    content: Mapping[str, Any],
    skeleton: skeletons.Skeleton,
    facts: Mapping[str, Any],
    *,
    exclude: Sequence[str] = (),
    **how: Any,
) -> Account:
    """Writes a split from content in COCO's form; returns what became of it.

    Args:
        out: folder of all datasets.
        name: of the dataset.
        split: to write.
        images: folder that the file names start from.
        content: "images" and "annotations".
        skeleton: J joints of the annotations.
        facts: about the annotations, kept with the split: their file's name, `sha256`.
        exclude: other datasets below `out`, DATASET or DATASET/SPLIT: an image whose
            bytes their evaluation splits, or the split, hold is left out.
        **how: `workers` and Beam, as `builder.write` takes them.

    Raises:
        UserError: there is no such folder, it has none of the images, or the split
            cannot be written.
    """
    folder = pathlib.Path(images)
    if not folder.is_dir():
        raise UserError(f"--images: there is no folder {folder}.")
    held = hashes.excluded(out, exclude)
    account = Account()
    items = tasks(content, account)
    _check_folder(folder, items)
    read = Reader(str(folder), skeleton.num_joints, held)
    settings = {
        "images": str(folder),
        "excluded": {label: _digest(path) for label, path in held},
    }
    given = builder.Content(items, read, account, skeleton, facts, settings)
    total = builder.write(out, name, split, given, **how)
    for label, _ in held:
        count = total.dropped["images"][_held_by(label)]
        print(f"excluded: {count} images whose bytes {label} holds")
    return total


def tasks(content: Mapping[str, Any], account: Account) -> list[dict[str, Any]]:
    """One task for each image of the content, in its order.

    A task is the image's `entry` and its `annotations`. What only the whole content
    can tell, such as ids used twice, is checked here, and the rest by a `Reader`.

    Args:
        content: "images" and "annotations".
        account: told about all that comes in and what is left out here.
    """
    account.receive(len(content["images"]), len(content["annotations"]))
    entries = _unique_images(content["images"], account)
    by_image = _by_image(content["annotations"], entries, account)
    return [
        {"entry": entry, "annotations": by_image[number]}
        for number, entry in entries.items()
    ]


class Reader(NamedTuple):
    """Makes the record of one task; a value, so that any process can do it."""

    folder: str  # of the images
    num_joints: int  # J of the annotations
    excluded: tuple[tuple[str, str], ...] = ()  # as `hashes.excluded` finds them

    def __call__(self, task: dict[str, Any], account: Account) -> Record | None:
        """The record of an image and its usable annotations.

        Args:
            task: one of `tasks`.
            account: told about all that is left out.

        Returns:
            The record, or None if the image is left out.
        """
        entry, annotations = task["entry"], task["annotations"]
        try:
            data, shape = self._image(entry["file_name"])
        except _Unusable as reason:
            account.drop("images", str(reason))
            account.drop("persons", str(reason), len(annotations))
            return None
        height, width = shape
        if (entry.get("height", height), entry.get("width", width)) != shape:
            account.note("images whose listed size is not that of their pixels")
        people = []
        for annotation in annotations:
            try:
                one = persons.check(annotation, shape, self.num_joints, account)
                people.append(one)
            except persons.Unusable as reason:
                account.drop("persons", str(reason))
        return {
            "image": data,
            "image_id": entry["id"],
            "file_name": entry["file_name"],
            "height": height,
            "width": width,
            "crowd_index": crowd_index(entry),
            "persons": persons.columns(people, self.num_joints),
        }

    def _image(self, name: str) -> tuple[bytes, tuple[int, int]]:
        """Bytes of an image and its height and width."""
        try:
            data = pathlib.Path(self.folder, name).read_bytes()
            height, width = decode(data, name).shape[:2]
        except FileNotFoundError as error:
            raise _Unusable("image file missing") from error
        except OSError as error:
            raise _Unusable("image file cannot be read") from error
        except UserError as error:
            raise _Unusable("image unreadable") from error
        held = hashes.holders(self.excluded)
        holder = held.get(hashes.of(data)) if held else None
        if holder is not None:
            raise _Unusable(_held_by(holder))
        return data, (height, width)


class _Unusable(Exception):
    """Why an image is left out."""


def _held_by(label: str) -> str:
    """The reason to leave out an image that another split holds."""
    return f"image in {label}, which is excluded"


def _digest(path: str) -> str:
    return hashes.of(pathlib.Path(path).read_bytes())


def _check_folder(folder: pathlib.Path, items: list[dict[str, Any]]) -> None:
    """Refuses a folder without any of the images: most likely the wrong one."""
    names = [item["entry"]["file_name"] for item in items]
    if names and not any(os.path.isfile(folder / name) for name in names):
        raise UserError(
            f"--images: {folder} has none of the images, such as {names[0]!r}."
        )


def _unique_images(entries: list, account: Account) -> dict[int, dict]:
    """Image entries by id, in their order."""
    unique: dict[int, dict] = {}
    for entry in entries:
        known = isinstance(entry, dict) and persons.is_id(entry.get("id"))
        name = entry.get("file_name") if known else None
        if not isinstance(name, str) or not _is_path(name):
            account.drop("images", "image without id or file_name")
        elif name.startswith("/") or ".." in pathlib.PurePath(name).parts:
            account.drop("images", "file_name outside the folder of images")
        elif entry["id"] in unique:
            account.drop("images", "image id used before")
        else:
            unique[entry["id"]] = entry
    return unique


def _by_image(
    annotations: list, entries: dict[int, dict], account: Account
) -> dict[int, list[dict]]:
    """Annotations with ids of their own, by the id of their image."""
    seen: set[int] = set()
    by_image: dict[int, list[dict]] = collections.defaultdict(list)
    for annotation in annotations:
        if not isinstance(annotation, dict) or not persons.is_id(annotation.get("id")):
            account.drop("persons", "annotation without id")
            continue
        image = annotation.get("image_id")
        if annotation["id"] in seen:
            account.drop("persons", "annotation id used before")
        elif not persons.is_id(image) or image not in entries:
            account.drop("persons", "annotation of an image that is not listed")
        else:
            by_image[image].append(annotation)
        seen.add(annotation["id"])
    return by_image


def _is_path(name: str) -> bool:
    """Whether a file can have this name; a line break would spoil lists of files."""
    return not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)


def crowd_index(entry: dict) -> float:
    """CrowdPose's index of an image; -1 if it is not known."""
    value = entry.get("crowdIndex")
    if persons.is_number(value) and 0 <= value <= _LARGEST_INDEX:
        return float(value)
    return -1.0
