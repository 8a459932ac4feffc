r"""COCO-format annotations and images to a dataset of records.

Enough for COCO itself, the COCO-format files of OCHuman, and CrowdPose:

  python -m data_prep.coco --name coco --split train --out datasets \
      --images train2017 --annotations annotations/person_keypoints_train2017.json
  python -m data_prep.coco --name crowdpose --skeleton crowdpose --split train \
      --images images --annotations crowdpose_trainval.json --out datasets

Images are kept as they are, byte for byte. Everything that is left out is counted.
"""

import collections
import gzip
import hashlib
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from absl import flags
from faster_coco_eval.core import mask as run_lengths

import data_prep
from data_prep import builder
from data_prep.account import Account
from occjax import skeletons
from occjax.data.records import Record, decode
from occjax.errors import UserError

FLAGS = flags.FLAGS

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
    segmentation: bytes


class _Bad(Exception):
    """Why an annotation cannot be used."""


def define_flags() -> None:
    """Defines what the command takes."""
    flags.DEFINE_string("name", "coco", "Name of the dataset to write.")
    flags.DEFINE_string("images", None, "Folder of the images.")
    flags.DEFINE_string("annotations", None, "The .json or .json.gz file.")
    flags.DEFINE_string("split", "train", "Name of the split to write.")
    flags.DEFINE_string("out", "datasets", "Folder of all datasets.")
    flags.DEFINE_enum(
        "skeleton", "coco", sorted(skeletons.BY_NAME), "Joints of the annotations."
    )
    flags.mark_flags_as_required(["images", "annotations"])


def main() -> None:
    """Prepares the split that the flags describe."""
    prepare(
        FLAGS.out,
        FLAGS.name,
        FLAGS.split,
        FLAGS.images,
        FLAGS.annotations,
        skeletons.BY_NAME[FLAGS.skeleton],
    )


def prepare(
    out: str | pathlib.Path,
    name: str,
    split: str,
    images: str | pathlib.Path,
    annotations: str | pathlib.Path,
    skeleton: skeletons.Skeleton = skeletons.COCO,
) -> Account:
    """Writes a split from COCO-format files; returns what became of their content.

    Raises:
        UserError: a file or folder is not there or is not what it should be, or the
            split cannot be written.
    """
    images, annotations = pathlib.Path(images), pathlib.Path(annotations)
    if not images.is_dir():
        raise UserError(f"--images: there is no folder {images}.")
    content, digest = read_json(annotations)
    _check_joint_count(annotations, content["annotations"], skeleton)
    account = Account()
    builder.write(
        out,
        name,
        split,
        records(content, images, skeleton, account),
        account,
        skeleton=skeleton,
        facts={
            "annotations": annotations.name,
            "sha256": digest,
            "licence": _licences(content),
        },
        total=len(content["images"]),
    )
    return account


def read_json(path: pathlib.Path) -> tuple[dict, str]:
    """The content of an annotation file and its SHA-256.

    Raises:
        UserError: it is not there, no JSON, or lacks the lists of the COCO format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"--annotations: {path} cannot be read: {error}.") from error
    try:
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        content = json.loads(text)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path} is no JSON file: {error}.") from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path} is not in COCO format: it has no list {key!r}.")
    return content, hashlib.sha256(data).hexdigest()


def records(
    content: dict, folder: pathlib.Path, skeleton: skeletons.Skeleton, account: Account
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
    area = annotation.get("area")
    if not _is_number(area) or area < 0:
        account.note(f"areas estimated as {AREA_OF_BOX} of the box")
        area = AREA_OF_BOX * w * h
    return Person(
        id=annotation["id"],
        bbox=bbox,
        joints=joints,
        area=area,
        is_crowd=bool(annotation.get("iscrowd", 0)),
        segmentation=_segmentation(annotation.get("segmentation"), shape, account),
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
    crowd = np.array([person.is_crowd for person in persons], bool)
    bbox = np.array([person.bbox for person in persons], np.float32)
    return {
        "id": np.array([person.id for person in persons], np.int64),
        "bbox": bbox.reshape(len(persons), 4),
        "joints": joints,
        "area": np.array([person.area for person in persons], np.float32),
        "is_crowd": crowd,
        "is_target": np.any(joints[:, :, 2] > 0, axis=1) & ~crowd,
        "segmentation": [person.segmentation for person in persons],
        "head_size": np.zeros(len(persons), np.float32),
    }


def _check_joint_count(
    path: pathlib.Path, annotations: list, skeleton: skeletons.Skeleton
) -> None:
    """Refuses a file whose people all have another number of joints."""
    counts = collections.Counter(
        len(annotation["keypoints"]) // 3
        for annotation in annotations
        if isinstance(annotation.get("keypoints"), list)
    )
    if counts and skeleton.num_joints not in counts:
        found = counts.most_common(1)[0][0]
        raise UserError(
            f"{path} has {found} joints a person, --skeleton {skeleton.name} has "
            f"{skeleton.num_joints}."
        )


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


def _licences(content: dict) -> str:
    """What the file says about the licences of its images."""
    licences = content.get("licenses") or []
    names = [item.get("name", "") for item in licences if isinstance(item, dict)]
    return "; ".join(filter(None, names)) or "not stated in the annotation file"


if __name__ == "__main__":
    define_flags()
    data_prep.run(main)
