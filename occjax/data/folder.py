"""Somebody's own pictures as a source: files without labels."""

from collections.abc import Iterable

import numpy as np
from etils import epath

from occjax.data import pictures, records
from occjax.errors import UserError
from occjax.skeletons import Skeleton

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def find(path: epath.PathLike) -> list[epath.Path]:
    """The file itself, or the images that lie directly in a folder, by name.

    Raises:
        UserError: there is no such path, or no image in the folder.
    """
    path = epath.Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: there is no such image or folder.")
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{path}: no image in this folder ({', '.join(SUFFIXES)}).")
    return found


class Folder(pictures.Numbered):
    """Image files as records without persons, numbered from 1.

    Pictures stand upright, as their camera's orientation tag says and as every viewer
    shows them; coordinates refer to that. (Labelled datasets ignore the tag.)

    Attributes:
        paths: of the files that can be read.
        unreadable: one line for each file that cannot.
        sizes: [N, 2] height and width of every picture.
    """

    def __init__(self, paths: Iterable[epath.Path], skeleton: Skeleton):
        """Opens every file once, to learn its size and whether it can be read."""
        self.paths: list[epath.Path] = []
        self.unreadable: list[str] = []
        sizes = []
        for path in paths:
            try:
                sizes.append(records.load(path, upright=True).shape[:2])
                self.paths.append(path)
            except UserError as error:
                self.unreadable.append(str(error))
        self.sizes = np.array(sizes, np.int64).reshape(-1, 2)
        super().__init__(len(self.paths), skeleton)

    def __getitem__(self, index: int) -> records.Record:
        """The record of one picture, decoded.

        Raises:
            UserError: the file has become unreadable since.
        """
        path = self.paths[index]
        image = records.load(path, upright=True)
        return pictures.record(image, index + 1, path.name)
