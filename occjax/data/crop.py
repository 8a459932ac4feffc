"""Person crops: windows of one size around boxes, as top-down methods see people.

The maps are those of HRNet and SimpleBaseline: the box, padded, in the least window of
the input's aspect ratio, its centre on the input's. A mirrored window keeps its centre
there too, so x -> W - x.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from occjax.data import augment, records, warp
from occjax.errors import UserError
from occjax.skeletons import Skeleton
from occjax.types import Batch, Labels

_UPPER = 0.69  # share of upper halves: HRNet asks whether a normal draw is below 0.5
_LEGS = ("hip", "knee", "ankle", "pelvis")  # of the lower half
_HALF_PADDING = 1.5
_SPREADS = ("normal", "uniform")


class Turn(NamedTuple):
    """How a window is looked at."""

    factor: float  # of its width
    rotation: float  # degrees
    mirrored: bool


@dataclasses.dataclass(frozen=True)
class TrainCrop:
    """Random crop of one person: scale, rotation, mirroring, half of the body.

    Records are those of `people.Annotated`. The defaults are HRNet's for COCO.

    Attributes:
        size: height and width of the input, pixels.
        max_persons: P. Labels have the person first, then those others who have most
            labelled joints in the crop.
        skeleton: J joints and their order after mirroring.
        padding: of the box's width and height, before the window is fitted.
        scale: least and greatest factor of the window.
        rotate: greatest rotation, degrees.
        rotate_share: probability of rotating at all.
        spread: "uniform" within the limits; or "normal" about their middle, cut off
            there: one standard deviation away for the scale, two for the rotation.
        flip: probability of mirroring.
        half_body: probability of a window around the upper or lower half alone, for
            people with more than `half_body_joints` labelled joints.
        half_body_joints: see `half_body`.
    """

    size: tuple[int, int]
    max_persons: int
    skeleton: Skeleton
    padding: tuple[float, float] = (1.25, 1.25)
    scale: tuple[float, float] = (0.65, 1.35)
    rotate: float = 90.0
    rotate_share: float = 0.6
    spread: str = "normal"
    flip: float = 0.5
    half_body: float = 0.3
    half_body_joints: int = 8

    def __post_init__(self) -> None:
        """Checks what is no number.

        Raises:
            UserError: there is no such spread.
        """
        if self.spread not in _SPREADS:
            raise UserError(
                f"data.augment.spread: expected one of {', '.join(_SPREADS)}; "
                f"got {self.spread!r}."
            )

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.size

    def random_map(
        self, record: records.Record, rng: np.random.Generator
    ) -> augment.Placed:
        """Draws where to look in a record."""
        window = self.window(record, rng)
        return self.place(record, window, self.turn(rng), augment.draw_seed(rng))

    def turn(self, rng: np.random.Generator) -> Turn:
        """Draws how to look at a window."""
        low, high = self.scale
        factor = self._draw(rng, (low + high) / 2, (high - low) / 2, 1)
        turned = rng.random() < self.rotate_share
        rotation = self._draw(rng, 0.0, self.rotate / 2, 2) if turned else 0.0
        return Turn(factor, rotation, bool(rng.random() < self.flip))

    def place(
        self,
        record: records.Record,
        window: tuple[np.ndarray, float],
        turn: Turn,
        seed: int = 0,
    ) -> augment.Placed:
        """Where a turned window, centre and width from `window`, lies in a record."""
        center, side = window
        height, width = self.size
        side *= turn.factor
        matrix = warp.crop_matrix(center, side, turn.rotation, width, height)
        return augment.Placed(record, matrix, turn.mirrored, seed)

    def view(self, placed: augment.Placed, out: np.ndarray | None = None) -> Batch:
        """The example at a given place: a Batch without the axis B.

        Args:
            placed: from `random_map`.
            out: [H, W, 3] uint8 to put the image into.

        Raises:
            UserError: the image cannot be read.
        """
        record, matrix, mirrored, _ = placed
        if mirrored:
            matrix = warp.mirror(matrix, self.size[1], shift=-1)
        flip = self.skeleton.flip if mirrored else None
        truth = labels(record, matrix, self.size, self.max_persons, self.skeleton, flip)
        return crop(record, matrix, self.size, truth, out, flip)

    def window(
        self, record: records.Record, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """Centre and width of the window to scale: the box's, or half a body's.

        Half bodies are drawn.
        """
        joints = np.asarray(record["persons"]["joints"], np.float64)[record["row"]]
        seen = joints[:, 2] > 0
        if seen.sum() > self.half_body_joints and rng.random() < self.half_body:
            upper = bool(rng.random() < _UPPER)
            half = half_body(joints, self.skeleton, upper, self.size)
            if half is not None:
                return half
        return box_window(record["box"], self.size, self.padding)

    def _draw(
        self, rng: np.random.Generator, middle: float, deviation: float, reach: float
    ) -> float:
        """A draw within `reach` deviations of the middle."""
        if self.spread == "uniform":
            return middle + reach * deviation * rng.uniform(-1.0, 1.0)
        return middle + deviation * float(np.clip(rng.standard_normal(), -reach, reach))


@dataclasses.dataclass(frozen=True)
class TestCrop:
    """The crop of a box as it is, for testing.

    Attributes:
        size: height and width of the input, pixels.
        skeleton: J joints.
        padding: of the box's width and height, before the window is fitted.
        max_persons: P that labels are padded to; 0 leaves labels out.
        scales: of a multi-scale test besides scale 1, factors of the window; each crop
            is in `Inputs.scaled`, as large as the first.
    """

    __test__ = False  # not a test of pytest

    size: tuple[int, int]
    skeleton: Skeleton
    padding: tuple[float, float] = (1.25, 1.25)
    max_persons: int = 0
    scales: tuple[float, ...] = ()

    def map(self, record: records.Record) -> Batch:
        """One test example: a Batch without the axis B.

        Raises:
            UserError: the image cannot be read, or labels of a detector's box are
                asked for.
        """
        center, side = box_window(record["box"], self.size, self.padding)
        matrix, *others = (
            warp.crop_matrix(center, side * scale, 0.0, self.size[1], self.size[0])
            for scale in (1.0, *self.scales)
        )
        truth = None
        if self.max_persons:
            if record["row"] < 0:
                raise UserError(
                    "a detector's boxes have no labels; take annotated ones."
                )
            truth = labels(record, matrix, self.size, self.max_persons, self.skeleton)
        if not others:
            return crop(record, matrix, self.size, truth)
        image = records.pixels(record)  # decoded once for all scales
        view = crop({**record, "image": image}, matrix, self.size, truth)
        inputs = view.inputs._replace(
            scaled=tuple(warp.warp_image(image, m, *self.size) for m in others),
            scaled_to_source=tuple(warp.invert(m).astype(np.float32) for m in others),
        )
        return view._replace(inputs=inputs)


def box_window(
    box: np.ndarray, size: tuple[int, int], padding: tuple[float, float]
) -> tuple[np.ndarray, float]:
    """Centre [2] and width of the window around a box (x, y, width, height)."""
    side = warp.window_width(box[2:], padding, size[1] / size[0])
    return box[:2] + box[2:] / 2, side


def half_body(
    joints: np.ndarray, skeleton: Skeleton, upper: bool, size: tuple[int, int]
) -> tuple[np.ndarray, float] | None:
    """Centre [2] and width of HRNet's window around one half of a person.

    Args:
        joints: [J, 3] of the person.
        skeleton: J joints.
        upper: which half is wanted; the other one is taken where this one has fewer
            than three joints.
        size: height and width of the input.

    Returns:
        None where the half has fewer than two joints, or all at one place.
    """
    legs = np.array([name.endswith(_LEGS) for name in skeleton.joints])
    above, below = (joints[(joints[:, 2] > 0) & half, :2] for half in (~legs, legs))
    if upper:
        chosen = above if len(above) > 2 else below
    else:
        chosen = below if len(below) > 2 else above
    if len(chosen) < 2:
        return None
    extent = np.ptp(chosen, axis=0)
    side = warp.window_width(extent, (_HALF_PADDING,) * 2, size[1] / size[0])
    return (chosen.mean(axis=0), side) if side > 0 else None


def labels(
    record: records.Record,
    matrix: np.ndarray,
    size: tuple[int, int],
    max_persons: int,
    skeleton: Skeleton,
    flip: tuple[int, ...] | None = None,
) -> Labels:
    """The person of a crop and, in further rows, others with joints in it.

    Nothing is ignored: top-down losses look at the whole crop.

    Args:
        record: of `people.Annotated`.
        matrix: [2, 3], source to input.
        size: height and width of the input.
        max_persons: P.
        skeleton: J joints.
        flip: [J] order of the joints in a mirrored view.
    """
    rows = np.array([record["row"]])
    if max_persons > 1:
        others = _others(record, matrix, size, skeleton)
        rows = np.concatenate([rows, others[: max_persons - 1]])
    ignore = np.zeros([side // augment.STRIDE for side in size], bool)
    return augment.labels(record, rows, matrix, ignore, max_persons, flip)


def crop(
    record: records.Record,
    matrix: np.ndarray,
    size: tuple[int, int],
    truth: Labels | None,
    out: np.ndarray | None = None,
    flip: tuple[int, ...] | None = None,
) -> Batch:
    """`augment.example` with the box that the crop is of, and the pose if there is one.

    Args:
        record: of a source of people.
        matrix: [2, 3], source to input.
        size: height and width of the input.
        truth: labels of the crop.
        out: [H, W, 3] uint8 to put the image into.
        flip: [J] order of the joints in a mirrored view.

    Raises:
        UserError: the image cannot be read.
    """
    batch = augment.example(record, matrix, size, truth, out)
    inputs = batch.inputs._replace(
        box=np.asarray(record["box"], np.float32),
        box_score=np.float32(record["box_score"]),
        start_pose=_start_pose(record, matrix, flip) if "pose" in record else None,
    )
    return batch._replace(inputs=inputs)


def _start_pose(
    record: records.Record, matrix: np.ndarray, flip: tuple[int, ...] | None
) -> np.ndarray:
    """The pose of a record in input pixels: [1, J, 3] x, y, confidence."""
    pose = record["pose"][list(flip) if flip else slice(None)]
    joints = warp.apply(matrix, pose[:, :2])
    return np.column_stack([joints, pose[:, 2]])[None].astype(np.float32)


def _others(
    record: records.Record,
    matrix: np.ndarray,
    size: tuple[int, int],
    skeleton: Skeleton,
) -> np.ndarray:
    """Rows of the other people with a joint in the crop, most joints first."""
    persons = record["persons"]
    joints = np.asarray(persons["joints"], np.float64)
    at = warp.apply(matrix, joints[..., :2])
    inside = np.all((at >= 0) & (at <= (size[1] - 1, size[0] - 1)), axis=-1)
    counts = np.sum(inside & (joints[..., 2] > 0), axis=1)
    counts[~records.trained_on(persons, skeleton)] = 0
    counts[record["row"]] = 0
    order = np.argsort(-counts, kind="stable")
    return order[counts[order] > 0]
