"""Refuses COCO json that cannot be scored, naming the file, the item and the fault."""

import gzip
import json
import pathlib
from typing import Any

import numpy as np

from occjax.errors import UserError
from occjax.skeletons import Skeleton

_NEEDED = (
    *("image_id", "category_id", "keypoints", "num_keypoints"),
    *("area", "bbox", "iscrowd"),
)


def read_json(path: str | pathlib.Path) -> Any:
    """Content of a json file, gzipped if its name ends in .gz.

    Raises:
        UserError: the file is missing or is not json; names it and the position.
    """
    path = pathlib.Path(path)
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {reason}.") from error
    except ValueError as error:
        raise UserError(f"{path}: is not json: {error}.") from error


def check_ground_truth(
    truth: Any, skeleton: Skeleton, name: str = "ground truth"
) -> None:
    """Refuses ground truth that pycocotools would misread or stumble over.

    Raises:
        UserError: names `name`, the annotation and what is wrong with it.
    """
    for key in ("images", "annotations", "categories"):
        if not isinstance(truth, dict) or not isinstance(truth.get(key), list):
            raise UserError(f"{name}: expected a COCO json object with a list {key!r}.")
    images = _ids(truth["images"], f"{name}: images")
    _ids(truth["annotations"], f"{name}: annotations")
    for item in truth["annotations"]:
        label = f"{name}: annotation {item['id']}"
        missing = [key for key in _NEEDED if key not in item]
        if missing:
            raise UserError(f"{label} lacks {', '.join(missing)}.")
        if item["image_id"] not in images:
            raise UserError(f"{label} is of image {item['image_id']}, not in images.")
    people = truth["annotations"]
    labels = [f"{name}: annotation {item['id']}" for item in people]
    _numbers([item["keypoints"] for item in people], 3 * skeleton.num_joints, labels)
    _numbers([item["bbox"] for item in people], 4, labels)
    areas = _numbers([[item["area"]] for item in people], 1, labels)
    for label, area in zip(labels, areas[:, 0], strict=True):
        if area < 0:
            raise UserError(f"{label} has area {area}; expected 0 or more.")


def check_detections(
    found: Any, truth: dict, skeleton: Skeleton, name: str = "detections"
) -> None:
    """Refuses detections that cannot be scored against the ground truth.

    Raises:
        UserError: names `name`, the position in the list and what is wrong there.
    """
    if not isinstance(found, list):
        raise UserError(f"{name}: expected a COCO result list, got {_kind(found)}.")
    images = {item["id"] for item in truth["images"]}
    categories = {item["id"] for item in truth["categories"]}
    for index, item in enumerate(found):
        for key in ("image_id", "category_id", "keypoints", "score"):
            if not isinstance(item, dict) or key not in item:
                raise UserError(f"{name}: item {index} lacks {key!r}.")
        if item["image_id"] not in images:
            raise UserError(
                f"{name}: item {index} is of image {item['image_id']}, which is not "
                f"among the {len(images)} images of the ground truth."
            )
        if item["category_id"] not in categories:
            raise UserError(
                f"{name}: item {index} has category_id {item['category_id']}; "
                f"expected one of {sorted(categories)}."
            )
    labels = [f"{name}: item {index}" for index in range(len(found))]
    _numbers([item["keypoints"] for item in found], 3 * skeleton.num_joints, labels)
    _numbers([[item["score"]] for item in found], 1, labels)
    if found and found[0].get("bbox"):  # pycocotools then expects a box of everyone
        _numbers([item.get("bbox") for item in found], 4, labels)


def _ids(items: list, name: str) -> set:
    ids = [item.get("id") if isinstance(item, dict) else None for item in items]
    if None in ids:
        raise UserError(f"{name}: item {ids.index(None)} has no id.")
    if "annotations" in name and 0 in ids:
        raise UserError(f"{name}: id 0 at item {ids.index(0)}; pycocotools needs 1 up.")
    if len(set(ids)) < len(ids):
        seen = set()
        double = next(i for i in ids if i in seen or seen.add(i))
        raise UserError(f"{name}: id {double} occurs more than once.")
    return set(ids)


def _numbers(rows: list, width: int, labels: list[str]) -> np.ndarray:
    """The rows as one finite array [N, width]; blames the first row that is not."""
    try:
        values = np.asarray(rows, dtype=float).reshape(len(rows), -1)
    except (ValueError, TypeError):
        values = np.zeros((len(rows), 0))
    if not rows or (values.shape[1] == width and np.isfinite(values).all()):
        return values.reshape(len(rows), width)
    for row, label in zip(rows, labels, strict=True):
        if not isinstance(row, list) or len(row) != width:
            size = len(row) if isinstance(row, list) else _kind(row)
            raise UserError(f"{label}: expected {width} numbers, got {size}.")
        for value in row:
            if not isinstance(value, int | float) or not np.isfinite(value):
                raise UserError(f"{label}: expected finite numbers, got {value!r}.")
    raise UserError(f"{labels[0]}: expected {width} numbers in a row.")


def _kind(value: Any) -> str:
    return type(value).__name__
