"""Who stands where: people with a requested overlap of their boxes."""

from typing import NamedTuple

import numpy as np

from occjax.data import figure, flesh
from occjax.data.figure import Figures

_PAIRS = 14  # candidates for the two people that overlap most
_SOLOS = 3  # candidates for each of the others,
_SPOTS = 24  # and places that each of these tries
_FAR_HIGHER = 0.16  # how much higher in the image stands what is farther, per depth

# How two people belong together: nothing, arms around each other, dancing hand in
# hand, side by side with an arm around the shoulders, facing each other.
_ALONE, _EMBRACE, _DANCE, _BESIDE, _FACING = range(5)
_ODDS = np.cumsum((0.5, 0.14, 0.14, 0.12, 0.1))
_DISTANCE = np.array([(0.0, 0.0), (0.13, 0.19), (0.24, 0.36), (0.19, 0.26), (0.3, 0.6)])
_Rng = np.random.Generator


class Request(NamedTuple):
    """What a scene shall be like. Sizes in pixels."""

    size: tuple[int, int]  # height, width
    people: int
    overlap: float  # largest box IoU of any two people
    height: tuple[float, float]  # of a grown-up person


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of corner boxes [..., 4], broadcast; 0 if both empty."""
    inner = _area(
        np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    )
    union = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - inner
    return inner / np.maximum(union, 1e-9)


def _area(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    side = np.maximum(high - low, 0.0)
    return side[..., 0] * side[..., 1]


def clip_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Corner boxes [..., 4] within the image (pixel edges lie at -0.5)."""
    edge = np.array([size[1], size[0], size[1], size[0]]) - 0.5
    return np.clip(boxes, -0.5, edge)


class _Pairs(NamedTuple):
    """How the candidate pairs stand to each other."""

    kind: np.ndarray  # [K]
    apart: np.ndarray  # [K, 3] from the first's feet to the second's, in statures
    yaw: np.ndarray  # [K, 2] radians


def _sample_pairs(rng: _Rng, overlap: float) -> _Pairs:
    kind = np.searchsorted(_ODDS, rng.uniform(size=_PAIRS) * _ODDS[-1])
    draw, signed = rng.uniform(size=(4, _PAIRS)), rng.uniform(-1.0, 1.0, (6, _PAIRS))
    low, high = _DISTANCE[kind].T
    distance, turn = low + (high - low) * draw[0], np.pi * signed[0]
    x, z = distance * np.cos(turn), distance * np.sin(turn)
    alone = kind == _ALONE
    # Strangers: the more overlap is wanted, the smaller the offset in the image.
    x = np.where(alone, 0.62 * (1.12 - overlap) * signed[1], x)
    z = np.where(alone, np.where(draw[1] < 0.5, 0.3, -0.3), z)
    y = np.where(alone, 0.08 * (1.05 - overlap) * signed[2], -_FAR_HIGHER * z)
    free, loose = np.pi * signed[2:4].T, 0.22 * signed[4:6].T
    toward = np.arctan2(x, -z)[:, None]
    facing = toward + (0.0, np.pi) + loose
    beside = toward - 0.5 * np.pi + loose
    beside += np.where(draw[2] < 0.5, np.pi, 0.0)[:, None]
    yaw = np.where((kind == _BESIDE)[:, None], beside, facing)
    yaw = np.where(alone[:, None], free, yaw)
    return _Pairs(kind, np.stack([x, y, z], axis=1), yaw)


def _hold(figures: Figures, kind: np.ndarray, offset: np.ndarray, ratio) -> Figures:
    """Lets arms reach for the partner; figures 2 k and 2 k + 1 are pair k.

    Args:
        figures: N people.
        kind: [N] how each belongs to the partner.
        offset: [N, 3] from each pelvis to the partner's, in own statures.
        ratio: [N, 1] scale of the partner relative to the own.
    """
    partner = np.arange(len(kind)) ^ 1
    neck = ratio * figures.joints[partner, figure.NECK] + offset
    left, up, front = np.moveaxis(figures.frames[partner, figure.CHEST], 1, 0) * ratio
    own_left = figures.frames[:, figure.CHEST, 0]
    first = np.arange(len(kind))[:, None] % 2 == 0
    kind = kind[:, None]
    # Embrace: both hands on the partner's back.
    back = neck - 0.075 * front - 0.09 * up
    around = np.stack([back - 0.03 * left, back + 0.03 * left], axis=1)
    # Dance: the first one's left hand and the second one's right hand meet aside,
    # the others lie on waist and shoulder.
    middle = 0.5 * (figures.joints[:, figure.NECK] + neck)
    held = middle + np.where(first, 0.21, -0.21) * own_left - 0.02 * up
    waist = neck - 0.06 * front - 0.2 * up + 0.05 * left
    shoulder = neck + 0.03 * up + 0.1 * left
    dance = np.where(
        first[..., None],
        np.stack([held, waist], axis=1),
        np.stack([shoulder, held], axis=1),
    )
    # Beside: the arm that is nearer to the partner lies on the far shoulder.
    toward = (offset * own_left).sum(axis=-1, keepdims=True)
    far = neck + np.sign(toward) * 0.09 * left + 0.02 * up - 0.05 * front
    targets = np.where((kind == _EMBRACE)[..., None], around, dance)
    targets = np.where((kind == _BESIDE)[..., None], far[:, None], targets)
    nearer = (toward > 0) == np.array([True, False])
    use = (kind == _EMBRACE) | (kind == _DANCE) | ((kind == _BESIDE) & nearer)
    return figure.reach(figures, targets, use)


class _Bodies(NamedTuple):
    """People to choose from: the pairs first, then the others."""

    figures: Figures
    scale: np.ndarray  # [N] pixels per stature
    ground: np.ndarray  # [N] from the pelvis down to the ground, pixels


def _sample_bodies(rng: _Rng, request: Request, pairs: _Pairs) -> _Bodies:
    paired = 2 * _PAIRS
    count = paired + _SOLOS * max(request.people - 2, 0)
    build = figure.sample_build(rng, count)
    calm = np.zeros(count, bool)
    calm[:paired] = np.repeat(pairs.kind != _ALONE, 2)
    angles = figure.sample_angles(rng, count, calm)
    draw = rng.uniform(-1.0, 1.0, (2, count))
    yaw = np.pi * draw[0]
    yaw[:paired] = pairs.yaw.reshape(-1)
    # People of one scene stand at different distances from the camera.
    distance = 0.85 + 0.25 * draw[1]
    distance[:paired] = np.where(calm[:paired], 1.0, 1.0 + 0.1 * draw[1, :paired])
    scale = rng.uniform(*request.height) * build.stature * distance
    figures = figure.pose(build, angles, yaw)
    ground = figures.joints[:, figure.ANKLES, 1].max(axis=1) * scale
    return _Bodies(figures, scale, ground)


def _join_hands(bodies: _Bodies, pairs: _Pairs) -> np.ndarray:
    """Sets the arms of all pairs; returns their feet [K, 2, 3] about the first's."""
    count = 2 * _PAIRS
    scale = bodies.scale[:count].reshape(-1, 2)
    feet = np.zeros((_PAIRS, 2, 3))
    feet[:, 1] = pairs.apart * scale.mean(axis=1, keepdims=True)
    offset = feet[:, 1] - feet[:, 0]
    offset[:, 1] += bodies.ground[:count:2] - bodies.ground[1:count:2]
    offset = np.stack([offset, -offset], axis=1) / scale[..., None]
    ratio = scale[:, ::-1] / scale
    held = _hold(
        bodies.figures[np.arange(count)],
        np.repeat(pairs.kind, 2),
        offset.reshape(-1, 3),
        ratio.reshape(-1, 1),
    )
    bodies.figures.joints[:count] = held.joints
    return feet


def _shift_inside(rng: _Rng, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shifts [N, 2] that bring corner boxes [N, 4] into the image, if they fit."""
    low = -0.5 - boxes[:, :2]
    high = np.array([size[1], size[0]]) - 0.5 - boxes[:, 2:]
    shift = low + (high - low) * rng.uniform(size=low.shape)
    # Too large to fit: rather the heads inside than the feet.
    shift[:, 1] = np.where(high[:, 1] < low[:, 1], low[:, 1], shift[:, 1])
    # One scene in five is a closer view, cut by the lower edge of the image.
    close, cut = rng.uniform(size=2)
    if close < 0.2:
        shift[:, 1] += 0.3 * cut * (boxes[:, 3] - boxes[:, 1])
    return shift


def stage(rng: _Rng, request: Request) -> tuple[flesh.Cast, np.ndarray]:
    """Draws the people of one scene.

    Of many random pairs the one whose box IoU comes nearest to the request is taken;
    everybody else keeps below it where there is room.

    Returns:
        The cast, and for each person [P, 3] the ground below: x, y, depth.
    """
    pairs = _sample_pairs(rng, request.overlap)
    bodies = _sample_bodies(rng, request, pairs)
    feet = _join_hands(bodies, pairs)
    extent = bodies.scale[:, None] * figure.extent(bodies.figures)
    extent[:, 1::2] -= bodies.ground[:, None]  # about the feet
    boxes = extent[: 2 * _PAIRS].reshape(-1, 2, 4) + np.tile(feet[..., :2], 2)
    group = boxes[:, : request.people]
    union = np.concatenate([group[..., :2].min(1), group[..., 2:].max(1)], axis=-1)
    shift = _shift_inside(rng, union, request.size)
    boxes = clip_boxes(boxes + np.tile(shift, 2)[:, None], request.size)
    feet[..., :2] += shift[:, None]
    miss = np.abs(box_iou(boxes[:, 0], boxes[:, 1]) - request.overlap)
    best = int(miss.argmin()) if request.people > 1 else 0
    members = min(request.people, 2)
    chosen = [2 * best + member for member in range(members)]
    ground, taken = list(feet[best, :members]), list(boxes[best, :members])
    for number in range(request.people - 2):
        rows = 2 * _PAIRS + number * _SOLOS + np.arange(_SOLOS).repeat(_SPOTS)
        spots = _spots(rng, bodies, rows, ground[0], request.size)
        box = clip_boxes(extent[rows] + np.tile(spots[:, :2], 2), request.size)
        worst = box_iou(box[:, None], np.stack(taken)).max(axis=1)
        fits = worst <= request.overlap
        pick = int(fits.argmax() if fits.any() else worst.argmin())
        chosen.append(int(rows[pick]))
        ground.append(spots[pick])
        taken.append(box[pick])
    rows, ground = np.array(chosen), np.stack(ground)
    origin = ground - bodies.ground[rows, None] * (0.0, 1.0, 0.0)
    wear = flesh.sample_wear(rng, request.people)
    return flesh.place(bodies.figures[rows], wear, origin, bodies.scale[rows]), ground


def _spots(rng, bodies: _Bodies, rows, anchor, size: tuple[int, int]) -> np.ndarray:
    """Feet [N, 3] of further people about the anchor: nearer is larger and lower."""
    height, width = size
    draw = rng.uniform(-1.0, 1.0, (2, len(rows)))
    # In random order: the first that fits is taken.
    rows[:] = rng.permutation(rows)
    grown = bodies.scale[rows] / bodies.figures.build.stature[rows]
    low = 0.3 * (grown - grown.mean()) + 0.04 * height * draw[0]
    x = (0.5 + 0.46 * draw[1]) * width
    depth = np.where(low > 0, -0.6, 0.6) * grown - 3.0 * low
    return np.stack([x, anchor[1] + low, anchor[2] + depth], axis=1)
