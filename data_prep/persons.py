"""One annotation in COCO's form, checked: a person of a record, or why it is none."""

import math
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from faster_coco_eval.core import mask as run_lengths

from data_prep.account import Account

# Share of a person's box that the person covers: CrowdPose's evaluator uses it for
# all areas, and it is the median over COCO's exact segments.
AREA_OF_BOX = 0.53

# No image is that long, and float32 still tells its pixels apart.
_FARTHEST = 1e6


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


class Unusable(Exception):
    """Why an annotation cannot be used, in words to count it under."""


def check(
    annotation: dict, shape: tuple[int, int], num_joints: int, account: Account
) -> Person:
    """The person of an annotation with an id, on an image of shape (height, width).

    Raises:
        Unusable: it cannot be used.
    """
    bbox = _box(annotation.get("bbox"), shape)
    joints = _joints(annotation, shape, num_joints, account)
    is_crowd = _flag(annotation, "iscrowd", False)
    is_target = bool(np.any(joints[:, 2] > 0)) and not is_crowd
    area = annotation.get("area")
    if not is_number(area) or not 0 <= area <= _FARTHEST**2:
        account.note(f"areas estimated as {AREA_OF_BOX} of the box")
        area = AREA_OF_BOX * bbox[2] * bbox[3]
    head_size = annotation.get("head_size", 0)
    if not is_number(head_size) or not 0 <= head_size <= _FARTHEST:
        raise Unusable("head_size no length")
    return Person(
        id=annotation["id"],
        bbox=bbox,
        joints=joints,
        area=area,
        is_crowd=is_crowd,
        is_target=_flag(annotation, "is_target", is_target),
        segmentation=_segmentation(annotation.get("segmentation"), shape, account),
        head_size=float(head_size),
    )


def columns(persons: list[Person], num_joints: int) -> dict[str, Any]:
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


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of an annotation is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def is_id(value: Any) -> TypeGuard[int]:
    """Whether a value can be an id: COCO's own go beyond 32 bits."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and -(2**63) <= value < 2**63


def _box(value: Any, shape: tuple[int, int]) -> np.ndarray:
    height, width = shape
    x, y, w, h = bbox = _numbers(value, 4, "box")
    if w < 0 or h < 0:
        raise Unusable("box of negative size")
    if not w or not h:
        raise Unusable("box without area")
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise Unusable("box off the image")
    return bbox


def _joints(
    annotation: dict, shape: tuple[int, int], num_joints: int, account: Account
) -> np.ndarray:
    """Joints [J, 3]; instance files have none, and crowd regions need none."""
    if "keypoints" not in annotation:
        return np.zeros((num_joints, 3))
    flat = _numbers(annotation["keypoints"], 3 * num_joints, "joints")
    joints = flat.reshape(num_joints, 3)
    if not set(joints[:, 2]) <= {0, 1, 2, 3}:
        raise Unusable("visibility other than 0, 1, 2")
    joints[joints[:, 2] == 3, 2] = 1  # COCO-RE: placed by a guess, so occluded
    at = joints[joints[:, 2] > 0, :2]
    outside = np.any((at < 0) | (at >= shape[::-1]), axis=1)
    account.note("labelled joints outside their image", int(outside.sum()))
    return joints


def _segmentation(value: Any, shape: tuple[int, int], account: Account) -> bytes:
    """COCO's compressed run lengths of polygons or runs; empty if there are none."""
    if not value:
        return b""
    size = list(shape)
    try:
        if isinstance(value, list):
            runs = [_polygon(part, shape) for part in value if _has_corners(part)]
            if not runs:
                raise ValueError("no polygon has three corners")
            return run_lengths.merge(runs)["counts"]
        if value["size"] != size:
            raise ValueError(f"drawn on {value['size']} pixels, not {size}")
        counts = value["counts"]
        if isinstance(counts, list):
            counts = run_lengths.frPyObjects([value], *shape)[0]["counts"]
        else:
            counts = counts.encode()
        run_lengths.decode({"size": size, "counts": counts})  # refuses a wrong length
        return counts
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        account.note("segmentations left out as damaged")
        return b""


def _has_corners(part: Any) -> bool:
    return len(part) >= 6 and not len(part) % 2


def _polygon(part: Any, shape: tuple[int, int]) -> dict:
    """Run lengths of one polygon, whose outline may leave the image a little.

    The COCO tools take memory for every pixel of the outline, on the image or not.
    """
    limit = 2 * max(shape)
    if not all(is_number(value) and -limit <= value <= limit for value in part):
        raise ValueError("a corner far from the image")
    return run_lengths.frPyObjects([part], *shape)[0]


def _flag(annotation: dict, name: str, default: bool) -> bool:
    value = annotation.get(name, default)
    if value not in (0, 1):
        raise Unusable(f"{name} other than 0, 1")
    return bool(value)


def _numbers(value: Any, length: int, what: str) -> np.ndarray:
    """Finite numbers [length] of an annotation."""
    if not isinstance(value, list):
        raise Unusable(f"{what} missing")
    if len(value) != length:
        raise Unusable(f"wrong number of {what}")
    if not all(map(is_number, value)):
        raise Unusable(f"{what} not finite numbers")
    if not all(abs(number) <= _FARTHEST for number in value):
        raise Unusable(f"{what} beyond all images")
    return np.array(value, np.float64)
