"""Flesh, hair and clothes around a posed figure, as pieces to paint."""

from typing import NamedTuple

import numpy as np

from occjax.data import figure, paint
from occjax.data.figure import CHEST, INDEX, PELVIS, SKULL, Figures

MIN_RADIUS = 1.1  # pixels: the pixel nearest to a joint lies inside its piece

# Points that hang on a frame: origin, frame, (left, up, front) and radius. On the
# skull in skull radii, on the chest in statures of an average build.
_HEAD = {
    "chin": ((0.0, -0.72, 0.14), 0.62),
    "crown": ((0.0, 0.25, -0.2), 0.98),
    "nape": ((0.0, -1.25, -0.5), 0.62),
    "tail_root": ((0.0, 0.25, -1.1), 0.3),
    "tail_tip": ((0.0, -1.25, -1.35), 0.17),
    "bun": ((0.0, 0.95, -0.55), 0.42),
    "hat_left": ((0.8, 0.5, -0.05), 0.24),
    "hat_right": ((-0.8, 0.5, -0.05), 0.24),
    "hat_top": ((0.0, 0.75, -0.05), 0.66),
    "visor_left": ((0.62, 0.52, 0.85), 0.1),
    "visor_right": ((-0.62, 0.52, 0.85), 0.1),
    "visor_tip": ((0.0, 0.42, 1.6), 0.16),
    "bridge": ((0.0, 0.05, 0.98), 0.09),
    "mouth_left": ((0.24, -0.66, 0.84), 0.08),
    "mouth_right": ((-0.24, -0.66, 0.84), 0.08),
    "brow_left_in": ((0.18, 0.3, 0.93), 0.06),
    "brow_left_out": ((0.58, 0.27, 0.8), 0.06),
    "brow_right_in": ((-0.18, 0.3, 0.93), 0.06),
    "brow_right_out": ((-0.58, 0.27, 0.8), 0.06),
    "pupil_left": ((0.37, 0.03, 0.93), 0.115),
    "pupil_right": ((-0.37, 0.03, 0.93), 0.115),
}
_CHEST = {
    "tie_knot": ((0.0, -0.015, 0.058), 0.009),
    "tie_tip": ((0.0, -0.17, 0.07), 0.017),
    "badge": ((0.058, -0.085, 0.062), 0.018),
    "collar_left": ((0.032, 0.012, 0.045), 0.008),
    "collar_right": ((-0.032, 0.012, 0.045), 0.008),
    "collar_tip": ((0.0, -0.055, 0.06), 0.008),
    "pack_left": ((0.055, -0.06, -0.085), 0.04),
    "pack_right": ((-0.055, -0.06, -0.085), 0.04),
    "pack_left_low": ((0.06, -0.2, -0.095), 0.045),
    "pack_right_low": ((-0.06, -0.2, -0.095), 0.045),
    "strap_left": ((0.07, 0.02, 0.025), 0.012),
    "strap_left_low": ((0.075, -0.17, 0.055), 0.012),
    "strap_right": ((-0.07, 0.02, 0.025), 0.012),
    "strap_right_low": ((-0.075, -0.17, 0.055), 0.012),
}
# Radii about joints and about points between them, in statures of an average build.
_JOINT_RADII = {
    "nose": 0.15,  # the face in skull radii
    **dict.fromkeys(("left_eye", "right_eye"), 0.19),
    **dict.fromkeys(("left_ear", "right_ear"), 0.24),
    "head": 0.05,
    **dict.fromkeys(("left_shoulder", "right_shoulder"), 0.04),
    **dict.fromkeys(("left_elbow", "right_elbow"), 0.03),
    **dict.fromkeys(("left_wrist", "right_wrist"), 0.021),
    **dict.fromkeys(("left_hip", "right_hip"), 0.058),
    **dict.fromkeys(("left_knee", "right_knee"), 0.041),
    **dict.fromkeys(("left_ankle", "right_ankle"), 0.026),
    "neck": 0.034,
}
_BETWEEN = {
    **dict.fromkeys(("hand_left", "hand_right"), 0.024),
    **dict.fromkeys(("toe_left", "toe_right"), 0.019),
    **dict.fromkeys(("heel_left", "heel_right"), 0.024),
    **dict.fromkeys(("waist_left", "waist_right"), 0.05),
    **dict.fromkeys(("breast_left", "breast_right"), 0.047),
    **dict.fromkeys(("belly_left", "belly_right"), 0.052),
    **dict.fromkeys(("hem_left", "hem_right"), 0.075),
    "skull": 1.0,
    "throat": 0.033,
}
LANDMARKS = (*figure.JOINTS, *_BETWEEN, *_HEAD, *_CHEST)
_AT = {name: index for index, name in enumerate(LANDMARKS)}
_RADII = np.array(
    [
        *(_JOINT_RADII[name] for name in figure.JOINTS),
        *_BETWEEN.values(),
        *(radius for _, radius in _HEAD.values()),
        *(radius for _, radius in _CHEST.values()),
    ]
)
_IN_SKULLS = np.array(
    [name in _HEAD or name == "skull" or (INDEX.get(name, 9) < 5) for name in LANDMARKS]
)
_HEAD_AT = np.array([place for place, _ in _HEAD.values()])
_CHEST_AT = np.array([place for place, _ in _CHEST.values()])

# Colour slots.
SKIN, HAIR, FACE, NOSE, LIP, WHITE, DARK, SHOES = PLAIN = tuple(range(8))
TOP, BOTTOM, EXTRA, SLEEVE, CUFF, TROUSER = range(8, 14)
NUM_SLOTS = 14


class _Row(NamedTuple):
    """One kind of piece. `discs` are landmarks, far end of the axis last."""

    discs: tuple[str, ...]
    slot: int
    carries: tuple[str, ...] = ()
    bias: float = 0.0  # statures by which the piece lies nearer than its discs
    wear: str = ""  # worn only by those who have it


def _sides(name: str, row: _Row) -> dict[str, _Row]:
    """The row for the left, and its mirror image for the right."""
    other = row._replace(
        discs=tuple(d.replace("left", "right") for d in row.discs),
        carries=tuple(c.replace("left", "right") for c in row.carries),
    )
    return {f"left {name}": row, f"right {name}": other}


_FACE_JOINTS = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_TRUNK = ("left_shoulder", "right_shoulder", "left_hip", "right_hip", "neck")
_CHEST_DISCS = ("belly_left", "belly_right", "breast_left", "breast_right")
_PACK = ("pack_left_low", "pack_right_low", "pack_left", "pack_right")
PIECES: dict[str, _Row] = {
    **_sides(
        "arm",
        _Row(
            ("left_shoulder", "left_elbow"),
            SLEEVE,
            ("left_shoulder", "left_elbow"),
            0.02,
        ),
    ),
    **_sides(
        "forearm",
        _Row(("left_elbow", "left_wrist"), CUFF, ("left_elbow", "left_wrist"), 0.022),
    ),
    **_sides("hand", _Row(("left_wrist", "hand_left"), SKIN, ("left_wrist",), 0.021)),
    **_sides(
        "thigh", _Row(("left_hip", "left_knee"), BOTTOM, ("left_hip", "left_knee"))
    ),
    **_sides(
        "shank",
        _Row(("left_knee", "left_ankle"), TROUSER, ("left_knee", "left_ankle"), -0.004),
    ),
    **_sides("foot", _Row(("heel_left", "toe_left"), SHOES, ("left_ankle",), 0.002)),
    "chest": _Row(_CHEST_DISCS, TOP, _TRUNK, 0.012),
    "hips": _Row(
        ("left_hip", "right_hip", "waist_left", "waist_right"),
        BOTTOM,
        ("left_hip", "right_hip"),
        0.008,
    ),
    "skirt": _Row(
        ("hem_left", "hem_right", "waist_left", "waist_right"),
        EXTRA,
        ("left_hip", "right_hip"),
        0.03,
        "skirt",
    ),
    "neck": _Row(("neck", "throat"), SKIN, ("neck",), 0.0),
    "head": _Row(("chin", "skull"), FACE, (*_FACE_JOINTS, "head"), 0.0),
    "crown": _Row(("crown",), HAIR, ("head",), -0.004, "hair"),
    "long hair": _Row(("nape", "crown"), HAIR, ("head",), 0.012, "long hair"),
    "tail": _Row(("tail_tip", "tail_root"), HAIR, (), 0.0, "tail"),
    "bun": _Row(("bun",), HAIR, ("head",), 0.0, "bun"),
    "hat": _Row(("hat_left", "hat_right", "hat_top"), EXTRA, ("head",), 0.045, "hat"),
    "visor": _Row(("visor_left", "visor_right", "visor_tip"), EXTRA, (), 0.01, "hat"),
    **_sides("ear", _Row(("left_ear",), SKIN, _FACE_JOINTS, 0.0)),
    **_sides("eye", _Row(("left_eye",), WHITE, _FACE_JOINTS, 0.0)),
    **_sides("pupil", _Row(("pupil_left",), DARK, _FACE_JOINTS, 0.0)),
    **_sides("brow", _Row(("brow_left_in", "brow_left_out"), HAIR, _FACE_JOINTS, 0.0)),
    "nose": _Row(("bridge", "nose"), NOSE, _FACE_JOINTS, 0.0),
    "mouth": _Row(("mouth_left", "mouth_right"), LIP, _FACE_JOINTS, 0.0),
    "collar": _Row(
        ("collar_tip", "collar_left", "collar_right"), SKIN, ("neck",), 0.01
    ),
    "tie": _Row(("tie_tip", "tie_knot"), EXTRA, ("neck",), 0.012, "tie"),
    "badge": _Row(("badge",), WHITE, (), 0.012, "badge"),
    "pack": _Row(_PACK, EXTRA, (), 0.012, "pack"),
    **_sides("strap", _Row(("strap_left_low", "strap_left"), EXTRA, (), 0.012, "pack")),
}
NAMES = tuple(PIECES)
WEARABLES = tuple(dict.fromkeys(row.wear for row in PIECES.values() if row.wear))
_ROWS = tuple(PIECES.values())


def _quad(discs: tuple[str, ...]) -> list[int]:
    """Four landmark indices: one disc four times, a limb's ends twice each, ..."""
    index = [_AT[name] for name in discs]
    return {
        1: lambda: index * 4,
        2: lambda: [index[0], index[0], index[1], index[1]],
        3: lambda: [index[0], index[1], index[2], index[2]],
        4: lambda: index,
    }[len(index)]()


_DISCS = np.array([_quad(row.discs) for row in _ROWS])  # [M, 4]
_SLOT = np.array([row.slot for row in _ROWS])
_BIAS = np.array([row.bias for row in _ROWS])
_WEAR = np.array([WEARABLES.index(row.wear) if row.wear else -1 for row in _ROWS])
CARRIES = np.array(
    [[name in row.carries for name in figure.JOINTS] for row in _ROWS]
)  # [M, 19]
_RELIEF = np.array(
    [paint.FLAT if row.slot in (WHITE, DARK, LIP) else paint.CYLINDER for row in _ROWS]
)
_RELIEF[NAMES.index("head")] = paint.BALL
_TORSO = np.array([name in ("chest", "hips", "skirt") for name in NAMES])
_FACE = np.array([row.carries[:5] == _FACE_JOINTS for row in _ROWS])
# What is stitched to the front of the chest is not seen edge-on.
_STITCHED = np.array([name in ("badge", "collar", "tie") for name in NAMES])


def sample_wear(rng: np.random.Generator, count: int) -> np.ndarray:
    """Which WEARABLES each of `count` people has, [count, wearables] bool."""
    odds = dict.fromkeys(WEARABLES, 0.16)
    odds |= {"hair": 0.93, "long hair": 0.34, "skirt": 0.22}
    wear = rng.uniform(size=(count, len(WEARABLES))) < [odds[w] for w in WEARABLES]
    hair, long, tail, bun, tie, badge = (
        WEARABLES.index(name)
        for name in ("hair", "long hair", "tail", "bun", "tie", "badge")
    )
    wear[:, [long, tail, bun]] &= wear[:, [hair]]
    wear[:, tail] &= ~wear[:, long]
    wear[:, bun] &= ~(wear[:, long] | wear[:, tail])
    wear[:, badge] &= ~wear[:, tie]
    return wear


def landmarks(figures: Figures) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, K, 3] of LANDMARKS and the radii [N, K] about them, in statures."""
    build, joints, frames = figures.build, figures.joints, figures.frames
    chest, pelvis = frames[:, CHEST], frames[:, PELVIS]
    side = figure.SIDES[:, None]
    wrists, ankles = joints[:, figure.WRISTS], joints[:, figure.ANKLES]
    forearm = wrists - joints[:, figure.ELBOWS]
    hands = wrists + 0.05 * forearm / build.forearm[:, None, None]
    heels = (
        ankles + 0.015 * (ankles - joints[:, figure.KNEES]) / build.shank[:, None, None]
    )
    neck, left, up = joints[:, None, figure.NECK], chest[:, None, 0], chest[:, None, 1]
    torso = build.torso[:, None, None]
    width = build.hips[:, None, None] * side
    waist = 0.3 * torso * up + 0.8 * width * left
    belly = 0.22 * torso * up + 0.86 * width * left
    breast = neck + 0.8 * (joints[:, figure.SHOULDERS] - neck) - 0.03 * up
    hem = 0.5 * joints[:, figure.HIPS] + 0.5 * joints[:, figure.KNEES]
    hem = hem + 0.4 * width * pelvis[:, None, 0]
    skull = figure.skull(figures)[:, None]
    size = build.skull[:, None, None]
    throat = 0.45 * neck + 0.55 * skull
    face = skull + size * (_HEAD_AT @ frames[:, SKULL])
    thick = np.stack(
        [build.shoulders / 0.112, np.ones_like(size[:, 0, 0]), build.girth], -1
    )
    front = neck + (_CHEST_AT * thick[:, None]) @ chest
    between = (hands, figures.toes, heels, waist, breast, belly, hem, skull, throat)
    points = np.concatenate([joints, *between, face, front], axis=1)
    scale = np.where(_IN_SKULLS, build.skull[:, None], build.girth[:, None])
    return points, _RADII * scale


class Cast(NamedTuple):
    """P people in the image, in pixels, and their M pieces each."""

    joints: np.ndarray  # [P, 19, 3] x, y, depth
    discs: np.ndarray  # [P, M, 4, 3] x, y, radius
    depth: np.ndarray  # [P, M] of the piece
    limit: np.ndarray  # [P, M] joints deeper than this lie behind the piece
    present: np.ndarray  # [P, M] bool
    cap: np.ndarray  # [P, 4] where the head has hair
    scale: np.ndarray  # [P] pixels per stature


def place(
    figures: Figures, wear: np.ndarray, origin: np.ndarray, scale: np.ndarray
) -> Cast:
    """Sets people into the image.

    Args:
        figures: P people.
        wear: [P, wearables] bool.
        origin: [P, 3] x, y, depth of the pelvis in pixels.
        scale: [P] pixels per stature.
    """
    points, radii = landmarks(figures)
    points = points * scale[:, None, None] + origin[:, None]
    radii = np.maximum(radii * scale[:, None], MIN_RADIUS)
    # The top of the head is a joint too, so it lies that far inside the skull.
    skull_radius = radii[:, _AT["skull"], None]
    height = skull_radius - np.maximum(0.1 * skull_radius, MIN_RADIUS)
    top = points[:, _AT["skull"]] + height * figures.frames[:, SKULL, 1]
    points[:, figure.HEAD] = top
    discs = np.concatenate([points[..., :2], radii[..., None]], axis=-1)[:, _DISCS]
    mean = points[:, _DISCS, 2].mean(axis=2)  # [P, M]
    depth = mean - _BIAS * scale[:, None]
    limit = np.full(depth.shape, np.inf)
    trunk = 0.085 * scale
    limit[:, _TORSO] = (mean + trunk[:, None])[:, _TORSO]
    skull = points[:, _AT["skull"], 2] + 0.28 * figures.build.skull * scale
    limit[:, _FACE] = skull[:, None]
    present = np.where(_WEAR >= 0, wear[:, np.maximum(_WEAR, 0)], True)
    facing = figures.frames[:, CHEST, 2, 2] < -0.2
    present &= facing[:, None] | ~_STITCHED
    _, up, front = np.moveaxis(figures.frames[:, SKULL], 1, 0)
    bald = ~wear[:, WEARABLES.index("hair")]
    cap = np.concatenate(
        [0.75 * up - 0.66 * front, np.where(bald, 2.0, 0.16)[:, None]], 1
    )
    return Cast(
        points[:, : figure.NUM_JOINTS], discs, depth, limit, present, cap, scale
    )


def dress(cast: Cast) -> paint.Pieces:
    """Pieces of all people; person p wears fabrics from row p * NUM_SLOTS on."""
    worn = cast.present
    person = np.broadcast_to(np.arange(len(cast.scale))[:, None], worn.shape)[worn]
    kind = np.broadcast_to(np.arange(len(NAMES)), worn.shape)[worn]
    cap = np.where(
        (_RELIEF[kind] == paint.BALL)[:, None], cast.cap[person], paint.NO_CAP
    )
    return paint.Pieces(
        discs=cast.discs[worn],
        depth=cast.depth[worn],
        owner=person + 1,
        fabric=person * NUM_SLOTS + _SLOT[kind],
        unit=cast.scale[person],
        tone=np.ones(len(kind)),
        relief=_RELIEF[kind],
        cap=cap,
    )


def extent(cast: Cast) -> np.ndarray:
    """Boxes [P, 4] (x0, y0, x1, y1) around all that people are and wear, pixels."""
    radius = np.where(cast.present[..., None], cast.discs[..., 2], -1e9)[..., None]
    low = (cast.discs[..., :2] - radius).min(axis=(1, 2))
    high = (cast.discs[..., :2] + radius).max(axis=(1, 2))
    return np.concatenate([low, high], axis=1)
