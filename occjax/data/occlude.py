"""Occluders that are put into training views, with labels of what they really hide.

Each is a transform of a finished view (a Batch without the axis B, image and labels in
input pixels): `random_map(view, rng)`. A joint that an occluder covers becomes occluded
if it was visible; its place stays what it was. In a person crop the person of the box
is hidden; in a whole image somebody chosen at random, as if cropped.

    mask_joints     black rectangles on joints           (spec of DAG, section 2.1)
    paste_instance  a person from a pool                 (spec of DAG, section 2.2)
    paste_patches   patches of the same image, and the
                    clean twin for OASNet                (spec of OASNet, section 5)
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from occjax.data import warp
from occjax.data.pool import Instance, Pool
from occjax.data.settings import construct
from occjax.errors import UserError
from occjax.skeletons import Skeleton
from occjax.types import OCCLUDED, UNLABELLED, VISIBLE, Batch

_HIDES = 128  # alpha from which on a pixel shows the occluder rather
_MASK_HEIGHT = 256  # of the crop that sizes of `MaskJoints` are meant for
_WHOLE, _UPPER = 0.9, 0.5  # diagonal of a pasted person, relative to the target's
_TRIES = 20  # places that are looked at for a patch
_EDGE = 128  # alpha of a patch's outermost pixels


class Occlusion(Protocol):
    """Puts occluders into a view."""

    def random_map(self, view: Batch, rng: np.random.Generator) -> Batch:
        """The view with occluders; its image is changed in place."""
        ...


class Target(NamedTuple):
    """Whom to hide, in input pixels."""

    row: int  # in the labels
    joints: np.ndarray  # [K, 2] the labelled ones within the view, K at least 1
    low: np.ndarray  # [2] corners of the crop around the person
    high: np.ndarray  # [2]
    height: float  # of that crop
    diagonal: float  # of the person's box


@dataclasses.dataclass(frozen=True)
class MaskJoints:
    """Covers some joints with black rectangles.

    Attributes:
        probability: of doing it at all.
        joints: how many joints of a person, all different.
        half: least and greatest half side, pixels in a crop 256 high.
    """

    probability: float = 0.5
    joints: int = 2
    half: tuple[int, int] = (10, 19)

    def random_map(self, view: Batch, rng: np.random.Generator) -> Batch:
        """See `Occlusion`."""
        target = find_target(view, rng) if rng.random() < self.probability else None
        if target is None:
            return view
        chosen = rng.permutation(target.joints)[: self.joints]
        for joint in np.rint(chosen).astype(int):
            draw = rng.integers(*self.half, size=2, endpoint=True)
            half = np.rint(draw * target.height / _MASK_HEIGHT).astype(int)
            width, height = 2 * np.maximum(half, 1)
            alpha = np.full((height, width), 255, np.uint8)
            black = np.zeros((height, width, 3), np.uint8)
            view = cover(view, black, alpha, joint - half)
        return view


@dataclasses.dataclass(frozen=True)
class PasteInstance:
    """Pastes a person from a pool, turned and scaled.

    The person becomes a further one in the labels where these hold several. Without a
    free row nobody is pasted: a method that finds everybody must not be told that a
    clearly visible person is none.

    Attributes:
        pool: of people.
        probability: of doing it at all.
        rotate: greatest rotation, degrees.
        scale: least and greatest factor on the person's usual size.
        covered: greatest share of the target's joints that may be covered.
        tries: places before giving up.
    """

    pool: Pool
    probability: float = 0.4
    rotate: float = 30.0
    scale: tuple[float, float] = (0.7, 1.3)
    covered: float = 0.7
    tries: int = 10

    def random_map(self, view: Batch, rng: np.random.Generator) -> Batch:
        """See `Occlusion`."""
        target = find_target(view, rng) if rng.random() < self.probability else None
        if target is None or view.labels is None:
            return view
        free = np.flatnonzero(view.labels.area == 0)
        alone = len(view.labels.area) == 1  # a crop whose labels leave others out
        if not alone and not len(free):
            return view
        one = self.pool[int(rng.integers(len(self.pool)))]
        size = np.array(one.mask.shape[::-1])
        usual = (_WHOLE if one.whole else _UPPER) * target.diagonal
        factor = usual * rng.uniform(*self.scale) / float(np.hypot(*size))
        rotation = float(rng.uniform(-self.rotate, self.rotate))
        for _ in range(self.tries):
            matrix = warp.crop_matrix((size - 1) / 2, 1 / factor, rotation, 1, 1)
            matrix[:, 2] += rng.uniform(target.low, target.high) - 0.5
            if _share_covered(one.mask, matrix, target.joints) <= self.covered:
                break
        else:
            return view
        view = _paste(view, one, matrix)
        return view if alone else _add_person(view, int(free[0]), one, matrix)


@dataclasses.dataclass(frozen=True)
class PastePatches:
    """Pastes patches of the view itself, and keeps its clean twin.

    A patch hides a joint behind background, hides it behind another joint of the same
    person, or confuses by a second copy of a joint close by. `Inputs.clean` is the
    view before, `Labels.clean_visibility` says what was visible there.

    Attributes:
        patches: fewest and most.
        size: least and greatest side, relative to the height of the person's crop.
        aspect: greatest logarithm of a patch's height / width.
        moves: odds of hiding, hiding behind a joint, confusing.
    """

    patches: tuple[int, int] = (1, 4)
    size: tuple[float, float] = (0.06, 0.25)
    aspect: float = 0.4
    moves: tuple[float, float, float] = (0.5, 0.3, 0.2)

    def random_map(self, view: Batch, rng: np.random.Generator) -> Batch:
        """See `Occlusion`."""
        if view.labels is None:
            return view
        clean, labels = view.inputs.image.copy(), view.labels
        before = labels.visibility
        view = view._replace(
            inputs=view.inputs._replace(clean=clean),
            labels=labels._replace(clean_visibility=before),
        )
        target = find_target(view, rng)
        if target is None:
            return view
        everybody = labels.joints[before != UNLABELLED]
        for _ in range(int(rng.integers(*self.patches, endpoint=True))):
            side = rng.uniform(*self.size) * target.height
            stretch = np.exp(rng.uniform(-self.aspect, self.aspect) / 2)
            size = np.rint([side / stretch, side * stretch]).astype(int)
            size = np.clip(size, 3, (clean.shape[1], clean.shape[0]))
            source, goal = self._places(rng, target, everybody, clean, side, size)
            if source is not None:
                patch = clean[source[1] :, source[0] :][: size[1], : size[0]]
                view = cover(view, patch, _feathered(size), goal)
        return view

    def _places(
        self,
        rng: np.random.Generator,
        target: Target,
        everybody: np.ndarray,
        clean: np.ndarray,
        side: float,
        size: np.ndarray,
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """Top left corners [2] of a patch's source, None if there is none, and goal."""
        most = np.array(clean.shape[1::-1]) - size
        joints = rng.permutation(target.joints)
        move = rng.choice(3, p=np.array(self.moves) / sum(self.moves))
        if move == 2:
            angle = rng.uniform(0, 2 * np.pi)
            away = rng.uniform(1.5, 3) * side * np.array([np.cos(angle), np.sin(angle)])
            source = np.clip(_corner(joints[0], size), 0, most)
            return source, _corner(joints[0] + away, size)
        goal = _corner(joints[0] + rng.normal(0, 0.25 * side, 2), size)
        if move == 1 and len(joints) > 1:
            return np.clip(_corner(joints[1], size), 0, most), goal
        corners = rng.integers(most, size=(_TRIES, 2), endpoint=True)
        middles = corners + (size - 1) / 2
        distance = np.hypot(*np.moveaxis(middles[:, None] - everybody, -1, 0))
        apart = np.any(np.abs(corners - goal) >= size, axis=1)
        for fit in (apart & (distance.min(axis=1) >= side), apart):
            if fit.any():
                return corners[np.argmax(fit)], goal
        return None, goal


_KINDS = {
    "mask_joints": MaskJoints,
    "paste_instance": PasteInstance,
    "paste_patches": PastePatches,
}


def build(
    settings: Iterable[Mapping[str, Any]], skeleton: Skeleton
) -> tuple[Occlusion, ...]:
    """The occlusions of a config, in their order.

    Args:
        settings: each with `name`, and any attributes of what it names; `pool` is the
            path of a pool's file or "crowd", see `Pool.load`.
        skeleton: J joints of the labels.

    Raises:
        UserError: there is no such occlusion, attribute or pool.
    """
    return tuple(_build(dict(setting), skeleton) for setting in settings)


def _build(options: dict[str, Any], skeleton: Skeleton) -> Occlusion:
    name = options.pop("name", None)
    if name not in _KINDS:
        raise UserError(
            f"occlusion: expected a name of {', '.join(_KINDS)}; got {name!r}."
        )
    if name == "paste_instance":
        options["pool"] = Pool.load(options.get("pool", "crowd"), skeleton)
    return construct(_KINDS[name], f"occlusion {name}", options)


def find_target(view: Batch, rng: np.random.Generator) -> Target | None:
    """Whom to hide: the person of a crop, else anybody with joints within the view.

    The crop of somebody in a whole image is the one that an upright box of 3:4 with
    the person's area would have: as high as that box's diagonal.
    """
    inputs, labels = view.inputs, view.labels
    if labels is None:
        return None
    size = np.array(inputs.image.shape[1::-1])
    seen = labels.visibility != UNLABELLED
    seen = seen & np.all((labels.joints >= 0) & (labels.joints <= size - 1), axis=-1)
    if inputs.box is not None:
        joints = labels.joints[0, seen[0]]
        factor = 1 / np.sqrt(warp.area_factor(inputs.to_source))
        diagonal = factor * float(np.hypot(*inputs.box[2:]))
        if not len(joints):
            return None
        return Target(0, joints, np.zeros(2), size - 1, float(size[1]), diagonal)
    people = np.flatnonzero(seen.any(axis=1))
    if not len(people):
        return None
    row = int(rng.choice(people))
    joints = labels.joints[row, seen[row]]
    height = float(np.sqrt(25 / 12 * labels.area[row]))
    middle, reach = joints.mean(axis=0), height / 2 * np.array([0.75, 1])
    low, high = (np.clip(middle + d * reach, 0, size - 1) for d in (-1, 1))
    return Target(row, joints, low, high, min(height, float(size[1])), height)


def cover(view: Batch, patch: np.ndarray, alpha: np.ndarray, corner: Any) -> Batch:
    """Blends a patch over the image and marks the joints behind it as occluded.

    Args:
        view: whose image is changed in place.
        patch: [h, w, 3] uint8.
        alpha: [h, w] uint8, 255 where only the patch is seen.
        corner: x, y of its first pixel in the image; may lie outside.
    """
    image, labels = view.inputs.image, view.labels
    low = np.maximum(corner, 0)
    high = np.minimum(np.add(corner, alpha.shape[::-1]), image.shape[1::-1])
    if np.any(high <= low) or labels is None:
        return view
    (x, y), (left, top), (right, bottom) = low - corner, low, high
    height, width = bottom - top, right - left
    weight = alpha[y : y + height, x : x + width]
    part = patch[y : y + height, x : x + width]
    under = image[top:bottom, left:right]
    wide = weight[..., None].astype(np.uint16)
    under[...] = (wide * part + (255 - wide) * under + 127) // 255
    hidden = _at(weight, labels.joints - low) >= _HIDES
    seen = labels.visibility
    seen = np.where(hidden & (seen == VISIBLE), np.uint8(OCCLUDED), seen)
    return view._replace(labels=labels._replace(visibility=seen))


def _at(values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values [h, w] at the pixels nearest to points [..., 2], 0 outside."""
    x, y = np.moveaxis(np.rint(points).astype(int), -1, 0)
    height, width = values.shape
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return np.where(inside, values[np.where(inside, y, 0), np.where(inside, x, 0)], 0)


def _share_covered(mask: np.ndarray, matrix: np.ndarray, joints: np.ndarray) -> float:
    """Share of the joints [K, 2] that a mask covers, placed by a matrix."""
    back = warp.apply(warp.invert(matrix), joints)
    return float(np.mean(_at(mask, back) >= _HIDES))


def _paste(view: Batch, one: Instance, matrix: np.ndarray) -> Batch:
    """Draws a person, placed by a matrix, with a soft edge."""
    height, width = one.mask.shape
    ends = np.array([[0, 0], [width, 0], [0, height], [width, height]]) - 0.5
    reach = warp.apply(matrix, ends)
    canvas = np.array(view.inputs.image.shape[1::-1])
    low = np.clip(np.floor(reach.min(axis=0)).astype(int), 0, canvas)
    size = np.clip(np.ceil(reach.max(axis=0)).astype(int) + 1, 0, canvas) - low
    if np.any(size <= 0):
        return view
    moved = matrix - np.column_stack([np.zeros((2, 2)), low])
    patch = warp.warp_image(one.image, moved, size[1], size[0])
    mask = warp.warp_image(one.mask, moved, size[1], size[0])
    _, mask = cv2.threshold(mask, _HIDES - 1, 255, cv2.THRESH_BINARY)
    mask = cv2.erode(mask, np.ones((3, 3), np.uint8))
    return cover(view, patch, cv2.GaussianBlur(mask, (3, 3), 0), low)


def _add_person(view: Batch, row: int, one: Instance, matrix: np.ndarray) -> Batch:
    """The pasted person as a further one in the labels."""
    labels: Any = view.labels
    seen = one.joints[:, 2]
    at = np.where(seen[:, None] > 0, warp.apply(matrix, one.joints[:, :2]), 0)
    names = ("joints", "visibility", "area", "oks_area")
    joints, visibility, area, oks_area = (getattr(labels, n).copy() for n in names)
    joints[row], visibility[row] = at, seen
    factor = warp.area_factor(matrix)
    area[row] = max(one.mask.size * factor, 1.0)
    oks_area[row] = np.count_nonzero(one.mask) * factor
    columns = (joints, visibility, area, oks_area)
    return view._replace(
        labels=labels._replace(**dict(zip(names, columns, strict=True)))
    )


def _corner(middle: np.ndarray, size: np.ndarray) -> np.ndarray:
    """First pixel of a patch about a point."""
    return np.rint(middle - (size - 1) / 2).astype(int)


def _feathered(size: np.ndarray) -> np.ndarray:
    """Alpha [h, w] of a patch whose seam no network shall key on."""
    alpha = np.full(size[::-1], _EDGE, np.uint8)
    alpha[1:-1, 1:-1] = 255
    return alpha
