"""COCO's list of results as a source of boxes or poses: what detectors leave.

An entry has `image_id`, `score`, `bbox` (x, y, width, height), `category_id` (1, also
where it is missing, is a person) and, of a pose, `keypoints`: x, y and confidence of
each joint. A pose without `bbox` has that of its joints with confidence above 0.
"""

import collections
import json
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from absl import logging
from etils import epath

from occjax.data.sources import Source
from occjax.errors import UserError

_FARTHEST = 1e9  # pixels; JSON's integers have no end, those of floats do


class Result(NamedTuple):
    """An entry on an image of a source."""

    image: int  # index in the source
    box: np.ndarray  # [4] float64: x, y, width, height
    score: float
    pose: np.ndarray | None = None  # [J, 3] float64: x, y, confidence
    row: int = -1  # of the person in the image's record whom it is of, -1 unknown


def read(
    path: str, setting: str, source: Source, images: int = 0, poses: bool = False
) -> tuple[list[Result], collections.Counter[str]]:
    """The people in a file, in its order.

    Args:
        path: of the file.
        setting: that named the file, for messages, such as data.detections.
        source: of the images.
        images: only entries on the first so many images, 0 for all.
        poses: whether entries must have `keypoints`, those of the source's skeleton.

    Returns:
        The entries, and how many others were left out, by reason.

    Raises:
        UserError: the file is not there or damaged, an entry is, or none is a person on
            one of the images.
    """
    joints = source.skeleton.num_joints if poses else 0
    index = _places(source, images)
    results: list[Result] = []
    dropped: collections.Counter[str] = collections.Counter()
    for number, entry in enumerate(_entries(path, setting)):
        image_id, box, score, pose = _checked(entry, f"{path}: entry {number}", joints)
        if entry.get("category_id", 1) != 1:
            dropped["entries of no person"] += 1
        elif image_id not in index:
            dropped["entries on another image"] += 1
        elif min(box[2:]) < 0 or max(box[2:]) <= 0:
            dropped["entries without extent"] += 1
        else:
            results.append(Result(index[image_id], box, score, pose))
    if not results:
        kind = "pose" if poses else "box"
        raise UserError(f"{path}: no {kind} of a person on an image of {source.name}.")
    warn(path, dropped)
    return results, dropped


def warn(path: str, dropped: collections.Counter[str]) -> None:
    """Logs what was left out, by reason."""
    for reason, number in (+dropped).items():
        logging.warning("%s: left out %d %s", path, number, reason)


def _places(source: Source, images: int) -> dict[int, int]:
    """Index by image id of the first so many images."""
    count = min(images or len(source), len(source))
    known = getattr(source, "image_ids", None)
    if known is None:
        known = [source[i]["image_id"] for i in range(count)]
    return {int(image_id): i for i, image_id in enumerate(known[:count])}


def _entries(path: str, setting: str) -> list:
    """The list in a file."""
    try:
        entries = json.loads(epath.Path(path).read_text())
    except OSError as error:
        raise UserError(f"{setting}: {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise UserError(f"{setting}: {path} is no JSON ({error}).") from error
    if not isinstance(entries, list):
        raise UserError(
            f"{setting}: {path}: expected a list of boxes, "
            f"found {type(entries).__name__}."
        )
    return entries


def _checked(
    entry: Any, where: str, joints: int
) -> tuple[int, np.ndarray, float, np.ndarray | None]:
    """Image id, box [4], score and pose of an entry."""
    if not isinstance(entry, dict):
        raise UserError(f"{where}: expected an object, found {entry!r:.60}.")
    image_id: Any = entry.get("image_id")
    if isinstance(image_id, bool) or not isinstance(image_id, int):
        raise UserError(
            f"{where}: image_id: expected a number, found {image_id!r:.60}."
        )
    pose = None
    if joints:
        pose = _numbers(entry, "keypoints", 3 * joints, where).reshape(-1, 3)
    if pose is None or "bbox" in entry:
        box = _numbers(entry, "bbox", 4, where)
    else:
        box = around(pose)
    score = entry.get("score")
    if not _sound(score):
        raise UserError(
            f"{where}: score: expected a number within 1e9, found {score!r:.60}."
        )
    return image_id, box, score, pose


def _numbers(entry: dict, key: str, count: int, where: str) -> np.ndarray:
    """So many numbers [count] of an entry."""
    value = entry.get(key)
    if not isinstance(value, list) or len(value) != count:
        length = f"{len(value)} of them" if isinstance(value, list) else repr(value)
        raise UserError(
            f"{where}: {key}: expected {count} numbers, found {length:.60}."
        )
    if not all(map(_sound, value)):
        raise UserError(
            f"{where}: {key}: expected numbers within 1e9, found {value!r:.60}."
        )
    return np.array(value, np.float64)


def around(pose: np.ndarray) -> np.ndarray:
    """Box [4] of the joints of a pose [J, 3] that were found; nothing around none."""
    found = pose[pose[:, 2] > 0, :2]
    if not len(found):
        return np.zeros(4)
    return np.concatenate([found.min(axis=0), np.ptp(found, axis=0)])


def _sound(value: Any) -> TypeGuard[float]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -_FARTHEST < value < _FARTHEST
