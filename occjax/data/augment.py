"""Views of a record: random crops for training, the official resize for testing.

A transform is a frozen dataclass; what is random in it comes from the generator that
it is handed, so that one index gives the same bytes whenever it is read.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from occjax.data import records, warp
from occjax.errors import UserError
from occjax.skeletons import Skeleton
from occjax.types import Batch, Inputs, Labels

STRIDE = 4  # of the ignore map


class Placed(NamedTuple):
    """A record and where to look in it."""

    record: records.Record
    matrix: np.ndarray  # [2, 3], source to input before mirroring
    mirrored: bool
    seed: int = 0  # of what happens to the view afterwards


@dataclasses.dataclass(frozen=True)
class TrainView:
    """Random affine crop and mirroring of an image with its people.

    The window's side is the short side of the image times `scale`, its centre the
    image's moved by up to `translate` of that side, in whole pixels (spec of PINet,
    section 6.2).

    Attributes:
        size: side of the square input, pixels.
        max_persons: P that labels are padded to.
        skeleton: J joints and their order after mirroring.
        scale: least and greatest window side, relative to the short side.
        rotate: greatest rotation, degrees.
        translate: greatest shift, relative to the window's side.
        flip: probability of mirroring.
        flip_shift: how far left of their true place, in input pixels, labels lie in
            mirrored images. 0 mirrors exactly, x -> W - 1 - x. The official code
            mirrors the image at full and the labels at quarter resolution, which is
            3; its test mirrors with a shift of 3 that makes up for it.
    """

    size: int
    max_persons: int
    skeleton: Skeleton
    scale: tuple[float, float] = (0.75, 1.5)
    rotate: float = 30.0
    translate: float = 0.2
    flip: float = 0.5
    flip_shift: float = 0.0

    def random_map(self, record: records.Record, rng: np.random.Generator) -> Placed:
        """Draws where to look in a record."""
        height, width = int(record["height"]), int(record["width"])
        side = min(height, width) * rng.uniform(*self.scale)
        rotation = rng.uniform(-self.rotate, self.rotate)
        reach = int(self.translate * side)
        move = rng.integers(-reach, reach, size=2, endpoint=True)
        mirrored = bool(rng.random() < self.flip)
        center = (width / 2 + move[0], height / 2 + move[1])
        matrix = warp.window_matrix(center, side, rotation, self.size, self.size)
        return Placed(record, matrix, mirrored, draw_seed(rng))

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.size, self.size

    def view(self, placed: Placed, out: np.ndarray | None = None) -> Batch:
        """The example at a given place: a Batch without the axis B.

        Args:
            placed: from `random_map`.
            out: [size, size, 3] uint8 to put the image into.

        Raises:
            UserError: the image cannot be read or has more than `max_persons` people.
        """
        record, matrix, mirrored, _ = placed
        label_matrix = matrix
        if mirrored:
            label_matrix = warp.mirror(matrix, self.size, self.flip_shift)
            matrix = warp.mirror(matrix, self.size)
        truth = labels(
            record,
            everyone(record, self.max_persons, self.skeleton),
            label_matrix,
            ignore_map(record, label_matrix, self.canvas),
            self.max_persons,
            self.skeleton.flip if mirrored else None,
        )
        return example(record, matrix, self.canvas, truth, out)


@dataclasses.dataclass(frozen=True)
class TestView:
    """The official test input: short side to `size`, see `warp.test_canvas`.

    Attributes:
        size: short side of the input, pixels.
        multiple: what the long side is rounded up to.
        scales: of a multi-scale test besides scale 1, each a view in
            `Inputs.scaled`; coordinates are those of scale 1 throughout.
        max_persons: P that labels are padded to; 0 leaves labels out.
        skeleton: J joints.
    """

    __test__ = False  # not a test of pytest

    size: int
    multiple: int
    skeleton: Skeleton
    scales: tuple[float, ...] = ()
    max_persons: int = 0

    def map(self, record: records.Record) -> Batch:
        """One test example: a Batch without the axis B."""
        image = records.pixels(record)
        views = [
            warp.test_view(image, self.size, scale, self.multiple)[0]
            for scale in (1.0, *self.scales)
        ]
        height, width = image.shape[:2]
        canvas = warp.test_canvas(height, width, self.size, self.multiple)
        matrix = warp.test_matrix(height, width, canvas)
        truth = None
        if self.max_persons:
            rows = everyone(record, self.max_persons, self.skeleton)
            ignore = ignore_map(record, matrix, canvas)
            truth = labels(record, rows, matrix, ignore, self.max_persons)
        return Batch(
            inputs=Inputs(
                image=views[0],
                valid=warp.covered(matrix, image.shape, canvas),
                to_source=warp.invert(matrix).astype(np.float32),
                scaled=tuple(views[1:]),
            ),
            labels=truth,
            image_id=np.int64(record["image_id"]),
        )


@dataclasses.dataclass(frozen=True)
class Colour:
    """Multiplies each colour channel by a factor of its own, cut off at 255.

    Attributes:
        strength: factors lie within 1 - strength and 1 + strength.
    """

    strength: float

    def random_map(self, view: Batch, rng: np.random.Generator) -> Batch:
        """Changes image and clean twin of a view in place, both alike."""
        factors = rng.uniform(1 - self.strength, 1 + self.strength, 3)
        values = np.arange(256)[:, None] * factors
        table = np.clip(np.rint(values), 0, 255).astype(np.uint8)[None]  # [1, 256, 3]
        for image in (view.inputs.image, view.inputs.clean):
            if image is not None:
                rows = image.reshape(-1, *image.shape[-2:])  # of several crops, too
                cv2.LUT(rows, table, dst=rows)
        return view


def draw_seed(rng: np.random.Generator) -> int:
    """A seed for what happens to an example later on."""
    return int(rng.integers(2**63))


def example(
    record: records.Record,
    matrix: np.ndarray,
    canvas: tuple[int, int],
    truth: Labels | None,
    out: np.ndarray | None = None,
) -> Batch:
    """One view of a record: a Batch without the axis B.

    Args:
        record: of an image.
        matrix: [2, 3], source to input.
        canvas: height and width of the input.
        truth: its labels.
        out: [H, W, 3] uint8 to put the image into.

    Raises:
        UserError: the image cannot be read.
    """
    image = records.pixels(record)
    return Batch(
        inputs=Inputs(
            image=warp.warp_image(image, matrix, *canvas, out=out),
            valid=warp.covered(matrix, image.shape, canvas),
            to_source=warp.invert(matrix).astype(np.float32),
        ),
        labels=truth,
        image_id=np.int64(record["image_id"]),
    )


def everyone(
    record: records.Record, max_persons: int, skeleton: Skeleton
) -> np.ndarray:
    """Rows [p] of the people that carry a target, at most `max_persons`.

    People without a labelled joint carry none and are left out; where their segments
    are known, the ignore map covers them.

    Raises:
        UserError: there are more.
    """
    rows = np.flatnonzero(records.trained_on(record["persons"], skeleton))
    if len(rows) > max_persons:
        raise UserError(
            f"{records.describe(record)} has {len(rows)} labelled people, "
            f"data.max_persons is {max_persons}."
        )
    return rows


def labels(
    record: records.Record,
    rows: np.ndarray,
    matrix: np.ndarray,
    ignore: np.ndarray,
    max_persons: int,
    flip: Sequence[int] | None = None,
) -> Labels:
    """People of a record in input pixels, without the axis B.

    Args:
        record: with J joints.
        rows: [p] whom to take, in this order.
        matrix: [2, 3], source to input.
        ignore: [H / 4, W / 4] bool, where no loss may look.
        max_persons: P, at least p.
        flip: [J] order of the joints in a mirrored view.
    """
    persons = record["persons"]
    source = persons["joints"][rows].astype(np.float64)  # [p, J, 3]
    if flip is not None:
        source = source[:, list(flip)]
    seen = source[:, :, 2]
    joints = np.where(seen[..., None] > 0, warp.apply(matrix, source[..., :2]), 0.0)
    factor = warp.area_factor(matrix)
    box = persons["bbox"][rows].astype(np.float64)
    # A box without area would weigh infinitely much; 0 is left to padding.
    area = np.maximum(box[:, 2] * box[:, 3] * factor, 1.0)
    head = persons["head_size"][rows].astype(np.float64) * math.sqrt(factor)
    oks_area = persons["area"][rows].astype(np.float64) * factor
    return Labels(
        joints=_pad(joints, max_persons, np.float32),
        visibility=_pad(seen, max_persons, np.uint8),
        area=_pad(area, max_persons, np.float32),
        ignore=ignore,
        head_size=_pad(head, max_persons, np.float32),
        oks_area=_pad(oks_area, max_persons, np.float32),
    )


def ignore_map(
    record: records.Record, matrix: np.ndarray, canvas: tuple[int, int]
) -> np.ndarray:
    """Where no loss may look: [H / 4, W / 4] bool, padding included."""
    keep = records.kept_pixels(record)
    height, width = (side // STRIDE for side in canvas)
    return warp.warp_image(keep, matrix / STRIDE, height, width) / 255 <= 0.5


def _pad(rows: np.ndarray, length: int, dtype: type) -> np.ndarray:
    padded = np.zeros((length, *rows.shape[1:]), dtype)
    padded[: len(rows)] = rows
    return padded
