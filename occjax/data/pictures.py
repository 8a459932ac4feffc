"""Somebody's own pictures as records: pixels without labels, numbered from 1."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from occjax.data import records
from occjax.data.results import Result
from occjax.skeletons import Skeleton


def record(image: np.ndarray, number: int, name: str) -> records.Record:
    """The record of pixels [H, W, 3] uint8 RGB in which nobody is labelled."""
    return {
        "image": image,
        "image_id": number,
        "file_name": name,
        "height": image.shape[0],
        "width": image.shape[1],
        "crowd_index": -1.0,
        "persons": {},
    }


class Numbered:
    """Pictures without labels, numbered from 1: all of a source but the records.

    Attributes:
        name: "pictures".
        skeleton: of the poses that are to be found in them.
        image_ids: [N], 1 to N.
        max_persons: 0, as nobody is labelled.
        boxes: whom to crop, for models that see a person at a time; else None.
    """

    name = "pictures"
    max_persons = 0

    def __init__(
        self, count: int, skeleton: Skeleton, boxes: Sequence[Result] | None = None
    ):
        """Numbers so many pictures."""
        self.skeleton, self.boxes = skeleton, boxes
        self.image_ids = np.arange(1, count + 1)

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.image_ids)


class Pictures(Numbered):
    """Images in memory as a source.

    Attributes:
        sizes: [N, 2] height and width of every image; the others are `Numbered`'s.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        skeleton: Skeleton,
        boxes: Sequence[Result] | None = None,
    ):
        """Takes images [H, W, 3] uint8 RGB; they are not copied."""
        super().__init__(len(images), skeleton, boxes)
        self._images = images
        sizes: Any = [image.shape[:2] for image in images]
        self.sizes = np.array(sizes, np.int64).reshape(-1, 2)

    def __getitem__(self, index: int) -> records.Record:
        """The record of an image."""
        return record(self._images[index], index + 1, f"{index + 1}")
