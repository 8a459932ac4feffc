"""Sources of people: a record for each box of another source's images.

Such a record is the image's, and has besides

    row        of the person whose box it is, -1 for a detector's box
    box        [4] float64: x, y, width, height
    box_score  of the detector, 1 for annotated boxes
"""

import collections
import json
import pathlib
from typing import Any, TypeGuard

import numpy as np
from absl import logging

from occjax.data import records
from occjax.data.sources import Source
from occjax.errors import UserError

_FARTHEST = 1e9  # pixels; JSON's integers have no end, those of floats do


class Annotated:
    """Each person that can be a target, with the annotated box.

    Attributes:
        name, skeleton, max_persons: of the images' source.
    """

    def __init__(self, source: Source, images: int = 0, clip: bool = True):
        """Lists the people; a source without `targets` is read once from end to end.

        Args:
            source: of the images.
            images: only people of the first so many, 0 for all.
            clip: whether boxes end where their image does, as official code has it for
                COCO, CrowdPose and OCHuman. Those of MPII and LSP are squares about a
                given centre, which clipping would move.
        """
        self.name, self.skeleton = source.name, source.skeleton
        self.max_persons = source.max_persons
        count = min(images or len(source), len(source))
        known = getattr(source, "targets", None)
        if known is None:
            known = [records.targets(source[i]).sum() for i in range(count)]
        self._source, self._clip = source, clip
        self._rows: dict[int, np.ndarray] = {}
        self._ends = np.cumsum(np.asarray(known[:count], np.int64))

    def __len__(self) -> int:
        """How many people there are."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record of a person.

        Raises:
            UserError: the image has other people than the dataset's notes say.
        """
        image = int(np.searchsorted(self._ends, index, "right"))
        record = self._source[image]
        rows = self._rows.get(image)
        if rows is None:  # a person is drawn every epoch, the answer stays
            rows = self._rows[image] = np.flatnonzero(records.targets(record))
        before = int(self._ends[image - 1]) if image else 0
        if len(rows) != self._ends[image] - before:
            raise UserError(
                f"{self.name}: {records.describe(record)} has {len(rows)} people to "
                f"crop, its notes say {self._ends[image] - before}; prepare it again."
            )
        row = int(rows[index - before])
        box = np.asarray(record["persons"]["bbox"][row], np.float64)
        if self._clip:
            box = records.clean_boxes(box[None], record["height"], record["width"])[0]
        return {**record, "row": row, "box": box, "box_score": 1.0}

    @property
    def labelled_joints(self) -> np.ndarray:
        """How many joints of each person are labelled."""
        known = getattr(self._source, "target_joints", None)
        if known is not None:
            return np.asarray(known)[: len(self)]
        counts = []
        for image in range(len(self._ends)):
            record = self._source[image]
            joints = record["persons"]["joints"][records.targets(record)]
            counts.extend(np.sum(joints[..., 2] > 0, axis=1))
        return np.array(counts)


class Detected:
    """Each box of a detections file, in its order.

    Attributes:
        name, skeleton, max_persons: of the images' source.
        dropped: how many boxes were left out, by reason.
    """

    def __init__(self, source: Source, path: str, images: int = 0):
        """Reads a COCO result list: `image_id`, `bbox`, `score`, `category_id`.

        Args:
            source: of the images.
            path: of the file.
            images: only boxes on the first so many images, 0 for all.

        Raises:
            UserError: the file is not there or damaged, an entry is, or none is a
                person on one of the images.
        """
        self.name, self.skeleton = source.name, source.skeleton
        self.max_persons = source.max_persons
        self._source = source
        self.dropped: collections.Counter[str] = collections.Counter()
        count = min(images or len(source), len(source))
        known = getattr(source, "image_ids", None)
        if known is None:
            known = [source[i]["image_id"] for i in range(count)]
        index = {int(image_id): i for i, image_id in enumerate(known[:count])}
        self._boxes: list[tuple[int, np.ndarray, float]] = []
        for number, entry in enumerate(_entries(path)):
            image_id, box, score = _checked(entry, f"{path}: entry {number}")
            if entry.get("category_id", 1) != 1:
                self.dropped["no person"] += 1
            elif image_id not in index:
                self.dropped["on an image that is not tested"] += 1
            elif min(box[2:]) < 0 or max(box[2:]) <= 0:
                self.dropped["without extent"] += 1
            else:
                self._boxes.append((index[image_id], box, score))
        if not self._boxes:
            raise UserError(f"{path}: no box of a person on an image of {self.name}.")
        for reason, number in self.dropped.items():
            logging.warning("%s: %d boxes left out, %s", path, number, reason)

    def __len__(self) -> int:
        """How many boxes there are."""
        return len(self._boxes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record of a box."""
        image, box, score = self._boxes[index]
        return {**self._source[image], "row": -1, "box": box, "box_score": score}


def _entries(path: str) -> list:
    """The list in a detections file."""
    try:
        entries = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"data.detections: {path}: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"data.detections: {path} is no JSON ({error}).") from error
    if not isinstance(entries, list):
        raise UserError(
            f"data.detections: {path}: expected a list of boxes, "
            f"found {type(entries).__name__}."
        )
    return entries


def _checked(entry: Any, where: str) -> tuple[int, np.ndarray, float]:
    """Image id, box [4] and score of an entry."""
    if not isinstance(entry, dict):
        raise UserError(f"{where}: expected an object, found {entry!r:.60}.")
    image_id: Any = entry.get("image_id")
    box, score = entry.get("bbox"), entry.get("score")
    if isinstance(image_id, bool) or not isinstance(image_id, int):
        raise UserError(
            f"{where}: image_id: expected a number, found {image_id!r:.60}."
        )
    if not isinstance(box, list) or len(box) != 4 or not all(map(_sound, box)):
        raise UserError(
            f"{where}: bbox: expected four numbers within 1e9, found {box!r:.60}."
        )
    if not _sound(score):
        raise UserError(
            f"{where}: score: expected a number within 1e9, found {score!r:.60}."
        )
    return image_id, np.array(box, np.float64), score


def _sound(value: Any) -> TypeGuard[float]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -_FARTHEST < value < _FARTHEST
