"""Joints, boxes and areas of an annotation, brought into COCO's form.

What is not of the form expected goes through as it is, or becomes something that the
importer refuses and counts.
"""

from collections.abc import Mapping
from typing import Any, TypeGuard

from data_prep import persons
from occjax.data import convert
from occjax.skeletons import Skeleton

_FARTHEST = 1e9  # pixels


def joints_as(
    value: Any, source: Skeleton, target: Skeleton, meaning: Mapping[float, int]
) -> Any:
    """The joints of an annotation, in another order and with COCO's visibility.

    Args:
        value: list of x, y, mark for each joint of `source`.
        source: scheme of the file; `target` has no joint that is a mean of these.
        target: scheme to write.
        meaning: visibility of each mark.

    Returns:
        List of x, y, visibility for each joint of `target`. What is no such list
        comes back as something that the importer refuses.
    """
    if not isinstance(value, list):
        return value
    if len(value) != 3 * source.num_joints:
        return []
    result = []
    for places in convert.mapping(source.joints, target.joints):
        x, y, mark = value[3 * places[0] : 3 * places[0] + 3] if places else (0, 0, 0)
        known = isinstance(mark, int | float) and mark in meaning
        visibility = meaning[mark] if known else mark
        nowhere = visibility == 0 or (x, y, mark) == (0, 0, 0)
        result += [0, 0, 0] if nowhere else [x, y, visibility]
    return result


def xywh(corners: Any) -> Any:
    """A box from its corners x0, y0, x1, y1; anything else goes through as it is."""
    if not is_box(corners):
        return corners
    x0, y0, x1, y1 = corners
    return [x0, y0, x1 - x0, y1 - y0]


def area_of(box: list) -> float:
    """The area that CrowdPose's evaluator takes for a person: 0.53 of the box."""
    return persons.AREA_OF_BOX * box[2] * box[3]


def is_box(value: Any) -> TypeGuard[list]:
    """Whether this is a list of four numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def is_number(value: Any) -> TypeGuard[float]:
    """Whether this is a number that can be a place in an image."""
    return isinstance(value, int | float) and -_FARTHEST < value < _FARTHEST
