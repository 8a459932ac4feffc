"""What the commands of public datasets share: flags, reading files, writing a split.

A builder turns an annotation file into a `Download`. It moves and renames; whether an
entry can be used is the importer's to say, so what looks wrong goes through as it is.
"""

import gzip
import hashlib
import json
import multiprocessing
import pathlib
import zlib
from collections.abc import Mapping
from concurrent import futures
from concurrent.futures import process
from typing import Any, NamedTuple, TypeGuard

from absl import flags

import data_prep
from data_prep import importer, persons
from data_prep.account import Account
from occjax.data import convert
from occjax.errors import UserError
from occjax.skeletons import Skeleton

FLAGS = flags.FLAGS
_FARTHEST = 1e9  # pixels
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


def read_bytes(path: pathlib.Path) -> tuple[bytes, str]:
    """What an annotation file holds, unpacked if it is .gz, and its SHA-256.

    Raises:
        UserError: it cannot be read or unpacked.
    """
    try:
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"--annotations: {path} cannot be read: {error}.") from error
    return text, hashlib.sha256(data).hexdigest()


def read_json(path: pathlib.Path) -> tuple[Any, dict]:
    """Content of a .json or .json.gz file, and first facts about it.

    Raises:
        UserError: it cannot be read or is no JSON.
    """
    text, digest = read_bytes(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON file: {error}.") from error
    return content, {"annotations": path.name, "sha256": digest}


def read_mat(path: pathlib.Path, key: str) -> tuple[Any, dict]:
    """A variable of a MATLAB file, structs as objects, and first facts about it.

    Raises:
        UserError: it cannot be read, is no MATLAB file, or lacks the variable.
    """
    _, digest = read_bytes(path)
    print(f"reading {path}")  # MPII's takes half a minute
    try:
        content = _load_apart(path)
    except Exception as error:  # noqa: BLE001  # damage makes SciPy raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path} is no MATLAB file: {reason[0]}.") from error
    if key not in content:
        found = ", ".join(name for name in content if not name.startswith("__"))
        raise UserError(f"{path} has no variable {key!r}, only {found or 'none'}.")
    return content[key], {"annotations": path.name, "sha256": digest}


def _load_apart(path: pathlib.Path) -> dict[str, Any]:
    """The variables of a MATLAB file, read by a process that may crash.

    Damaged structs can lead SciPy's parser, which is no Python, out of its memory.
    """
    import scipy.io  # slow, and only here

    context = multiprocessing.get_context("spawn")
    options = {"struct_as_record": False, "squeeze_me": True}
    with futures.ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(scipy.io.loadmat, str(path), **options).result()
        except process.BrokenProcessPool as error:
            raise ValueError("its parser crashed") from error


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


def _name_of(entry: Any) -> str:
    """The file name of an image without folders; empty if there is none."""
    name = entry.get("file_name") if isinstance(entry, dict) else None
    return name.rpartition("/")[2] if isinstance(name, str) else ""


def _image_of(annotation: Any) -> int | None:
    image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
    return image_id if isinstance(image_id, int) else None
