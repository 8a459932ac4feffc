r"""Leeds Sports Pose, and its extension, as downloaded to a dataset of records.

  python -m data_prep.lsp --part train --split train --images lsp_dataset/images \
      --annotations lsp_dataset/joints.mat --out datasets
  python -m data_prep.lsp --part test --split test --images lsp_dataset/images \
      --annotations lsp_dataset/joints.mat --out datasets
  python -m data_prep.lsp --name lspet --images lspet_dataset/images \
      --annotations lspet_dataset/joints.mat --out datasets

The first 1,000 images of LSP are for training, the last 1,000 for testing. In LSP the
third row marks occluded joints; in the extension it marks joints that are labelled at
all, and nothing tells which of them are hidden. LSP has no boxes: a person's is as
high and wide as its image is high, about the middle of the joints, or about the middle
of the image where that is a test image.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tqdm
from absl import flags

import data_prep
from data_prep import downloads, readers
from occjax import skeletons
from occjax.data.records import decode
from occjax.errors import UserError
from occjax.types import OCCLUDED, UNLABELLED, VISIBLE

FLAGS = flags.FLAGS

_LICENCE = "not stated; cite Johnson and Everingham, BMVC 2010 and CVPR 2011"
_TRAINING = 1000  # images of LSP


class Form(NamedTuple):
    """What sets LSP and its extension apart."""

    layout: tuple[int, int]  # the axes before the images, joints.mat
    file_name: str
    zero: int  # visibility of a joint whose third number is 0
    one: int


LSP = Form((3, 14), "im{:04d}.jpg", VISIBLE, OCCLUDED)
EXTENDED = Form((14, 3), "im{:05d}.jpg", UNLABELLED, VISIBLE)


def define_flags() -> None:
    """Defines what the command takes."""
    downloads.define_flags("lsp", "joints.mat of LSP or of LSP Extended.")
    flags.DEFINE_enum("part", "all", ["all", "train", "test"], "Images to take.")


def main() -> None:
    """Prepares the split that the flags describe."""
    path, images = pathlib.Path(FLAGS.annotations), pathlib.Path(FLAGS.images)
    downloads.prepare_as_flagged(read(path, images, part=FLAGS.part))


def read(
    path: pathlib.Path, images: pathlib.Path, *, part: str = "all"
) -> downloads.Download:
    """The joints.mat of either dataset, and the sizes of its images.

    Args:
        path: of joints.mat.
        images: folder of the images.
        part: "all", "train" or "test".

    Raises:
        UserError: the file is not there, of another format, or has no such part.
    """
    array, facts = readers.read_mat(path, "joints")
    shape = np.shape(array)
    form = {LSP.layout: LSP, EXTENDED.layout: EXTENDED}.get(shape[:2])
    if form is None or len(shape) != 3 or not _is_numeric(array):
        raise UserError(
            f"{path} has joints of shape {list(shape)}, expected numbers [3, 14, N] "
            "(LSP) or [14, 3, N] (extended)."
        )
    if form is EXTENDED and part == "test":
        raise UserError(f"{path}: LSP Extended has no test part, all of it trains.")
    order = (2, 1, 0) if form is LSP else (2, 0, 1)
    joints = np.transpose(array, order).astype(float)  # [N, 14, 3]
    numbers = np.arange(1, len(joints) + 1)
    chosen = np.ones(len(joints), bool)
    if form is LSP and part != "all":
        chosen = (numbers <= _TRAINING) == (part == "train")
    facts = {**facts, "licence": _LICENCE, "part": part}
    content = content_of(
        joints[chosen], numbers[chosen], form, lambda name: _size(images / name)
    )
    remarks = {"images of another --part": int(np.sum(~chosen))}
    if form is EXTENDED:
        remarks["people whose occluded joints are not marked"] = len(joints)
    remarks = {remark: count for remark, count in remarks.items() if count}
    return downloads.Download(content, skeletons.LSP, facts, remarks)


def content_of(
    joints: np.ndarray,
    numbers: np.ndarray,
    form: Form,
    size_of: Callable[[str], tuple[int, int] | None],
) -> dict[str, list]:
    """COCO's form of single people.

    Args:
        joints: [N, 14, 3] x, y and the third number of the file.
        numbers: [N] of the images, from 1.
        form: of the file.
        size_of: height and width of an image by its name, None if it is unreadable.
    """
    images, people = [], []
    rows = zip(numbers.tolist(), joints, strict=True)
    for number, points in tqdm.tqdm(rows, "sizes", len(joints), disable=None):
        name = form.file_name.format(number)
        images.append({"id": number, "file_name": name})
        person: dict[str, Any] = {"id": number, "image_id": number}
        marks = points[:, 2]
        known = np.where(marks == 1, form.one, np.where(marks == 0, form.zero, marks))
        placed = np.where(known[:, None] == UNLABELLED, 0, points[:, :2])
        person["keypoints"] = np.column_stack([placed, known]).ravel().tolist()
        size = size_of(name)
        if size is not None:
            images[-1].update(height=size[0], width=size[1])
            testing = form is LSP and number > _TRAINING
            seen = placed[(known != UNLABELLED) & np.isfinite(placed).all(axis=1)]
            person["bbox"] = _box(seen[:0] if testing else seen, size)
        people.append(person)
    return {"images": images, "annotations": people}


def _box(seen: np.ndarray, size: tuple[int, int]) -> list[float]:
    """A square as high as the image about joints [K, 2], or about its middle."""
    height, width = size
    middle = np.array([width - 1, height - 1]) / 2
    if len(seen):
        middle = (seen.min(axis=0) + seen.max(axis=0)) / 2
    x, y = (middle - height / 2).tolist()
    return [x, y, float(height), float(height)]


def _size(path: pathlib.Path) -> tuple[int, int] | None:
    """Height and width of an image; the importer counts what cannot be read."""
    try:
        height, width = decode(path.read_bytes(), path.name).shape[:2]
    except (OSError, UserError):
        return None
    return height, width


def _is_numeric(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind in "iuf"


if __name__ == "__main__":
    define_flags()
    data_prep.run(main)
