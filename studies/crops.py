"""The crops of LSP Extended as a dataset: 3,200 to train on, 600 to test.

The folder has `images/` and, in `annotations/`, train.npz and test.npz: `index` [N] of
the images imINDEX.jpg, `joints` [N, 14, 3] in LSP's order (the third number is 1 where
a joint is labelled) and `size_hw` [N, 2].
"""

import pathlib
import zipfile

import numpy as np

from data_prep import downloads, lsp
from data_prep.lsp import EXTENDED
from occjax import skeletons
from occjax.errors import UserError
from studies import runs

NAME = "lsp_crops"
SPLITS = ("train", "test")


def prepare(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Prepares both splits, each image the box of its person, if not done already.

    Args:
        folder: of the crops.
        out: folder of datasets to write to.

    Raises:
        UserError: a file is not there or damaged.
    """
    for split in SPLITS:
        if not runs.prepared(out, NAME, split):
            downloads.prepare(out, NAME, split, folder / "images", read(folder, split))


def read(folder: pathlib.Path, split: str) -> downloads.Download:
    """A split's annotations in COCO's form.

    Raises:
        UserError: the file is not there or damaged.
    """
    path = folder / "annotations" / f"{split}.npz"
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            index, joints, sizes = (arrays[k] for k in ("index", "joints", "size_hw"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    names = [EXTENDED.file_name.format(number) for number in index]
    size_of = dict(zip(names, sizes.tolist(), strict=True)).get
    content = lsp.content_of(joints, index, EXTENDED, size_of)
    for person, size in zip(content["annotations"], sizes.tolist(), strict=True):
        person["bbox"] = [0.0, 0.0, float(size[1]), float(size[0])]
    return downloads.Download(content, skeletons.LSP, {"file": path.name}, {})
