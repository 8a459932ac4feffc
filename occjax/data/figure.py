"""A person in three dimensions: proportions, poses within joint limits, kinematics.

Lengths are in statures (standing height = 1). Image axes: x right, y down, z away from
the camera. A frame is three unit vectors, rows left, up, front of a body part, written
in image axes; yaw 0 faces the camera and turns towards the person's own left.
"""

import dataclasses

import numpy as np

from occjax.skeletons import COCO

JOINTS = (*COCO.joints, "head", "neck")  # what every figure knows about itself
NUM_JOINTS = len(JOINTS)
INDEX = {name: index for index, name in enumerate(JOINTS)}
SHOULDERS, ELBOWS, WRISTS = slice(5, 7), slice(7, 9), slice(9, 11)
HIPS, KNEES, ANKLES = slice(11, 13), slice(13, 15), slice(15, 17)
HEAD, NECK = INDEX["head"], INDEX["neck"]
SIDES = np.array([1.0, -1.0])  # left, right
PELVIS, CHEST, SKULL = 0, 1, 2  # frames

# The nineteenth body: where the face sits on the head, in skull radii (left, up,
# front), in the order nose, eyes, ears, top of the head.
FACE = np.array(
    [
        (0.0, -0.28, 1.08),
        *((0.37, 0.04, 0.81), (-0.37, 0.04, 0.81)),
        *((0.98, -0.1, -0.05), (-0.98, -0.1, -0.05)),
        (0.0, 1.05, 0.0),
    ]
)
_FACE_JOINTS = [0, 1, 2, 3, 4, HEAD]

# Trunk angles, then four angles of each limb, in degrees.
TRUNK = ("bend", "lean", "twist", "look", "nod")
LIMB = ("pitch", "abduct", "bend", "roll")
NUM_ANGLES = len(TRUNK) + 4 * len(LIMB)
_TRUNK_LIMITS = ((-20, 95), (-25, 25), (-40, 40), (-70, 70), (-35, 40))
_ARM_LIMITS = ((-60, 185), (-15, 130), (0, 145), (-100, 130))
_LEG_LIMITS = ((-40, 125), (-12, 60), (-145, 0), (0, 0))
LIMITS = np.array(
    (*_TRUNK_LIMITS, *_ARM_LIMITS, *_ARM_LIMITS, *_LEG_LIMITS, *_LEG_LIMITS), float
)

# Ranges of an arm: pitch (0 hangs, 90 points forward), abduction, elbow bend, and the
# direction of that bend (0 forward, 90 inward).
_HANG = ((-18, 20), (4, 22), (5, 45), (-20, 50))
_AKIMBO = ((-25, 0), (35, 55), (75, 105), (70, 95))
_FOLD = ((20, 42), (5, 20), (85, 115), (50, 85))
_UP = ((140, 180), (0, 40), (0, 70), (20, 110))
_WAVE = ((60, 110), (50, 80), (40, 110), (-100, -60))
_ASIDE = ((-10, 40), (50, 100), (0, 80), (-90, 60))
_FORTH = ((50, 100), (0, 30), (0, 70), (-20, 60))
_SWING_FORTH, _SWING_BACK = (
    ((15, 42), (2, 12), (15, 60), (0, 30)),
    ((-42, -12), (2, 14), (5, 45), (0, 20)),
)
_PUMP_FORTH, _PUMP_BACK = (
    ((25, 65), (5, 25), (70, 115), (5, 40)),
    ((-58, -25), (8, 25), (65, 110), (0, 25)),
)
_LAP = ((15, 45), (0, 16), (25, 90), (0, 55))
_DANGLE = ((45, 95), (0, 25), (0, 40), (0, 50))
# Ranges of a leg: pitch, abduction, knee (negative: the shank goes back), unused.
_STRAIGHT = ((-5, 7), (0, 9), (-9, 0), (0, 0))
_WIDE = ((-5, 12), (10, 28), (-25, 0), (0, 0))
_STEP, _TRAIL = (
    ((16, 36), (-2, 6), (-22, -2), (0, 0)),
    ((-26, -8), (-2, 6), (-45, -5), (0, 0)),
)
_STRIDE, _PUSH = (
    ((45, 85), (-2, 8), (-105, -45), (0, 0)),
    ((-36, -8), (-2, 8), (-95, -15), (0, 0)),
)
_SEAT = ((72, 96), (0, 22), (-105, -62), (0, 0))
_SQUAT = ((85, 120), (5, 30), (-140, -105), (0, 0))
_KICK = ((20, 70), (0, 30), (-60, 0), (0, 0))
_UPRIGHT = ((-6, 9), (-5, 5), (-14, 14), (-55, 55), (-14, 20))
_LEANING = ((-8, 22), (-18, 18), (-30, 30), (-50, 50), (-20, 25))
_FORWARD = ((6, 24), (-5, 5), (-18, 18), (-20, 20), (-18, 8))
_BENT = ((38, 85), (-8, 8), (-20, 20), (-30, 30), (-25, 20))

# Each pose: how often, and the ranges of trunk, two arms and two legs. Which side is
# which is drawn by lot.
POSES = {
    "stand": (3.0, _UPRIGHT, _HANG, _HANG, _STRAIGHT, _STRAIGHT),
    "akimbo": (1.0, _UPRIGHT, _AKIMBO, _HANG, _STRAIGHT, _WIDE),
    "folded": (0.8, _UPRIGHT, _FOLD, _FOLD, _STRAIGHT, _STRAIGHT),
    "walk": (2.5, _UPRIGHT, _SWING_FORTH, _SWING_BACK, _TRAIL, _STEP),
    "run": (1.5, _FORWARD, _PUMP_FORTH, _PUMP_BACK, _PUSH, _STRIDE),
    "sit": (1.5, _UPRIGHT, _LAP, _LAP, _SEAT, _SEAT),
    "sit and point": (0.5, _LEANING, _FORTH, _LAP, _SEAT, _SEAT),
    "dance": (2.0, _LEANING, _ASIDE, _UP, _WIDE, _KICK),
    "sway": (1.0, _LEANING, _ASIDE, _ASIDE, _WIDE, _WIDE),
    "cheer": (1.5, _UPRIGHT, _UP, _UP, _STRAIGHT, _WIDE),
    "wave": (1.2, _UPRIGHT, _WAVE, _HANG, _STRAIGHT, _STRAIGHT),
    "point": (0.8, _UPRIGHT, _FORTH, _HANG, _STRAIGHT, _STEP),
    "bend": (1.0, _BENT, _DANGLE, _DANGLE, _STRAIGHT, _WIDE),
    "crouch": (0.7, _FORWARD, _LAP, _FORTH, _SQUAT, _SQUAT),
}
_ODDS = np.cumsum([row[0] for row in POSES.values()])
_RANGES = np.array([sum(row[1:], ()) for row in POSES.values()], float)  # [poses, A, 2]


@dataclasses.dataclass(frozen=True)
class Build:
    """Proportions of N people, each an array [N], lengths in statures."""

    girth: np.ndarray  # thickness of everything, 1 is average
    torso: np.ndarray  # hips to neck
    shoulders: np.ndarray  # half the width between the shoulder joints
    hips: np.ndarray  # half the width between the hip joints
    upper_arm: np.ndarray
    forearm: np.ndarray
    thigh: np.ndarray
    shank: np.ndarray
    skull: np.ndarray  # radius of the head
    stature: np.ndarray  # relative to a grown-up

    def __getitem__(self, rows: np.ndarray) -> "Build":
        """The people of these rows."""
        return Build(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class Figures:
    """N posed people about their own pelvis, statures and image axes.

    Attributes:
        joints: [N, 19, 3] in the order of JOINTS.
        toes: [N, 2, 3] left and right tip of the foot.
        frames: [N, 3, 3, 3] frames of pelvis, chest and skull.
    """

    build: Build
    joints: np.ndarray
    toes: np.ndarray
    frames: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "Figures":
        """The people of these rows."""
        return Figures(
            self.build[rows], self.joints[rows], self.toes[rows], self.frames[rows]
        )


def sample_build(rng: np.random.Generator, count: int) -> Build:
    """Draws the proportions of `count` people, about one in seven a child."""
    u = rng.uniform(-1.0, 1.0, (8, count))
    child = rng.uniform(size=count) < 0.15
    legs, arms = 1.0 + 0.07 * u[0] - 0.08 * child, 1.0 + 0.07 * u[1] - 0.06 * child
    return Build(
        girth=1.08 + 0.24 * u[2] + 0.1 * u[3],
        torso=0.275 * (1.0 + 0.07 * u[4]),
        shoulders=0.112 * (1.0 + 0.14 * u[5]) - 0.012 * child,
        hips=0.056 * (1.0 + 0.18 * u[6]),
        upper_arm=0.172 * arms,
        forearm=0.148 * arms,
        thigh=0.238 * legs,
        shank=0.236 * legs,
        skull=0.063 * (1.0 + 0.08 * u[7]) + 0.02 * child,
        stature=np.where(child, 0.68, 1.0 + 0.06 * u[0]),
    )


def sample_angles(rng: np.random.Generator, count: int, calm: np.ndarray) -> np.ndarray:
    """Draws `count` poses [count, 21] in degrees, all of them within LIMITS.

    Args:
        rng: decides everything.
        count: N.
        calm: [count] bool, who just stands (and has the arms free).
    """
    kind = np.searchsorted(_ODDS, rng.uniform(size=count) * _ODDS[-1])
    ranges = _RANGES[np.where(calm, 0, kind)]
    low, high = ranges[..., 0], ranges[..., 1]
    angles = low + (high - low) * rng.uniform(size=low.shape)
    swap = rng.uniform(size=count) < 0.5
    angles[swap] = mirror_angles(angles[swap])
    return angles


def mirror_angles(angles: np.ndarray) -> np.ndarray:
    """The pose [N, 21] seen in a mirror: sides swapped, turns to the other side."""
    trunk = angles[:, :5] * (1.0, -1.0, -1.0, -1.0, 1.0)
    return np.concatenate(
        [trunk, angles[:, 5:].reshape(-1, 4, 4)[:, [1, 0, 3, 2]].reshape(-1, 16)],
        axis=1,
    )


def _frames(trunk: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Frames [N, 3, 3, 3] of pelvis, chest and skull from trunk angles in radians."""
    bend, lean, twist, look, nod = trunk.T
    # People who bend raise the face: they look where they go.
    turns = np.stack([yaw, 0.5 * lean, bend, twist, look, nod - 0.45 * bend])
    cos, sin = np.cos(turns)[..., None], np.sin(turns)[..., None]

    def turn(a, b, number):  # rotates a towards b, and b along with it
        c, s = cos[number], sin[number]
        return a * c + b * s, b * c - a * s

    left, up, front = np.diag([1.0, -1.0, -1.0])[:, None]
    front, left = turn(front, left, 0)
    up, left = turn(up, left, 1)
    frames = [left, up + np.zeros_like(left), front]
    up, left = turn(up, left, 1)
    up, front = turn(up, front, 2)
    front, left = turn(front, left, 3)
    frames += [left, up, front]
    front, left = turn(front, left, 4)
    up, front = turn(up, front, 5)
    frames += [left, up, front]
    return np.stack(frames, axis=1).reshape(-1, 3, 3, 3)


def _limbs(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions of both bones of four limbs, and of the foot if the limb is a leg.

    Args:
        angles: [N, 4, 4] radians; left arm, right arm, left leg, right leg.

    Returns:
        Three arrays [N, 4, 3] in the limb's frame (left, up, front).
    """
    pitch, abduct, bend, roll = np.moveaxis(angles, -1, 0)
    side = np.tile(SIDES, 2)
    (ca, sa), (cb, sb) = ((np.cos(t), np.sin(t)) for t in (pitch, abduct))
    first = np.stack([side * sb, -cb * ca, cb * sa], axis=-1)
    forward = np.stack([np.zeros_like(sa), sa, ca], axis=-1)
    inward = np.stack([-side * cb, -sb * ca, sb * sa], axis=-1)
    c, s = np.cos(bend)[..., None], np.sin(bend)[..., None]
    hinge = np.cos(roll)[..., None] * forward + np.sin(roll)[..., None] * inward
    return first, c * first + s * hinge, c * hinge - s * first


def pose(build: Build, angles: np.ndarray, yaw: np.ndarray) -> Figures:
    """Forward kinematics.

    Args:
        build: of N people.
        angles: [N, 21] degrees, as sample_angles draws them.
        yaw: [N] radians; 0 faces the camera, pi / 2 faces right in the image.
    """
    angles = np.deg2rad(angles)
    frames = _frames(angles[:, :5], yaw)
    first, second, foot = _limbs(angles[:, 5:].reshape(-1, 4, 4))
    joints = np.zeros((len(yaw), NUM_JOINTS, 3))
    chest, pelvis = frames[:, CHEST], frames[:, PELVIS]
    joints[:, NECK] = build.torso[:, None] * chest[:, 1]
    width = build.shoulders[:, None, None] * SIDES[:, None] * chest[:, None, 0]
    joints[:, SHOULDERS] = joints[:, None, NECK] + width - 0.022 * chest[:, None, 1]
    joints[:, HIPS] = build.hips[:, None, None] * SIDES[:, None] * pelvis[:, None, 0]
    chains = (SHOULDERS, ELBOWS, WRISTS, build.upper_arm, build.forearm, chest, 0)
    legs = (HIPS, KNEES, ANKLES, build.thigh, build.shank, pelvis, 2)
    for root, middle, end, upper, lower, frame, row in (chains, legs):
        rows = slice(row, row + 2)
        joints[:, middle] = joints[:, root] + upper[:, None, None] * (
            first[:, rows] @ frame
        )
        joints[:, end] = joints[:, middle] + lower[:, None, None] * (
            second[:, rows] @ frame
        )
    toes = joints[:, ANKLES] + 0.085 * (foot[:, 2:] + 0.35 * second[:, 2:]) @ pelvis
    skull = frames[:, SKULL]
    joints[:, _FACE_JOINTS] = _skull(build, joints, frames)[:, None] + build.skull[
        :, None, None
    ] * (FACE @ skull)
    return Figures(build, joints, toes, frames)


def _skull(build: Build, joints: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Centre of the head [N, 3]."""
    up = 0.028 * frames[:, CHEST, 1] + 1.12 * build.skull[:, None] * frames[:, SKULL, 1]
    return joints[:, NECK] + up + 0.012 * frames[:, CHEST, 2]


def skull(figures: Figures) -> np.ndarray:
    """Centre of the head [N, 3]."""
    return _skull(figures.build, figures.joints, figures.frames)


def reach(figures: Figures, targets: np.ndarray, use: np.ndarray) -> Figures:
    """Moves hands to targets, as far as the arms reach (two-bone inverse kinematics).

    Args:
        figures: N people.
        targets: [N, 2, 3] where left and right wrist shall be.
        use: [N, 2] bool, which arms reach; the others stay.
    """
    build, joints = figures.build, figures.joints.copy()
    upper, fore = build.upper_arm[:, None, None], build.forearm[:, None, None]
    root = joints[:, SHOULDERS]
    way = targets - root
    distance = np.sqrt((way**2).sum(-1, keepdims=True))
    way = way / np.maximum(distance, 1e-6)
    # The elbow bends by at most LIMITS and the arm never stretches fully.
    span = np.clip(distance, 0.35 * (upper + fore), 0.985 * (upper + fore))
    along = (upper**2 - fore**2 + span**2) / (2.0 * span)
    off = np.sqrt(np.maximum(upper**2 - along**2, 0.0))
    # Elbows point down and outward, a little to the back.
    pole = np.array([0.55, -1.0, -0.3]) * np.ones((2, 1))
    pole[1, 0] *= -1.0
    pole = pole @ figures.frames[:, CHEST]
    pole = pole - way * (pole * way).sum(-1, keepdims=True)
    pole /= np.maximum(np.sqrt((pole**2).sum(-1, keepdims=True)), 1e-6)
    elbow, wrist = root + along * way + off * pole, root + span * way
    joints[:, ELBOWS] = np.where(use[..., None], elbow, joints[:, ELBOWS])
    joints[:, WRISTS] = np.where(use[..., None], wrist, joints[:, WRISTS])
    return dataclasses.replace(figures, joints=joints)


def extent(figures: Figures) -> np.ndarray:
    """Boxes [N, 4] (x0, y0, x1, y1) about the pelvis in statures, to a few percent.

    Good for choosing among many; hair, hats and bags are left out.
    """
    joints, build = figures.joints[..., :2], figures.build
    wrists = joints[:, WRISTS]
    hands = wrists + 0.35 * (wrists - joints[:, ELBOWS])
    points = np.concatenate([joints, figures.toes[..., :2], hands], axis=1)
    flesh = _FLESH * build.girth[:, None]
    flesh[:, _FACE_JOINTS[:5]] = 0.35 * build.skull[:, None]
    low = (points - flesh[..., None]).min(axis=1)
    return np.concatenate([low, (points + flesh[..., None]).max(axis=1)], axis=1)


# Flesh about the 19 joints, toes and hands, in statures.
_FLESH = np.array(
    [0.0] * 5
    + [0.04] * 2
    + [0.03] * 2
    + [0.02] * 2
    + [0.058] * 2
    + [0.04] * 2
    + [0.026] * 2
    + [0.01, 0.03]
    + [0.02] * 4
)
