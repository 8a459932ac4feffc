r"""COCO-format annotations and images to a dataset of records.

Enough for COCO itself, the COCO-format files of OCHuman, and CrowdPose:

  python -m data_prep.coco --name coco --split train --out datasets \
      --images train2017 --annotations annotations/person_keypoints_train2017.json
  python -m data_prep.coco --name crowdpose --skeleton crowdpose --split train \
      --images images --annotations crowdpose_trainval.json --out datasets

Images are kept as they are, byte for byte. Everything that is left out is counted.
"""

import collections
import gzip
import hashlib
import json
import pathlib

from absl import flags

import data_prep
from data_prep import importer
from data_prep.account import Account
from occjax import skeletons
from occjax.errors import UserError

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines what the command takes."""
    flags.DEFINE_string("name", "coco", "Name of the dataset to write.")
    flags.DEFINE_string("images", None, "Folder of the images.")
    flags.DEFINE_string("annotations", None, "The .json or .json.gz file.")
    flags.DEFINE_string("split", "train", "Name of the split to write.")
    flags.DEFINE_string("out", "datasets", "Folder of all datasets.")
    flags.DEFINE_enum(
        "skeleton", "coco", sorted(skeletons.BY_NAME), "Joints of the annotations."
    )
    flags.mark_flags_as_required(["images", "annotations"])


def main() -> None:
    """Prepares the split that the flags describe."""
    prepare(
        FLAGS.out,
        FLAGS.name,
        FLAGS.split,
        FLAGS.images,
        FLAGS.annotations,
        skeletons.BY_NAME[FLAGS.skeleton],
    )


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
    annotations = pathlib.Path(annotations)
    content, digest = read_json(annotations)
    _check_joint_count(annotations, content["annotations"], skeleton)
    facts = {
        "annotations": annotations.name,
        "sha256": digest,
        "licence": _licences(content),
    }
    return importer.prepare(out, name, split, images, content, skeleton, facts)


def read_json(path: pathlib.Path) -> tuple[dict, str]:
    """The content of an annotation file and its SHA-256.

    Raises:
        UserError: it is not there, no JSON, or lacks the lists of the COCO format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"--annotations: {path} cannot be read: {error}.") from error
    try:
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        content = json.loads(text)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path} is no JSON file: {error}.") from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{path} is not in COCO format: it has no list {key!r}.")
    return content, hashlib.sha256(data).hexdigest()


def _check_joint_count(
    path: pathlib.Path, annotations: list, skeleton: skeletons.Skeleton
) -> None:
    """Refuses a file whose people all have another number of joints."""
    counts = collections.Counter(
        len(annotation["keypoints"]) // 3
        for annotation in annotations
        if isinstance(annotation.get("keypoints"), list)
    )
    if counts and skeleton.num_joints not in counts:
        found = counts.most_common(1)[0][0]
        raise UserError(
            f"{path} has {found} joints a person, --skeleton {skeleton.name} has "
            f"{skeleton.num_joints}."
        )


def _licences(content: dict) -> str:
    """What the file says about the licences of its images."""
    licences = content.get("licenses") or []
    names = [item.get("name", "") for item in licences if isinstance(item, dict)]
    return "; ".join(filter(None, names)) or "not stated in the annotation file"


if __name__ == "__main__":
    define_flags()
    data_prep.run(main)
