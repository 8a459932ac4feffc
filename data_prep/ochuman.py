r"""OCHuman as downloaded to a dataset of records.

From the COCO-format files, on which methods are trained and compared:

  python -m data_prep.ochuman --split train --images images --out datasets \
      --annotations ochuman_coco_format_val_range_0.00_1.00.json
  python -m data_prep.ochuman --split test --images images --out datasets \
      --annotations ochuman_coco_format_test_range_0.00_1.00.json

Or from its own file, which has head and neck too, people without joints, and tells
joints hidden by the person's own body from joints hidden by others:

  python -m data_prep.ochuman --name ochuman19 --joints 19 --split train --part val \
      --images images --annotations ochuman.json --out datasets

A joint behind the own body is hidden, so it counts as occluded; the COCO-format files
have such joints as visible. `--self_occluded visible` does as they do.
"""

import pathlib
from typing import Any

import numpy as np
from absl import flags
from faster_coco_eval.core import mask as run_lengths

import data_prep
from data_prep import coco, downloads, fields, readers
from occjax import skeletons
from occjax.errors import UserError
from occjax.types import OCCLUDED, UNLABELLED, VISIBLE

FLAGS = flags.FLAGS

_LICENCE = "OCHuman: images for research"
_SKELETONS = {17: skeletons.COCO, 19: skeletons.OCHUMAN}
_VAL = 2500  # the first images with joints and masks; the others are the test set


def define_flags() -> None:
    """Defines what the command takes."""
    downloads.define_flags("ochuman", "ochuman.json or a COCO-format file.")
    flags.DEFINE_enum("joints", "17", ["17", "19"], "17 in COCO's order, or all.")
    flags.DEFINE_enum(
        "self_occluded",
        "occluded",
        ["occluded", "visible"],
        "What joints behind the own body are; the COCO-format files have decided.",
    )
    flags.DEFINE_enum(
        "part", "all", ["all", "val", "test"], "Images to take from ochuman.json."
    )


def main() -> None:
    """Prepares the split that the flags describe."""
    if FLAGS.joints == "19" and FLAGS.name == "ochuman":
        raise UserError(
            "--joints 19 needs another --name: configs take ochuman to have 17."
        )
    downloads.prepare_as_flagged(
        read(
            pathlib.Path(FLAGS.annotations),
            joints=int(FLAGS.joints),
            self_occluded=FLAGS.self_occluded,
            part=FLAGS.part,
        )
    )


def read(
    path: pathlib.Path,
    *,
    joints: int = 17,
    self_occluded: str = "occluded",
    part: str = "all",
) -> downloads.Download:
    """OCHuman's own file or a COCO-format one.

    Args:
        path: of the annotations.
        joints: 17 or 19 to a person.
        self_occluded: "occluded" or "visible", for the file of its own.
        part: "all", "val" or "test", for the file of its own.

    Raises:
        UserError: the file is not there, of another format, or does not have what is
            asked for.
    """
    content, facts = readers.read_json(path)
    if isinstance(content, dict) and "annotations" in content:
        for option, value, only in (("joints", joints, 17), ("part", part, "all")):
            if value != only:
                raise UserError(
                    f"{path} is in COCO's format, so --{option} must be {only}, not "
                    f"{value}; ochuman.json has more."
                )
        download = coco.read(path, skeletons.COCO)
        facts = {**download.facts, "licence": _LICENCE}
        return download._replace(facts={**facts, "self_occluded": "as in the file"})
    images, names = _native(path, content)
    target = _SKELETONS[joints]
    hidden = {"occluded": OCCLUDED, "visible": VISIBLE}[self_occluded]
    meaning = {0: UNLABELLED, 1: VISIBLE, 2: hidden, 3: OCCLUDED}
    facts = {**facts, "licence": _LICENCE, "self_occluded": self_occluded, "part": part}
    entries, people = [], []
    for image in _of_part(images, part):
        entry = _entry(image)
        entries.append(entry)
        for person in _people(image):
            number = {"id": len(people) + 1, "image_id": _id_of(entry)}
            people.append({**number, **_person(person, names, target, meaning)})
    content = {"images": entries, "annotations": people}
    remarks = {"images of another --part": len(images) - len(entries)}
    remarks = {remark: count for remark, count in remarks.items() if count}
    return downloads.Download(content, target, facts, remarks)


def _native(path: pathlib.Path, content: Any) -> tuple[list, skeletons.Skeleton]:
    """The images of OCHuman's own file and its joints, which must be the known ones."""
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise UserError(f"{path} is no file of OCHuman: it has no list 'images'.")
    names = content.get("keypoint_names", list(skeletons.OCHUMAN.joints))
    if names != list(skeletons.OCHUMAN.joints):
        raise UserError(
            f"{path} has the joints {names}, not {list(skeletons.OCHUMAN.joints)}."
        )
    return images, skeletons.OCHUMAN


def _of_part(images: list, part: str) -> list:
    """The images of the official validation or test set, or all."""
    if part == "all":
        return images
    scored = [image for image in images if any(map(_is_scored, _people(image)))]
    return scored[:_VAL] if part == "val" else scored[_VAL:]


def _is_scored(person: Any) -> bool:
    """Whether someone has joints and a mask, and so is in the COCO-format files."""
    return isinstance(person, dict) and bool(
        person.get("keypoints") and person.get("segms")
    )


def _people(image: Any) -> list:
    people = image.get("annotations") if isinstance(image, dict) else None
    return people if isinstance(people, list) else []


def _entry(image: Any) -> Any:
    """An image with a number as id."""
    if not isinstance(image, dict):
        return image
    name = image.get("image_id")
    number = int(name) if isinstance(name, str) and name.isdecimal() else name
    keys = ("file_name", "height", "width")
    return {"id": number, **{key: image[key] for key in keys if key in image}}


def _id_of(entry: Any) -> Any:
    return entry.get("id") if isinstance(entry, dict) else None


def _person(
    person: Any, source: skeletons.Skeleton, target: skeletons.Skeleton, meaning: dict
) -> dict:
    """What COCO's form says of a person; `area` as in the COCO-format files."""
    if not isinstance(person, dict):
        return {}
    box = fields.xywh(person.get("bbox"))
    result: dict[str, Any] = {"bbox": box}
    if fields.is_box(box):
        result["area"] = box[2] * box[3]
    if person.get("keypoints") is not None:
        flat = person["keypoints"]
        result["keypoints"] = fields.joints_as(flat, source, target, meaning)
    if person.get("segms") is not None:
        result["segmentation"] = _mask(person["segms"])
    return result


def _mask(segms: Any) -> Any:
    """The outer polygons less the inner ones; what is none goes through as it is."""
    try:
        outer, inner = segms["outer"], segms.get("inner")
        if not inner:
            return outer
        size = segms["height"], segms["width"]
        hole = _filled(inner, size)
        solid = _filled(outer, size) & ~hole & 1
        coded = run_lengths.encode(np.asfortranarray(solid))
        return {"size": list(size), "counts": coded["counts"].decode()}
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
        return segms


def _filled(polygons: list, size: tuple[int, int]) -> np.ndarray:
    """Pixels [H, W] uint8 inside any of some polygons."""
    runs = [run_lengths.frPyObjects([corners], *size)[0] for corners in polygons]
    return run_lengths.decode(run_lengths.merge(runs))


if __name__ == "__main__":
    define_flags()
    data_prep.run(main)
