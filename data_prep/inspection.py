"""Finds out what the joints, boxes and marks of an undocumented annotation file are.

Each question is answered from the file's own people, or by its user; where the evidence
leaves a doubt, there is no answer.
"""

import collections
import pathlib
from typing import NamedTuple

import numpy as np

from data_prep import coco, fields
from occjax import skeletons
from occjax.data import convert
from occjax.errors import UserError
from occjax.skeletons import Skeleton
from occjax.types import OCCLUDED, UNLABELLED, VISIBLE

# The schemes that files of this kind were seen or reported to have. Fourteen joints are
# CrowdPose's or LSP's; a look at the poses tells which.
ORDERS: dict[str, Skeleton] = {
    skeleton.name: skeleton
    for skeleton in (
        *(skeletons.OCPOSE, skeletons.CROWDPOSE, skeletons.LSP),
        *(skeletons.MPII, skeletons.COCO),
    )
}

# On CrowdPose, MPII and COCO left and right bones differ by 12 to 15 % (median), and in
# 97 to 99 of 100 people ankles are below hips and shoulders above. Read in a wrong
# order, at least one of the three is beyond these limits. Most people face the camera,
# so their left is on its right: 72 to 79 of 100, if left and right are not mixed up.
_ASYMMETRY, _UPRIGHT, _FACING = 0.25, 0.8, 0.55
_LEFT_BONES = ((0, 2), (2, 4), (6, 8), (8, 10))  # of OCPose; right joints come next
_HIP_ANKLE, _SHOULDER_HIP = (6, 10), (0, 6)
_SURE, _UNSURE, _MAJORITY = 0.8, 0.5, 0.6
_ENOUGH = 10  # people, for any judgement


class Findings(NamedTuple):
    """What a file holds, and the evidence in words."""

    order: Skeleton
    boxes: str  # "xywh" or "xyxy"
    meaning: dict[float, int]  # mark of a joint to its visibility
    evidence: tuple[str, ...]


class _People(NamedTuple):
    """What can be read of the people of a file at all."""

    joints: np.ndarray  # [P, J, 3]
    boxes: np.ndarray  # [P, 4]
    sizes: np.ndarray  # [P, 2] width and height of their images


def inspect(
    path: pathlib.Path,
    content: dict,
    *,
    order: str | None = None,
    boxes: str | None = None,
    visible: int | None = None,
) -> Findings:
    """Answers what is not given.

    Args:
        path: of the file, for messages.
        content: "images", "annotations", and "categories" with joint names if any.
        order: key of ORDERS.
        boxes: "xywh" or "xyxy".
        visible: mark of visible joints, 1 or 2.

    Raises:
        UserError: the file leaves a doubt.
    """
    people = _people(path, content)
    chosen, why = _order(path, content, people.joints, order)
    form, how = _boxes(path, people, boxes)
    meaning, marks = _meaning(path, people.joints, chosen, visible)
    number = f"{len(people.joints)} people with joints"
    return Findings(chosen, form, meaning, (number, why, how, marks))


def _people(path: pathlib.Path, content: dict) -> _People:
    """Joints, boxes and image sizes of the people of the commonest number of joints."""
    sizes = {
        entry["id"]: (entry.get("width"), entry.get("height"))
        for entry in content["images"]
        if isinstance(entry, dict) and isinstance(entry.get("id"), int)
    }
    rows = collections.defaultdict(list)
    for annotation in content["annotations"]:
        flat = coco.joints_of(annotation)
        image_id = annotation.get("image_id") if flat else None
        size = sizes.get(image_id) if isinstance(image_id, int) else None
        if not any(flat) or len(flat) % 3 or size is None:
            continue
        box = annotation.get("bbox")
        numbers = [*flat, *(box if fields.is_box(box) else [0] * 4), *size]
        if all(map(fields.is_number, numbers)):
            rows[len(flat) // 3].append(numbers)
    count = max(rows, key=lambda joints: len(rows[joints]), default=0)
    table = np.array(rows[count], float).reshape(len(rows[count]), 3 * count + 6)
    total = sum(map(len, rows.values()))
    if len(table) < max(_ENOUGH, _SURE * total):
        raise UserError(
            f"{path}: {len(table)} of {total} people have the commonest number of "
            f"joints, {count}; that is too few to tell what the file holds."
        )
    joints = table[:, : 3 * count].reshape(len(table), count, 3)
    return _People(joints, table[:, -6:-2], table[:, -2:])


def _order(
    path: pathlib.Path, content: dict, joints: np.ndarray, given: str | None
) -> tuple[Skeleton, str]:
    """The scheme of the joints: as given, as named, or the only plausible one."""
    count = joints.shape[1]
    fitting = [one for one in ORDERS.values() if one.num_joints == count]
    if given:
        fitting = [one for one in fitting if one.name == given]
        if not fitting:
            raise UserError(
                f"{path} has {count} joints a person, --order {given} has "
                f"{ORDERS[given].num_joints}."
            )
        return fitting[0], f"{count} joints, taken as {given} as --order says"
    names = _named(content)
    if names:
        fitting = [one for one in fitting if one.joints == names]
    looks = {one.name: plausibility(joints, one) for one in fitting}
    plausible = [one for one in fitting if looks[one.name].holds]
    if len(plausible) != 1:
        seen = "; ".join(f"as {name} {look}" for name, look in looks.items())
        seen = seen or f"no known scheme ({', '.join(names or ORDERS)})"
        raise UserError(
            f"{path}: {count} joints a person of uncertain order: {seen}; look at some "
            "of its images and give --order."
        )
    source = "by the names in the file" if names else "by their number"
    name = plausible[0].name
    return plausible[0], f"{count} joints, {name} {source}: {looks[name]}"


def _named(content: dict) -> tuple[str, ...]:
    """Joint names of the file's category, if it has any."""
    categories = content.get("categories")
    for category in categories if isinstance(categories, list) else []:
        names = category.get("keypoints") if isinstance(category, dict) else None
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(name.strip().lower().replace(" ", "_") for name in names)
    return ()


class Plausibility(NamedTuple):
    """How much poses look like those of people; NaN where nobody tells."""

    asymmetry: float  # median |log| of the length of a left bone to the right one
    ankles: float  # share of ankles below their hip
    shoulders: float  # share of shoulders above their hip
    facing: float  # share of people whose left shoulder is right of the other one

    @property
    def holds(self) -> bool:
        """Whether all four are as in the known datasets."""
        upright = min(self.ankles, self.shoulders) >= _UPRIGHT
        return self.asymmetry <= _ASYMMETRY and upright and self.facing >= _FACING

    def __str__(self) -> str:
        return (
            f"left and right bones differ by {self.asymmetry:.0%}, ankles below hips "
            f"{self.ankles:.0%}, shoulders above hips {self.shoulders:.0%}, facing us "
            f"{self.facing:.0%}"
        )


def plausibility(joints: np.ndarray, order: Skeleton) -> Plausibility:
    """Looks at joints [P, J, 3] as if they were in an order; (0, 0) is no place."""
    limbs = convert.reorder(joints, order.joints, skeletons.OCPOSE.joints)
    at = limbs[..., :2]
    placed = np.any(at != 0, axis=-1)

    def chosen(*which: int) -> np.ndarray:
        """Places [K, n, 2] of people who have all these joints."""
        return at[placed[:, which].all(axis=1)][:, which]

    ratios = []
    for upper, lower in _LEFT_BONES:
        ends = chosen(upper, lower, upper + 1, lower + 1).reshape(-1, 2, 2, 2)
        lengths = np.maximum(np.linalg.norm(np.diff(ends, axis=2)[:, :, 0], axis=-1), 1)
        ratios.append(np.abs(np.diff(np.log(lengths), axis=1)[:, 0]))
    ratios = np.concatenate(ratios)
    downwards = {
        (upper, lower): np.concatenate(
            [np.diff(chosen(upper + side, lower + side)[..., 1]) > 0 for side in (0, 1)]
        )
        for upper, lower in (_HIP_ANKLE, _SHOULDER_HIP)
    }
    facing = np.diff(chosen(1, 0)[..., 0]) > 0
    return Plausibility(
        asymmetry=float(np.median(ratios)) if len(ratios) else np.nan,
        ankles=_share(downwards[_HIP_ANKLE]),
        shoulders=_share(downwards[_SHOULDER_HIP]),
        facing=_share(facing),
    )


def _share(answers: np.ndarray) -> float:
    """Share of what is true; NaN of nothing."""
    return float(np.mean(answers)) if len(answers) else np.nan


def _boxes(path: pathlib.Path, people: _People, given: str | None) -> tuple[str, str]:
    """Whether boxes have a size or a second corner: as given, or as fits people."""
    if given:
        return given, f"boxes taken as {given} as --boxes says"
    first, second = people.boxes[:, :2], people.boxes[:, 2:]
    shares = {
        "xywh": _share(_fits(people, first, first + second)),
        "xyxy": _share(_fits(people, first, second)),
    }
    best, other = sorted(shares, key=lambda form: -shares[form])
    said = " and ".join(f"{shares[form]:.0%} as {form}" for form in (best, other))
    said = f"of the boxes, {said} lie in their image around their joints"
    if shares[best] < _SURE or shares[other] > _UNSURE:
        raise UserError(f"{path}: {said}, which decides nothing; give --boxes.")
    return best, f"boxes are {best}: {said}"


def _fits(people: _People, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whether boxes [P] lie in their image and hold most joints, with some slack."""
    slack = 2 + 0.05 * (high - low)
    inside = np.all((low >= -2) & (high <= people.sizes + 2) & (high > low), axis=1)
    at = people.joints[..., :2]
    placed = np.any(at != 0, axis=-1)
    held = (at >= (low - slack)[:, None]) & (at <= (high + slack)[:, None])
    held = np.sum(held.all(axis=-1) & placed, axis=1)
    return inside & (held >= 0.8 * placed.sum(axis=1))


def _meaning(
    path: pathlib.Path, joints: np.ndarray, order: Skeleton, visible: int | None
) -> tuple[dict[float, int], str]:
    """What marks mean: as given, or as most shoulders are, which are mostly visible."""
    placed = np.any(joints[..., :2] != 0, axis=-1)
    marks = joints[..., 2][placed]
    if not set(marks.tolist()) <= {0, 1, 2}:
        odd = sorted(set(marks.tolist()) - {0, 1, 2})
        raise UserError(f"{path} marks joints with {odd[:3]}, expected 0, 1, 2.")
    # Without a 2, a joint of mark 0 that has a place is a hidden one.
    pair = (1, 2) if 2 in marks else (0, 1)
    at = [order.joints.index(f"{side}_shoulder") for side in ("left", "right")]
    shoulders = joints[:, at, 2][placed[:, at]]
    counts = {mark: int(np.sum(shoulders == mark)) for mark in pair}
    said = ", ".join(f"{count} shoulders of mark {m}" for m, count in counts.items())
    if visible is None:
        likely = max(counts, key=lambda mark: counts[mark])
        many = counts[likely] >= _MAJORITY * max(sum(counts.values()), 1)
        if not many or likely == 0 or min(counts.values()) == 0:
            raise UserError(
                f"{path}: {said}; that does not tell which mark is visible; give "
                "--visible."
            )
        visible = likely
    meaning = {0: UNLABELLED, 1: OCCLUDED, 2: OCCLUDED}
    if pair == (0, 1) and visible == 1 and counts[0]:
        meaning = {0: OCCLUDED}
    return {**meaning, visible: VISIBLE}, f"mark {visible} is visible: {said}"
