"""Images and annotations in COCO's form to records: what all builders share.

A builder reads its dataset's files and says the same in COCO's form, a dictionary with
the lists "images" and "annotations". An annotation may have, besides COCO's keys,
`is_target` and `head_size` of a record. Images are kept as they are, byte for byte.
Everything that is left out is counted.
"""

import collections
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from faster_coco_eval.core import mask as run_lengths

from data_prep import builder
from data_prep.account import Account
from occjax import skeletons
from occjax.data.records import Record, decode
from occjax.errors import UserError

# Share of a person's box that the person covers: CrowdPose's evaluator uses it for
# all areas, and it is the median over COCO's exact segments.
AREA_OF_BOX = 0.53


class Person(NamedTuple):
    """One annotation, checked."""

    id: int
    bbox: np.ndarray  # [4]
    joints: np.ndarray  # [J, 3]
    area: float
    is_crowd: bool
    is_target: bool
    segmentation: bytes
    head_size: float


class _Bad(Exception):
    """Why an annotation cannot be used."""


def prepare(
    out: str | pathlib.Path,
    name: str,
    split: str,
    images: str | pathlib.Path,
    content: Mapping[str, Any],
    skeleton: skeletons.Skeleton,
    facts: Mapping[str, Any],
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

    Raises:
        UserError: there is no such folder, it has none of the images, or the split
            cannot be written.
    """
    images = pathlib.Path(images)
    if not images.is_dir():
        raise UserError(f"--images: there is no folder {images}.")
    account = Account()
    builder.write(
        out,
        name,
        split,
        records(content, images, skeleton, account),
        account,
        skeleton=skeleton,
        facts=facts,
        total=len(content["images"]),
    )
    return account


def records(
    content: Mapping[str, Any],
    folder: pathlib.Path,
    skeleton: skeletons.Skeleton,
    account: Account,
) -> Iterator[Record]:
    """Yields the records of a COCO-format file in its order.

    Args:
        content: of the file: "images" and "annotations".
        folder: of the images.
        skeleton: J joints of the annotations.
        account: told about all that comes in and is left out.

    Raises:
        UserError: not one image is in the folder.
    """
    account.receive(len(content["images"]), len(content["annotations"]))
    entries = _unique_images(content["images"], account)
    by_image = _by_image(content["annotations"], entries, account)
    missing = 0
    for image_id, entry in entries.items():
        mine = by_image.get(image_id, [])
        try:
            data = (folder / entry["file_name"]).read_bytes()
            height, width = decode(data, entry["file_name"]).shape[:2]
        except (OSError, UserError) as error:
            lost = isinstance(error, OSError)
            missing += lost
            reason = "image file missing" if lost else "image unreadable"
            account.drop("images", reason)
            account.drop("persons", reason, len(mine))
            continue
        if (entry.get("height", height), entry.get("width", width)) != (height, width):
            account.note("images whose listed size is not that of their pixels")
        persons = _persons(mine, (height, width), skeleton, account)
        yield {
            "image": data,
            "image_id": image_id,
            "file_name": entry["file_name"],
            "height": height,
            "width": width,
            "crowd_index": _crowd_index(entry),
            "persons": _columns(persons, skeleton.num_joints),
        }
    if entries and missing == len(entries):
        first = next(iter(entries.values()))["file_name"]
        raise UserError(f"--images: {folder} has none of the images, such as {first}.")


def _unique_images(entries: list, account: Account) -> dict[int, dict]:
    """Image entries by id, in their order."""
    unique: dict[int, dict] = {}
    for entry in entries:
        if not (_is_id(entry.get("id")) and isinstance(entry.get("file_name"), str)):
            account.drop("images", "image without id or file_name")
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
        if not _is_id(annotation.get("id")):
            account.drop("persons", "annotation without id")
        elif annotation["id"] in seen:
            account.drop("persons", "annotation id used before")
        elif annotation.get("image_id") not in entries:
            account.drop("persons", "annotation of an image that is not listed")
        else:
            by_image[annotation["image_id"]].append(annotation)
        seen.add(annotation.get("id"))
    return by_image


def _persons(
    annotations: list[dict],
    shape: tuple[int, int],
    skeleton: skeletons.Skeleton,
    account: Account,
) -> list[Person]:
    """The usable annotations of an image of shape (height, width)."""
    persons = []
    for annotation in annotations:
        try:
            persons.append(_person(annotation, shape, skeleton.num_joints, account))
        except _Bad as reason:
            account.drop("persons", str(reason))
    return persons


def _person(
    annotation: dict, shape: tuple[int, int], num_joints: int, account: Account
) -> Person:
    """Checks one annotation.

    Raises:
        _Bad: it cannot be used, with the reason to count it under.
    """
    height, width = shape
    x, y, w, h = bbox = _numbers(annotation.get("bbox"), 4, "box")
    if w < 0 or h < 0:
        raise _Bad("box of negative size")
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise _Bad("box off the image")
    # Instance files have no joints, and crowd regions need none.
    joints = np.zeros((num_joints, 3))
    if "keypoints" in annotation:
        flat = _numbers(annotation["keypoints"], 3 * num_joints, "joints")
        joints = flat.reshape(num_joints, 3)
    if not set(joints[:, 2]) <= {0, 1, 2, 3}:
        raise _Bad("visibility other than 0, 1, 2")
    joints[joints[:, 2] == 3, 2] = 1  # COCO-RE: placed by a guess, so occluded
    at = joints[joints[:, 2] > 0, :2]
    outside = np.any((at < 0) | (at >= (width, height)), axis=1)
    account.note("labelled joints outside their image", int(outside.sum()))
    is_crowd = bool(annotation.get("iscrowd", 0))
    is_target = len(at) > 0 and not is_crowd
    area = annotation.get("area")
    if not _is_number(area) or area < 0:
        account.note(f"areas estimated as {AREA_OF_BOX} of the box")
        area = AREA_OF_BOX * w * h
    return Person(
        id=annotation["id"],
        bbox=bbox,
        joints=joints,
        area=area,
        is_crowd=is_crowd,
        is_target=bool(annotation.get("is_target", is_target)),
        segmentation=_segmentation(annotation.get("segmentation"), shape, account),
        head_size=float(annotation.get("head_size", 0)),
    )


def _segmentation(value: Any, shape: tuple[int, int], account: Account) -> bytes:
    """COCO's compressed run lengths of polygons or runs; empty if there are none."""
    if not value:
        return b""
    size = list(shape)
    try:
        if isinstance(value, list):
            corners = [part for part in value if len(part) >= 6 and not len(part) % 2]
            runs = [run_lengths.frPyObjects([part], *shape)[0] for part in corners]
            if not runs:
                raise ValueError("no polygon has three corners")
            return run_lengths.merge(runs)["counts"]
        if value["size"] != size:
            raise ValueError(f"drawn on {value['size']} pixels, not {size}")
        if isinstance(value["counts"], list):
            return run_lengths.frPyObjects([value], *shape)[0]["counts"]
        counts = value["counts"].encode()
        run_lengths.decode({"size": size, "counts": counts})
        return counts
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        account.note("segmentations left out as damaged")
        return b""


def _columns(persons: list[Person], num_joints: int) -> dict[str, Any]:
    """The `persons` of a record."""
    joints = np.array([person.joints for person in persons], np.float32)
    joints = joints.reshape(len(persons), num_joints, 3)
    bbox = np.array([person.bbox for person in persons], np.float32)
    return {
        "id": np.array([person.id for person in persons], np.int64),
        "bbox": bbox.reshape(len(persons), 4),
        "joints": joints,
        "area": np.array([person.area for person in persons], np.float32),
        "is_crowd": np.array([person.is_crowd for person in persons], bool),
        "is_target": np.array([person.is_target for person in persons], bool),
        "segmentation": [person.segmentation for person in persons],
        "head_size": np.array([person.head_size for person in persons], np.float32),
    }


def _crowd_index(entry: dict) -> float:
    """CrowdPose's index of an image; -1 if it is not known."""
    value = entry.get("crowdIndex")
    return float(value) if _is_number(value) else -1.0


def _numbers(value: Any, length: int, what: str) -> np.ndarray:
    """Finite numbers [length] of an annotation."""
    if not isinstance(value, list):
        raise _Bad(f"{what} missing")
    if len(value) != length:
        raise _Bad(f"wrong number of {what}")
    if not all(_is_number(number) for number in value):
        raise _Bad(f"{what} not finite numbers")
    return np.array(value, np.float64)


def _is_number(value: Any) -> TypeGuard[float]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
