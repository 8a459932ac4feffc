"""Who stands where: people with a requested overlap of their boxes."""

from typing import NamedTuple

import numpy as np

from occjax.data import figure, flesh

_PAIRS = 24  # candidates for the two people that overlap most
_SOLOS = 8  # candidates for each of the others

# How two people belong together: nothing, arms around each other, dancing hand in
# hand, side by side with an arm around the shoulders, facing each other.
_ALONE, _EMBRACE, _DANCE, _BESIDE, _FACING = range(5)
_ODDS = (0.5, 0.14, 0.14, 0.12, 0.1)
_NEAR = np.array([(0.0, 0.0), (0.13, 0.19), (0.24, 0.36), (0.19, 0.26), (0.3, 0.6)])


class Request(NamedTuple):
    """What a scene shall be like. Sizes in pixels."""

    size: tuple[int, int]  # height, width
    people: int
    overlap: float  # largest box IoU of any two people
    height: tuple[float, float]  # of a grown-up person


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of corner boxes [..., 4], broadcast; 0 if both empty."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    inner = np.prod(np.maximum(high - low, 0.0), axis=-1)
    areas = [np.prod(np.maximum(c[..., 2:] - c[..., :2], 0.0), axis=-1) for c in (a, b)]
    return inner / np.maximum(areas[0] + areas[1] - inner, 1e-9)


def clip_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Corner boxes [..., 4] within the image (pixel edges lie at -0.5)."""
    edge = np.array([size[1], size[0], size[1], size[0]]) - 0.5
    return np.clip(boxes, -0.5, edge)


def _hold(figures: figure.Figures, kind: np.ndarray, apart: np.ndarray) -> figure.Figures:
    """Lets arms reach for the partner. Rows are pairs: 2 k and 2 k + 1 belong together.

    Args:
        kind: [pairs]; apart: [pairs, 3] from the first to the second, statures.
    """
    count = len(kind)
    # Where the partner's pelvis is, seen from each.
    offset = np.stack([apart, -apart], axis=1).reshape(-1, 3)
    partner = np.arange(2 * count).reshape(-1, 2)[:, ::-1].reshape(-1)
    neck = figures.joints[partner, figure.NECK] + offset
    left, up, front = np.moveaxis(figures.frames[partner, figure.CHEST], 1, 0)
    first = (np.arange(2 * count) % 2 == 0)[:, None]
    pairs = np.repeat(kind, 2)[:, None]
    middle = 0.5 * (figures.joints[:, figure.NECK] + neck)
    own_left = figures.frames[:, figure.CHEST, 0]
    # The first one's left hand and the second one's right hand meet aside.
    aside = np.where(first, own_left, -own_left)
    held = middle + 0.21 * aside - 0.02 * up
    back = neck - 0.075 * front - 0.09 * up
    around = np.stack([back - 0.03 * left, back + 0.03 * left], axis=1)
    waist = neck - 0.06 * front - 0.2 * up
    shoulder = neck + 0.03 * up + 0.1 * left
    rest = np.where(first, waist + 0.05 * left, shoulder)
    dance = np.where(first[..., None], np.stack([held, rest], 1), np.stack([rest, held], 1))
    # Beside: the arm that is nearer to the partner lies on the far shoulder.
    toward = (offset * own_left).sum(-1)
    far = neck + np.sign(toward)[:, None] * 0.09 * left + 0.02 * up - 0.05 * front
    targets = np.where((pairs == _EMBRACE)[..., None], around, dance)
    targets = np.where((pairs == _BESIDE)[..., None], far[:, None], targets)
    nearer = np.stack([toward > 0, toward <= 0], axis=1)
    use = (pairs == _EMBRACE) | (pairs == _DANCE) | ((pairs == _BESIDE) & nearer)
    return figure.reach(figures, targets, use)


def _relations(rng: np.random.Generator, overlap: float):
    """Kind [pairs], offset in statures [pairs, 3] and yaws [pairs, 2]."""
    kind = rng.choice(5, size=_PAIRS, p=_ODDS)
    low, high = _NEAR[kind].T
    distance = low + (high - low) * rng.uniform(size=_PAIRS)
    turn = rng.uniform(-np.pi, np.pi, _PAIRS)
    apart = np.stack(
        [distance * np.cos(turn), np.zeros(_PAIRS), distance * np.sin(turn)], axis=1
    )
    # Strangers: the more overlap is wanted, the smaller the offset in the image.
    spread = 0.62 * (1.12 - overlap)
    loose = np.stack(
        [
            rng.uniform(-spread, spread, _PAIRS),
            rng.uniform(-0.08, 0.08, _PAIRS) * (1.05 - overlap),
            np.where(rng.uniform(size=_PAIRS) < 0.5, 0.3, -0.3),
        ],
        axis=1,
    )
    alone = kind == _ALONE
    apart = np.where(alone[:, None], loose, apart)
    free = rng.uniform(-np.pi, np.pi, (_PAIRS, 2))
    toward = np.arctan2(apart[:, 0], -apart[:, 2])
    beside = toward[:, None] - 0.5 * np.pi + rng.uniform(-0.25, 0.25, (_PAIRS, 2))
    beside += np.where(rng.uniform(size=_PAIRS) < 0.5, np.pi, 0.0)[:, None]
    facing = toward[:, None] + (0.0, np.pi) + rng.uniform(-0.2, 0.2, (_PAIRS, 2))
    yaw = np.where((kind == _BESIDE)[:, None], beside, facing)
    return kind, apart, np.where(alone[:, None], free, yaw)


class _Candidates(NamedTuple):
    figures: figure.Figures
    scale: np.ndarray  # [N] pixels per stature
    extent: np.ndarray  # [N, 4] box about the pelvis, pixels


def _candidates(rng, request: Request, kind, apart, yaw) -> _Candidates:
    """All people among whom the scene chooses: pairs first, then the others."""
    solos = _SOLOS * max(request.people - 2, 0)
    count = 2 * _PAIRS + solos
    build = figure.sample_build(rng, count)
    together = np.repeat(kind != _ALONE, 2)
    calm = np.concatenate([together, np.zeros(solos, bool)])
    angles = figure.sample_angles(rng, count, calm)
    base = rng.uniform(*request.height)
    scale = base * build.stature
    scale[2 * _PAIRS :] *= rng.uniform(0.7, 1.12, solos)
    # Strangers of one pair may stand at different distances from the camera.
    scale[: 2 * _PAIRS] *= np.where(together, 1.0, rng.uniform(0.9, 1.1, 2 * _PAIRS))
    yaw = np.concatenate([yaw.reshape(-1), rng.uniform(-np.pi, np.pi, solos)])
    figures = figure.pose(build, angles, yaw)
    return _Candidates(figures, scale, scale[:, None] * figure.extent(figures))


def _lowest(joints: np.ndarray) -> np.ndarray:
    """Height of the ground below the pelvis [N], statures."""
    return joints[:, figure.ANKLES, 1].max(axis=1)


def _fit(rng: np.random.Generator, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shifts [N, 2] that bring boxes [N, 4] into the image, as far as they fit."""
    edge = np.array([size[1], size[0]]) - 0.5
    low, high = -0.5 - boxes[:, :2], edge - boxes[:, 2:]
    part = rng.uniform(size=(len(boxes), 2))
    # One scene in five is a closer view, cut by the lower edge of the image.
    cut = (rng.uniform() < 0.2) * rng.uniform(0.0, 0.3) * (boxes[:, 3] - boxes[:, 1])
    shift = low + (high - low) * part
    # Too large to fit: rather the head inside than the feet.
    shift[:, 1] = np.where(high[:, 1] < low[:, 1], low[:, 1], shift[:, 1])
    return shift + np.stack([np.zeros_like(cut), cut], axis=1)


def _origins(cast: _Candidates, rows: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Pelvis [N, 3] in pixels from place [N, 3] of the ground below it."""
    ground = _lowest(cast.figures.joints[rows]) * cast.scale[rows]
    return place - np.stack([np.zeros_like(ground), ground, np.zeros_like(ground)], -1)


def stage(rng: np.random.Generator, request: Request) -> tuple[flesh.Cast, np.ndarray]:
    """Draws the people of one scene.

    Of many random pairs the one whose box IoU comes nearest to the request is taken;
    everybody else keeps below it.

    Returns:
        The cast, and for each person [P, 3] the ground below: x, y, depth.
    """
    kind, apart, yaw = _relations(rng, request.overlap)
    cast = _candidates(rng, request, kind, apart, yaw)
    first, second = 2 * np.arange(_PAIRS), 2 * np.arange(_PAIRS) + 1
    scale = 0.5 * (cast.scale[first] + cast.scale[second])[:, None]
    # What is farther away stands higher in the image.
    step = apart + np.where(kind == _ALONE, 0.0, -0.16)[:, None] * apart[:, 2:] * (0, 1, 0)
    grounds = np.stack([np.zeros((_PAIRS, 3)), step * scale], axis=1)  # [pairs, 2, 3]
    rows = np.stack([first, second], axis=1)
    origin = _origins(cast, rows.reshape(-1), grounds.reshape(-1, 3)).reshape(-1, 2, 3)
    boxes = cast.extent[rows] + np.tile(origin[..., :2], 2)
    union = np.concatenate([boxes[..., :2].min(1), boxes[..., 2:].max(1)], axis=-1)
    if request.people == 1:
        union = boxes[:, 0]
    shift = _fit(rng, union, request.size)
    boxes = clip_boxes(boxes + np.tile(shift, 2)[:, None], request.size)
    miss = np.abs(box_iou(boxes[:, 0], boxes[:, 1]) - request.overlap)
    best = int(miss.argmin()) if request.people > 1 else 0
    members = min(request.people, 2)
    chosen, ground = rows[best, :members], grounds[best, :members].copy()
    ground[:, :2] += shift[best]
    taken = boxes[best, :members]
    limit = request.overlap
    for number in range(request.people - 2):
        solo = 2 * _PAIRS + number * _SOLOS + np.arange(_SOLOS)
        spot = _solo_spots(rng, cast, solo, ground[0], request)
        box = cast.extent[solo] + np.tile(_origins(cast, solo, spot)[:, :2], 2)
        box = clip_boxes(box, request.size)
        worst = box_iou(box[:, None], taken).max(axis=1)
        good = np.flatnonzero(worst <= limit)
        pick = int(good[0]) if len(good) else int(worst.argmin())
        chosen = np.append(chosen, solo[pick])
        ground = np.concatenate([ground, spot[pick : pick + 1]])
        taken = np.concatenate([taken, box[pick : pick + 1]])
    origin = _origins(cast, chosen, ground)
    wear = flesh.sample_wear(rng, request.people)
    figures = cast.figures[chosen]
    if members == 2:
        apart = (origin[1] - origin[0]) / cast.scale[chosen[0]]
        held = _hold(figures[np.arange(2)], kind[best : best + 1], apart[None])
        figures.joints[:2] = held.joints
    people = flesh.place(figures, wear, origin, cast.scale[chosen])
    return people, ground


def _solo_spots(rng, cast, rows, anchor, request) -> np.ndarray:
    """Ground [N, 3] below further people: nearer ones are larger and lower."""
    height, width = request.size
    count = len(rows)
    grown = cast.scale[rows] / cast.figures.build.stature[rows]
    low = 0.3 * (grown - grown.mean()) + rng.uniform(-0.04, 0.04, count) * height
    x = rng.uniform(0.04, 0.96, count) * width
    depth = np.where(low > 0, -1.0, 1.0) * 0.6 * grown - 3.0 * low
    return np.stack([x, anchor[1] + low, anchor[2] + depth], axis=1)
