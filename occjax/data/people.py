"""Sources of people: a record for each box of another source's images.

Such a record is the image's, and has besides

    row        of the person whose box it is, -1 for a detector's box
    box        [4] float64: x, y, width, height
    box_score  of the detector, 1 for annotated boxes
    pose       [J, 3] float64: x, y, confidence; only where poses are read from a file
"""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np

from occjax.data import records, results
from occjax.data.sources import Source
from occjax.errors import UserError


class People(abc.ABC):
    """People of a source of images, by index.

    Attributes:
        name, skeleton, max_persons: of the images' source.
        images: [N] each person's image, an index of that source.
    """

    def __init__(self, source: Source, images: np.ndarray):
        """Notes the images of the people."""
        self.name, self.skeleton = source.name, source.skeleton
        self.max_persons = source.max_persons
        self.images, self.source = images, source

    def __len__(self) -> int:
        """How many people there are."""
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record of a person."""
        record = self.source[int(self.images[index])]
        return {**record, **self.person(record, index)}

    @abc.abstractmethod
    def person(self, record: records.Record, index: int) -> dict[str, Any]:
        """What the record of a person has besides that of the image."""

    @property
    def labelled_joints(self) -> np.ndarray:
        """How many joints of each person [N] are labelled, if that is known."""
        raise NotImplementedError


class Annotated(People):
    """Each person that can be a target, with the annotated box."""

    def __init__(self, source: Source, images: int = 0, clip: bool = True):
        """Lists the people; a source without `targets` is read once from end to end.

        Args:
            source: of the images.
            images: only people of the first so many, 0 for all.
            clip: whether boxes end where their image does, as official code has it for
                COCO, CrowdPose and OCHuman. Those of MPII and LSP are squares about a
                given centre, which clipping would move.
        """
        count = min(images or len(source), len(source))
        known = getattr(source, "targets", None)
        if known is None:
            known = [records.targets(source[i]).sum() for i in range(count)]
        counts = np.asarray(known[:count], np.int64)
        super().__init__(source, np.repeat(np.arange(count), counts))
        self._clip = clip
        self._rows: dict[int, np.ndarray] = {}
        self._ends = np.cumsum(counts)

    def person(self, record: records.Record, index: int) -> dict[str, Any]:
        """What the record of a person has besides that of the image.

        Raises:
            UserError: the image has other people than the dataset's notes say.
        """
        image = int(self.images[index])
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
        return {"row": row, "box": box, "box_score": 1.0}

    @property
    def labelled_joints(self) -> np.ndarray:
        """How many joints of each person are labelled."""
        known = getattr(self.source, "target_joints", None)
        if known is not None:
            return np.asarray(known)[: len(self)]
        counts = []
        for image in range(len(self._ends)):
            record = self.source[image]
            joints = record["persons"]["joints"][records.targets(record)]
            counts.extend(np.sum(joints[..., 2] > 0, axis=1))
        return np.array(counts)


class Detected(People):
    """Each box or pose that was read from a file, in its order."""

    def __init__(self, source: Source, found: Sequence[results.Result]):
        """Lists what `results.read` found on the images of a source."""
        super().__init__(source, np.array([one.image for one in found], np.int64))
        self._found = found

    def person(self, record: records.Record, index: int) -> dict[str, Any]:
        """What the record of a box has besides that of the image."""
        found = self._found[index]
        extra = {"row": found.row, "box": found.box, "box_score": found.score}
        return extra if found.pose is None else {**extra, "pose": found.pose}
