"""What the commands of public datasets share: flags, a file's content, writing a split.

A builder turns an annotation file into a `Download`. It moves and renames; whether an
entry can be used is the importer's to say, so what looks wrong goes through as it is.
"""

import pathlib
from typing import Any, NamedTuple

from absl import flags

import data_prep
from data_prep import importer
from data_prep.account import Account
from occjax.errors import UserError
from occjax.skeletons import Skeleton

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # --help lists them with those of the command itself


class Download(NamedTuple):
    """What an annotation file says, in COCO's form.

    Attributes:
        content: "images" and "annotations" for `importer.prepare`.
        skeleton: of the annotations there.
        facts: about the file, kept with the dataset.
        remarks: what is odd about the file, with how often; printed and kept.
    """

    content: dict[str, list]
    skeleton: Skeleton
    facts: dict[str, Any]
    remarks: dict[str, int]


def define_flags(name: str, annotations: str) -> None:
    """Defines the flags of a command that writes one split of one dataset.

    Args:
        name: of the dataset, unless the user says otherwise.
        annotations: what the annotation file is, for --help.
    """
    data_prep.define_common_flags()
    flags.DEFINE_string("name", name, "Name of the dataset to write.")
    flags.DEFINE_string("images", None, "Folder of the images.")
    flags.DEFINE_string("annotations", None, annotations)
    flags.DEFINE_string("split", "train", "Name of the split to write.")
    flags.mark_flags_as_required(["images", "annotations"])


def define_list_flag() -> None:
    """Defines --list, for datasets whose splits are lists of image names."""
    flags.DEFINE_string("list", None, "Text file of image names: take only these.")


def prepare_as_flagged(download: Download) -> Account:
    """Writes the split that the flags of `define_flags` describe."""
    where = FLAGS.out, FLAGS.name, FLAGS.split, FLAGS.images
    return prepare(*where, download, **data_prep.how())


def prepare(
    out: str | pathlib.Path,
    name: str,
    split: str,
    images: str | pathlib.Path,
    download: Download,
    **how: Any,
) -> Account:
    """Writes a split, tells what is odd about its file and what became of it.

    `how` is `exclude` and what else `importer.prepare` takes.

    Raises:
        UserError: as `importer.prepare`.
    """
    content, skeleton, facts, remarks = download
    for remark, count in remarks.items():
        print(f"note    {count:6}  {remark}")
    facts = {**facts, "remarks": remarks}
    where = out, name, split, images
    return importer.prepare(*where, content, skeleton, facts, **how)


def only_listed(download: Download, path: pathlib.Path) -> Download:
    """Takes the images that a text file names, one to a line, and their people.

    Raises:
        UserError: the list cannot be read, or the annotations have none of its images.
    """
    try:
        names = set(path.read_text().split())
    except (OSError, ValueError) as error:
        raise UserError(f"--list: {path} cannot be read: {error}.") from error
    entries = download.content["images"]
    there = {name for name in map(_name_of, entries) if name}
    if not names & there:
        raise UserError(f"--list: the annotations have none of the images of {path}.")
    out = [e for e in entries if _name_of(e) and _name_of(e) not in names]
    ids = {e["id"] for e in out if isinstance(e.get("id"), int)}
    people = download.content["annotations"]
    kept = [a for a in people if _image_of(a) not in ids]
    remarks = {
        "images that --list leaves out": len(out),
        "people of these images": len(people) - len(kept),
        "names of --list that the annotations do not have": len(names - there),
    }
    images = [e for e in entries if not _name_of(e) or _name_of(e) in names]
    return download._replace(
        content={"images": images, "annotations": kept},
        facts={**download.facts, "list": path.name},
        remarks={**download.remarks, **{r: n for r, n in remarks.items() if n}},
    )


def _name_of(entry: Any) -> str:
    """The file name of an image without folders; empty if there is none."""
    name = entry.get("file_name") if isinstance(entry, dict) else None
    return name.rpartition("/")[2] if isinstance(name, str) else ""


def _image_of(annotation: Any) -> int | None:
    image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
    return image_id if isinstance(image_id, int) else None
