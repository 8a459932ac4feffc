r"""COCO-format annotations and images to a dataset of records.

  python -m data_prep.coco --split train --images train2017 \
      --annotations annotations/person_keypoints_train2017.json --out datasets
  python -m data_prep.coco --split val --images val2017 \
      --annotations annotations/person_keypoints_val2017.json --out datasets

COCO-RE's files are read the same way; its joints of visibility 3, which COCO had left
unlabelled, count as occluded. Any other file in COCO's format will do with --name and
--skeleton. Images are kept as they are, byte for byte; all that is left out is counted.
"""

import collections
import pathlib

from absl import flags

import data_prep
from data_prep import downloads, readers
from data_prep.account import Account
from occjax import skeletons
from occjax.errors import UserError

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines what the command takes."""
    downloads.define_flags("coco", "The .json or .json.gz file.")
    flags.DEFINE_enum(
        "skeleton", "coco", sorted(skeletons.BY_NAME), "Joints of the annotations."
    )


def main() -> None:
    """Prepares the split that the flags describe."""
    skeleton = skeletons.BY_NAME[FLAGS.skeleton]
    downloads.prepare_as_flagged(read(pathlib.Path(FLAGS.annotations), skeleton))


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
    download = read(pathlib.Path(annotations), skeleton)
    return downloads.prepare(out, name, split, images, download)


def read(path: pathlib.Path, skeleton: skeletons.Skeleton) -> downloads.Download:
    """A COCO-format annotation file.

    Raises:
        UserError: it is not there, in another format, or has other joints.
    """
    content, facts = read_json(path)
    _check_joint_count(path, content["annotations"], skeleton)
    guessed = sum(
        flat[2::3].count(3) for flat in map(joints_of, content["annotations"])
    )
    remarks = {"joints of visibility 3, taken as occluded": guessed} if guessed else {}
    facts = {**facts, "licence": _licences(content)}
    return downloads.Download(content, skeleton, facts, remarks)


def read_json(path: pathlib.Path) -> tuple[dict, dict]:
    """The content of a file in COCO's format, and first facts about it.

    Raises:
        UserError: it is not there, no JSON, or lacks the lists of the COCO format.
    """
    content, facts = readers.read_json(path)
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path} is not in COCO format: it has no list {key!r}.")
    return content, facts


def joints_of(annotation: object) -> list:
    """The joints of an annotation; empty if there is no list of them."""
    flat = annotation.get("keypoints") if isinstance(annotation, dict) else None
    return flat if isinstance(flat, list) else []


def _check_joint_count(
    path: pathlib.Path, annotations: list, skeleton: skeletons.Skeleton
) -> None:
    """Refuses a file whose people all have another number of joints."""
    lengths = [len(joints_of(annotation)) // 3 for annotation in annotations]
    counts = collections.Counter(length for length in lengths if length)
    if counts and skeleton.num_joints not in counts:
        found = counts.most_common(1)[0][0]
        raise UserError(
            f"{path} has {found} joints a person, {skeleton.name} has "
            f"{skeleton.num_joints}."
        )


def _licences(content: dict) -> str:
    """What the file says about the licences of its images."""
    licences = content.get("licenses")
    entries = licences if isinstance(licences, list) else []
    names = [str(item.get("name", "")) for item in entries if isinstance(item, dict)]
    return "; ".join(filter(None, names)) or "not stated in the annotation file"


if __name__ == "__main__":
    define_flags()
    data_prep.run(main)
