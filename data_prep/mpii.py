r"""MPII Human Pose as downloaded to a dataset of records.

From the official file:

  python -m data_prep.mpii --part train --split train --images images \
      --annotations mpii_human_pose_v1_u12_1.mat --out datasets

Or from one of the json forms in use: train.json and valid.json of HRNet and MMPose, or
mpii_annotations.json of pytorch-pose, which says who is in the usual validation split:

  python -m data_prep.mpii --part val --split val --images images \
      --annotations mpii_annotations.json --out datasets

All of them count pixels from 1; records count from 0. Boxes are squares of the person's
given height, moved down as all published crops are. Head sizes, for PCKh, are those of
the head boxes; where a form has none, they follow from head top and neck. HRNet's form
says which joints are labelled and not which of them are hidden: all are visible there.
"""

import math
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import flags

import data_prep
from data_prep import downloads, readers
from occjax import skeletons
from occjax.errors import UserError
from occjax.types import OCCLUDED, UNLABELLED, VISIBLE

FLAGS = flags.FLAGS

_LICENCE = "MPII Human Pose: simplified BSD, (c) Max Planck Institute for Informatics"
_UNIT = 200  # pixels of height to a scale of 1
_DOWN = 15  # pixels to a scale of 1 from the given centre to that of the crop
# Head top and upper neck were made from the head box. On the 2,958 people of the
# validation split they are 0.8 of its diagonal apart, to 1 % in 97 of 100.
_HEAD_OF_DIAGONAL = 0.8


class Person(NamedTuple):
    """One person as any of the files tells it, in pixels from 1.

    Attributes:
        image: file name.
        part: "train", "val", "test" or "".
        joints: sixteen times x, y, visibility; None if there are none.
        centre: x, y.
        scale: height in units of 200 pixels.
        head: diagonal of the head box; 0 if it is not known.
    """

    image: Any
    part: str
    joints: list | None
    centre: Any
    scale: Any
    head: float = 0.0


def define_flags() -> None:
    """Defines what the command takes."""
    downloads.define_flags("mpii", "The official .mat, or a .json in common use.")
    downloads.define_list_flag()
    flags.DEFINE_enum(
        "part", "all", ["all", "train", "val", "test"], "Images to take, if told apart."
    )


def main() -> None:
    """Prepares the split that the flags describe."""
    download = read(pathlib.Path(FLAGS.annotations), part=FLAGS.part)
    if FLAGS.list:
        download = downloads.only_listed(download, pathlib.Path(FLAGS.list))
    downloads.prepare_as_flagged(download)


def read(path: pathlib.Path, *, part: str = "all") -> downloads.Download:
    """The official MATLAB file or a json form, by the file's ending.

    Raises:
        UserError: the file is not there, of another format, or tells no such part.
    """
    remarks = {}
    if path.suffix == ".mat":
        release, facts = readers.read_mat(path, "RELEASE")
        names, people = _from_release(path, release)
    else:
        content, facts = readers.read_json(path)
        names, people, unmarked = _from_json(path, content)
        remarks["people whose occluded joints are not marked"] = unmarked
    if part != "all":
        parts = {one for _, one in names} - {""}
        if part not in parts:
            found = ", ".join(sorted(parts)) or "no parts"
            raise UserError(f"{path} tells {found} apart, not --part {part}.")
        remarks["images of another --part"] = sum(one != part for _, one in names)
        names = [(name, one) for name, one in names if one == part]
        people = [person for person in people if person.part == part]
    facts = {**facts, "licence": _LICENCE, "part": part}
    facts["head_size"] = "box" if path.suffix == ".mat" else "head top to neck / 0.8"
    content = _content([name for name, _ in names], people)
    remarks = {remark: count for remark, count in remarks.items() if count}
    return downloads.Download(content, skeletons.MPII, facts, remarks)


def _content(names: list, people: list[Person]) -> dict[str, list]:
    """COCO's form; an image has the number that its name is as id."""
    images = [{"id": _number_of(name), "file_name": name} for name in names]
    annotations = [
        {"id": number, "image_id": _number_of(person.image), **_annotation(person)}
        for number, person in enumerate(people, start=1)
    ]
    return {"images": images, "annotations": annotations}


def _number_of(name: Any) -> int | None:
    """005808361.jpg is image 5808361; None if a name is no number."""
    stem = name.partition(".")[0] if isinstance(name, str) else ""
    return int(stem) if stem.isascii() and stem.isdecimal() else None


def _annotation(person: Person) -> dict:
    result: dict[str, Any] = {"head_size": person.head}
    centre, scale = _floats(person.centre, 2), _floats([person.scale], 1)
    if centre and scale:
        side = _UNIT * scale[0]
        x, y = centre[0] - 1, centre[1] - 1 + _DOWN * scale[0]
        result["bbox"] = [x - side / 2, y - side / 2, side, side]
    if person.joints is not None:
        result["keypoints"] = person.joints
    return result


def _from_json(path: pathlib.Path, content: Any) -> tuple[list, list[Person], int]:
    """Images with their parts, people, and how many have no marks of occlusion."""
    first = content[0] if isinstance(content, list) and content else None
    if isinstance(first, dict) and "joint_self" in first:
        people, marked = [_from_pytorch_pose(item) for item in content], True
    elif isinstance(first, dict) and {"image", "center", "scale"} <= set(first):
        people, marked = [_from_hrnet(item) for item in content], False
    else:
        raise UserError(
            f"{path} is in no known form of MPII: expected a list of people with "
            "'joint_self' (pytorch-pose) or 'image', 'center', 'scale' (HRNet)."
        )
    names = list(dict.fromkeys((_text(p.image), p.part) for p in people))
    names = [(name, part) for name, part in names if name]
    return names, people, 0 if marked else len(people)


def _from_hrnet(item: Any) -> Person:
    """A person of train.json, valid.json or test.json."""
    item = item if isinstance(item, dict) else {}
    joints, labelled = item.get("joints"), item.get("joints_vis")
    if isinstance(joints, list) and isinstance(labelled, list):
        marks = [VISIBLE if mark == 1 else UNLABELLED for mark in labelled]
        joints = _joints(joints, marks)
    centre, scale = item.get("center"), item.get("scale")
    return Person(item.get("image"), "", joints, centre, scale, _head(joints))


def _from_pytorch_pose(item: Any) -> Person:
    """A person of mpii_annotations.json."""
    item = item if isinstance(item, dict) else {}
    rows = item.get("joint_self")
    joints = rows
    if isinstance(rows, list) and all(_floats(row, 3) for row in rows):
        # A joint without a label is all zero; 0 with a place is a hidden one.
        marks = [
            VISIBLE if seen == 1 else OCCLUDED if x or y else UNLABELLED
            for x, y, seen in rows
        ]
        joints = _joints([row[:2] for row in rows], marks)
    part = "val" if item.get("isValidation") else "train"
    centre, scale = item.get("objpos"), item.get("scale_provided")
    return Person(item.get("img_paths"), part, joints, centre, scale, _head(joints))


def _joints(places: list, marks: list[int]) -> list:
    """Places in pixels from 1 with marks, as COCO's flat list in pixels from 0."""
    if len(places) != len(marks):
        return []
    flat = []
    for place, mark in zip(places, marks, strict=True):
        at = _floats(place, 2) or [math.nan, math.nan]
        flat += [0, 0, 0] if mark == UNLABELLED else [at[0] - 1, at[1] - 1, mark]
    return flat


def _head(joints: Any) -> float:
    """Diagonal of the head box from a person's joints; 0 if it does not follow."""
    if not isinstance(joints, list) or len(joints) != 3 * skeletons.MPII.num_joints:
        return 0.0
    at = (skeletons.MPII.joints.index(name) for name in ("upper_neck", "head_top"))
    neck, top = (_floats(joints[3 * index : 3 * index + 3], 3) for index in at)
    if not (neck and top and neck[2] and top[2]):
        return 0.0
    return math.dist(neck[:2], top[:2]) / _HEAD_OF_DIAGONAL


def _from_release(
    path: pathlib.Path, release: Any
) -> tuple[list[tuple[str, str]], list[Person]]:
    """Images with their parts, and people, of the official file."""
    images = _items(getattr(release, "annolist", None))
    training = np.atleast_1d(getattr(release, "img_train", []))
    if not images or len(training) != len(images):
        raise UserError(
            f"{path} is not the official file of MPII: RELEASE has "
            f"{len(images)} images in annolist and {len(training)} in img_train."
        )
    names, people = [], []
    for image, is_training in zip(images, training, strict=True):
        name = _text(getattr(getattr(image, "image", None), "name", ""))
        part = "train" if is_training == 1 else "test"
        names.append((name, part))
        rectangles = _items(getattr(image, "annorect", None))
        people += [_from_rectangle(name, part, one) for one in rectangles]
    return names, people


def _from_rectangle(name: str, part: str, rectangle: Any) -> Person:
    """A person of the official file."""
    corners = [getattr(rectangle, key, None) for key in ("x1", "y1", "x2", "y2")]
    corners = _floats(corners, 4)
    head = math.dist(corners[:2], corners[2:]) if corners else 0.0
    middle = getattr(rectangle, "objpos", None)
    centre = [getattr(middle, "x", None), getattr(middle, "y", None)]
    points = list(_points(rectangle))
    joints = [0.0] * (3 * skeletons.MPII.num_joints) if points else None
    for number, x, y, mark in points:
        if joints is not None and 0 <= number < skeletons.MPII.num_joints:
            joints[3 * number : 3 * number + 3] = [x - 1, y - 1, mark]
    scale = getattr(rectangle, "scale", None)
    return Person(name, part, joints, centre, scale, head)


def _points(rectangle: Any) -> Iterator[tuple[int, float, float, int]]:
    """Joint number, x, y and visibility of the labelled joints of a person.

    Head top and upper neck have no `is_visible`; nobody calls them hidden.
    """
    container = getattr(rectangle, "annopoints", None)
    for point in _items(getattr(container, "point", None)):
        values = _floats([getattr(point, key, None) for key in ("id", "x", "y")], 3)
        if values:
            seen = _floats([getattr(point, "is_visible", None)], 1)
            mark = OCCLUDED if seen == [0.0] else VISIBLE
            yield int(values[0]), values[1], values[2], mark


def _items(value: Any) -> list:
    """The structs of a MATLAB array, which SciPy gives bare if there is only one."""
    values = np.atleast_1d(np.asarray(value, object)).ravel().tolist()
    return [item for item in values if hasattr(item, "_fieldnames")]


def _floats(values: Any, count: int) -> list[float]:
    """So many finite numbers, which MATLAB files have as text too; empty if not."""
    if not isinstance(values, list | np.ndarray) or len(values) != count:
        return []
    try:
        numbers = [float(value) for value in values if np.size(value) == 1]
    except (TypeError, ValueError, OverflowError):
        return []
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


if __name__ == "__main__":
    define_flags()
    data_prep.run(main)
