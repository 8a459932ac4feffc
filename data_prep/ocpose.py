r"""OCPose as downloaded to a dataset of records.

  python -m data_prep.ocpose --split train --list train_list.txt --images images \
      --annotations annot_all.json --out datasets
  python -m data_prep.ocpose --split test --list test_list.txt --images images \
      --annotations annot_all.json --out datasets

The form of the released file is documented nowhere, so this command looks at it: which
joints in which order, what the four numbers of a box are, which mark means visible. It
prints what it found and refuses what it cannot be sure of; --order, --boxes and
--visible decide for it. Look at the result with data_prep.browse in any case.
"""

import pathlib

from absl import flags

import data_prep
from data_prep import coco, downloads, fields, inspection
from occjax import skeletons

FLAGS = flags.FLAGS

_LICENCE = "not stated; released for research with OPEC-Net (ECCV 2020)"


def define_flags() -> None:
    """Defines what the command takes."""
    downloads.define_flags("ocpose", "annot_all.json.")
    downloads.define_list_flag()
    flags.DEFINE_enum(
        "order", None, sorted(inspection.ORDERS), "Scheme of the file's joints."
    )
    flags.DEFINE_enum("boxes", None, ["xywh", "xyxy"], "What the file's boxes are.")
    flags.DEFINE_enum("visible", None, ["1", "2"], "The mark of visible joints.")


def main() -> None:
    """Prepares the split that the flags describe."""
    download = read(
        pathlib.Path(FLAGS.annotations),
        order=FLAGS.order,
        boxes=FLAGS.boxes,
        visible=int(FLAGS.visible) if FLAGS.visible else None,
    )
    if FLAGS.list:
        download = downloads.only_listed(download, pathlib.Path(FLAGS.list))
    downloads.prepare_as_flagged(download)


def read(
    path: pathlib.Path,
    *,
    order: str | None = None,
    boxes: str | None = None,
    visible: int | None = None,
) -> downloads.Download:
    """OCPose's annotations with twelve joints, after a look at what they are.

    Args:
        path: of the annotations, in COCO's format.
        order: scheme of the joints in the file.
        boxes: "xywh" or "xyxy".
        visible: mark of visible joints, 1 or 2.

    What is None is found out.

    Raises:
        UserError: the file is not there, of another format, or cannot be understood
            with certainty.
    """
    content, facts = coco.read_json(path)
    found = inspection.inspect(path, content, order=order, boxes=boxes, visible=visible)
    print("\n".join(f"found   {line}" for line in found.evidence))
    people = [_person(one, found) for one in content["annotations"]]
    return downloads.Download(
        content={"images": content["images"], "annotations": people},
        skeleton=skeletons.OCPOSE,
        facts={**facts, "licence": _LICENCE, "found": list(found.evidence)},
        remarks={},
    )


def _person(annotation: object, found: inspection.Findings) -> object:
    """An annotation in COCO's form; areas as OPEC-Net's evaluation has them."""
    if not isinstance(annotation, dict):
        return annotation
    result = dict(annotation)
    if found.boxes == "xyxy":
        result["bbox"] = fields.xywh(annotation.get("bbox"))
    box = result.get("bbox")
    if fields.is_box(box):
        result["area"] = fields.area_of(box)
    if "keypoints" in annotation:
        result["keypoints"] = fields.joints_as(
            annotation["keypoints"], found.order, skeletons.OCPOSE, found.meaning
        )
    return result


if __name__ == "__main__":
    define_flags()
    data_prep.run(main)
