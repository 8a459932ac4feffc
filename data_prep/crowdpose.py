r"""CrowdPose as downloaded to a dataset of records.

  python -m data_prep.crowdpose --split train --images images \
      --annotations crowdpose_trainval.json --out datasets
  python -m data_prep.crowdpose --split test --images images \
      --annotations crowdpose_test.json --out datasets

Areas are 0.53 of the box, as its evaluator has them. In more than half of the images
all labelled joints are marked occluded, because their source had no such marks; only
where an image has a visible joint do its marks tell anything. The command counts them.
"""

import collections
import pathlib

from absl import flags

import data_prep
from data_prep import coco, downloads, fields
from occjax import skeletons

FLAGS = flags.FLAGS

_LICENCE = "published for research; images of several sources, some of them COCO's"


def define_flags() -> None:
    """Defines what the command takes."""
    downloads.define_flags("crowdpose", "crowdpose_{train,val,trainval,test}.json.")


def main() -> None:
    """Prepares the split that the flags describe."""
    downloads.prepare_as_flagged(read(pathlib.Path(FLAGS.annotations)))


def read(path: pathlib.Path) -> downloads.Download:
    """CrowdPose's annotation file, with areas and targets by its evaluator's rules.

    Raises:
        UserError: it is not there, in another format, or has other joints.
    """
    download = coco.read(path, skeletons.CROWDPOSE)
    content = download.content
    remarks = dict(download.remarks)
    if _is_swapped(content):
        swap = {"height": "width", "width": "height"}
        content["images"] = [
            {swap.get(key, key): value for key, value in entry.items()}
            if isinstance(entry, dict)
            else entry
            for entry in content["images"]
        ]
        remarks["images of an old file: height and width swapped back"] = len(
            content["images"]
        )
    marked = _images_with_marks(content)
    unmarked = len(content["images"]) - len(marked)
    remarks["images without a joint marked visible: marks tell nothing"] = unmarked
    people = [_person(annotation) for annotation in content["annotations"]]
    counted = sum(
        isinstance(person, dict)
        and person.get("num_keypoints") is not None
        and person["num_keypoints"] != _counted_joints(person)
        for person in people
    )
    remarks["num_keypoints that are not those of the limbs"] = counted
    facts = {
        **download.facts,
        "licence": _LICENCE,
        "area": "0.53 of the box",
        "visibility": "only in images with a visible joint",
    }
    content = {"images": content["images"], "annotations": people}
    remarks = {remark: count for remark, count in remarks.items() if count}
    return downloads.Download(content, skeletons.CROWDPOSE, facts, remarks)


def _person(annotation: object) -> object:
    """An annotation with its area, and whether it is a person to train on."""
    if not isinstance(annotation, dict):
        return annotation
    result = dict(annotation)
    box = result.get("bbox")
    if fields.is_box(box):
        result["area"] = fields.area_of(box)
    # Head and neck alone make no person: the evaluator ignores such people.
    alone = _counted_joints(annotation) > 0 and not annotation.get("iscrowd")
    return {**result, "is_target": alone}


def _counted_joints(annotation: dict) -> int:
    """CrowdPose's `num_keypoints`: labelled joints among the twelve limb joints."""
    marks = coco.joints_of(annotation)[2::3][: skeletons.OCPOSE.num_joints]
    return sum(mark in (1, 2) for mark in marks)


def _images_with_marks(content: dict) -> set:
    """Ids of the images whose marks tell visible joints from occluded ones."""
    return {
        annotation["image_id"]
        for annotation in content["annotations"]
        if 2 in coco.joints_of(annotation)[2::3]
        and isinstance(annotation.get("image_id"), int)
    }


def _is_swapped(content: dict) -> bool:
    """Whether this is the file of before March 2021, with height and width swapped.

    No box of the present files exceeds its image; with swapped sizes nearly half do.
    """
    sizes = {
        entry["id"]: (entry["width"], entry["height"])
        for entry in content["images"]
        if isinstance(entry, dict)
        and all(isinstance(entry.get(key), int) for key in ("id", "width", "height"))
    }
    boxes, beyond = 0, collections.Counter[str]()
    for annotation in content["annotations"]:
        one = annotation if isinstance(annotation, dict) else {}
        box, image_id = one.get("bbox"), one.get("image_id")
        if fields.is_box(box) and isinstance(image_id, int) and image_id in sizes:
            x, y, w, h = box
            width, height = sizes[image_id]
            beyond["listed"] += x + w > width or y + h > height
            beyond["swapped"] += x + w > height or y + h > width
            boxes += 1
    return beyond["listed"] > 0.2 * boxes and beyond["swapped"] == 0


if __name__ == "__main__":
    define_flags()
    data_prep.run(main)
