"""Refuses COCO json that cannot be scored, naming the file, the item and the fault.

What holds for all items is seen at once, in NumPy or by sets. Only where it does not
hold are they gone through one by one, to find the first at fault.
"""

import gzip
import json
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath

from occjax.errors import UserError
from occjax.skeletons import Skeleton

_PERSON = (
    *("image_id", "category_id", "keypoints", "num_keypoints"),
    *("area", "bbox", "iscrowd"),
)
_RESULT = ("image_id", "category_id", "keypoints", "score")
_MOST = 2**53  # the largest id: faster-coco-eval holds ids as doubles
_AT_ONCE = 10_000  # rows turned into an array; bounds what a check adds to memory

Label = Callable[[int], str]  # index in a list -> how a message names the item


def read_json(path: epath.PathLike) -> Any:
    """Content of a json file, gzipped if its name ends in .gz.

    Raises:
        UserError: the file is missing or is not json; names it and the position.
    """
    path = epath.Path(path)
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return json.loads(str(data, "utf-8"))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read: {reason}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not json: {error}.") from error


def check_ground_truth(
    truth: Any, skeleton: Skeleton, name: str = "ground truth", area: bool = True
) -> None:
    """Refuses ground truth that the evaluators would misread or stumble over.

    Args:
        truth: what a json file held.
        skeleton: the joints that people should have.
        name: of the file.
        area: whether people need an area; CrowdPose's files have none.

    Raises:
        UserError: names `name`, the annotation and what is wrong with it.
    """
    for key in ("images", "annotations", "categories"):
        if not isinstance(truth, dict) or not isinstance(truth.get(key), list):
            raise UserError(f"{name}: expected a COCO json object with a list {key!r}.")
    images, categories = (_ids(truth, key, name) for key in ("images", "categories"))
    _ids(truth, "annotations", name, 1)  # 0 and below mean no match to evaluators
    people = truth["annotations"]

    def label(index: int) -> str:
        return f"{name}: annotation {people[index]['id']}"

    needed = [key for key in _PERSON if area or key != "area"]
    _check_keys(people, needed, label)
    _check_known(people, "image_id", images, label)
    _check_known(people, "category_id", categories, label)
    _check_numbers(people, "keypoints", 3 * skeleton.num_joints, label)
    _check_numbers(people, "bbox", 4, label)
    for key in ("num_keypoints", "iscrowd", *(["area"] if area else [])):
        values = _check_numbers(people, key, None, label)
        if np.any(values < 0):
            index = int(np.argmax(values < 0))
            found = people[index][key]
            raise UserError(f"{label(index)} has {key} {found}; expected 0 or more.")


def check_detections(
    found: Any, truth: dict, skeleton: Skeleton, name: str = "detections"
) -> None:
    """Refuses detections that cannot be scored against sound ground truth.

    An empty list is sound: nobody was found.

    Raises:
        UserError: names `name`, the position in the list and what is wrong there.
    """
    if not isinstance(found, list):
        raise UserError(f"{name}: expected a COCO result list, got {_kind(found)}.")

    def label(index: int) -> str:
        return f"{name}: item {index}"

    _check_keys(found, _RESULT, label)
    for key, items in (("image_id", "images"), ("category_id", "categories")):
        _check_known(found, key, {item["id"] for item in truth[items]}, label)
    _check_numbers(found, "keypoints", 3 * skeleton.num_joints, label)
    _check_numbers(found, "score", None, label)
    if found and found[0].get("bbox"):  # evaluators then expect a box of everyone
        _check_keys(found, ["bbox"], label)
        _check_numbers(found, "bbox", 4, label)


def _ids(truth: dict, key: str, name: str, least: int = -_MOST) -> set[int]:
    """Ids of a list of the ground truth."""
    items, label = truth[key], f"{name}: {key}"
    ids: list[Any]
    ids = [item.get("id") if isinstance(item, dict) else None for item in items]
    plain = not set(map(type, ids)) - {int}
    if not plain or ids and not least <= min(ids) <= max(ids) <= _MOST:
        for index, i in enumerate(ids):
            if type(i) is not int or not least <= i <= _MOST:
                found = "no id" if i is None else f"id {i!r:.40}"
                wanted = f"an integer of {least} to {_MOST}"
                raise UserError(
                    f"{label}: item {index} has {found}; expected {wanted}."
                )
    known = set(ids)
    if len(known) < len(ids):
        seen: set[int] = set()
        double = next(i for i in ids if i in seen or seen.add(i))
        raise UserError(f"{label}: id {double} occurs more than once.")
    return known


def _check_keys(items: list, keys: Sequence[str], label: Label) -> None:
    wanted = set(keys)
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise UserError(f"{label(index)}: expected an object, got {_kind(item)}.")
        if not wanted <= item.keys():
            missing = [repr(key) for key in keys if key not in item]
            raise UserError(f"{label(index)} lacks {', '.join(missing)}.")


def _check_known(items: list, key: str, known: set[int], label: Label) -> None:
    """Every item[key] is one of the ids of the ground truth."""
    values = [item[key] for item in items]
    if set(map(type, values)) <= {int} and set(values) <= known:
        return
    for index, value in enumerate(values):
        if type(value) is not int or value not in known:
            some = f"{len(known)} of the ground truth"
            some = sorted(known) if len(known) < 4 else f"the {some}"
            raise UserError(
                f"{label(index)} has {key} {value!r}; expected one of {some}."
            )


def _check_numbers(
    items: list, key: str, width: int | None, label: Label
) -> np.ndarray:
    """Every item[key] is `width` finite numbers, or one number where that is None.

    Returns:
        The numbers of single ones [N]; of lists nothing, [0].
    """
    shape = () if width is None else (width,)
    kept = [np.zeros(0)]
    for start in range(0, len(items), _AT_ONCE):
        rows = [item[key] for item in items[start : start + _AT_ONCE]]
        try:
            values = np.asarray(rows)
            sound = values.dtype.kind in "biuf" and values.shape[1:] == shape
            sound = sound and bool(np.isfinite(values).all())
        except ValueError:  # ragged
            sound = False
        if not sound:
            for index, row in enumerate(rows, start):
                _check_row(row, key, width, label(index))
            raise UserError(f"{label(start)}: expected plain numbers as {key}.")
        if width is None:
            kept.append(values.astype(float))
    return np.concatenate(kept)


def _check_row(row: Any, key: str, width: int | None, label: str) -> None:
    if width is not None and (not isinstance(row, list) or len(row) != width):
        size = len(row) if isinstance(row, list) else _kind(row)
        raise UserError(f"{label}: expected {width} numbers, got {size} as {key}.")
    values: list[Any] = [row] if width is None else row
    for value in values:
        if not isinstance(value, int | float):
            shown = repr(value)[:40]
            raise UserError(f"{label}: expected finite numbers, got {shown} as {key}.")
        try:
            finite = math.isfinite(value)
        except OverflowError:
            raise UserError(f"{label}: a number of {key} is too large.") from None
        if not finite:
            raise UserError(f"{label}: expected finite numbers, got {value} as {key}.")


def _kind(value: Any) -> str:
    return type(value).__name__
