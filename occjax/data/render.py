"""One scene of the built-in crowd: people, things, pixels, and all that is known."""

from typing import NamedTuple

import cv2
import numpy as np

from occjax.data import figure, flesh, paint, palette, scenery, staging
from occjax.errors import UserError

_ATTEMPTS = 60
_MIN_JOINTS = 7  # of COCO's 17, within the image
_MIN_VISIBLE_JOINTS = 2
_MIN_VISIBLE = 0.1  # share of the silhouette
_MIN_AREA = 0.002  # visible share of the image
_FIRST_STOOL = -100  # owner number
_LEGS = figure.HIPS, figure.KNEES, figure.ANKLES


class Scene(NamedTuple):
    """One rendered scene with all that is known about it."""

    image: np.ndarray  # [H, W, 3] uint8, RGB
    instances: np.ndarray  # [H, W] int32: 0 backdrop, person p is p + 1, things < 0
    pieces: np.ndarray  # [H, W] int32: index of the piece seen, -1 none
    joints: np.ndarray  # [P, 19, 3] x, y, v in the order of figure.JOINTS
    depth: np.ndarray  # [P, 19] depth of the joints, pixels
    carries: np.ndarray  # [pieces, 19] bool, joints that a piece shows
    silhouettes: np.ndarray  # [P, H, W] bool, hidden parts included


def _seats(
    rng: np.random.Generator, cast: flesh.Cast, ground: np.ndarray
) -> paint.Pieces:
    """Stools for those whose thighs lie level above their shanks."""
    hip, knee, ankle = (cast.joints[:, rows].mean(axis=1) for rows in _LEGS)
    level = knee[:, 1] - hip[:, 1] < 0.09 * cast.scale
    (who,) = np.nonzero(level & (ankle[:, 1] - hip[:, 1] > 0.18 * cast.scale))
    scale, hip = cast.scale[who], hip[who]
    seat = np.stack(
        [
            hip[:, 0] + rng.uniform(-0.03, 0.03, len(who)) * scale,
            hip[:, 1] + 0.045 * scale,
            ground[who, 1] + 0.03 * scale,
            hip[:, 2] + 0.02 * scale,
        ],
        axis=1,
    )
    return scenery.stools(seat, scale, _FIRST_STOOL)


def _things(
    rng: np.random.Generator, cast: flesh.Cast, ground: np.ndarray, number: int
) -> paint.Pieces:
    """Things before and between the people."""
    who = rng.integers(len(ground), size=number)
    scale = cast.scale[who]
    draw = rng.uniform(size=(number, 3))
    x = ground[who, 0] + (0.6 * draw[:, 0] - 0.3) * scale
    foot = ground[who, 1] + 0.09 * draw[:, 1] * scale
    before_one = ground[who, 2] - 0.2 * scale
    before_all = cast.depth.min() - 1.0
    depth = np.where(draw[:, 2] < 0.3, before_one, before_all) - 0.1 * np.arange(number)
    return scenery.things(rng, np.stack([x, foot, scale], axis=1), depth)


class Arrangement(NamedTuple):
    """Where everything is, before it has colours."""

    pieces: paint.Pieces
    seen: np.ndarray  # [2 H, 2 W] what paint.cover returned
    cast: flesh.Cast
    silhouettes: np.ndarray  # [P, H, W] uint8


def _arrange(
    rng: np.random.Generator,
    request: staging.Request,
    things: int,
    clutter: paint.Pieces,
) -> Arrangement:
    """Draws people and things. Rows of fabric: people, things, stools, clutter."""
    people = request.people
    cast, ground = staging.stage(rng, request)
    groups = (
        flesh.dress(cast),
        _things(rng, cast, ground, things),
        _seats(rng, cast, ground),
        clutter,
    )
    starts = np.cumsum([0, flesh.NUM_SLOTS * people, 2 * things, 2 * people])
    pieces = paint.concatenate(
        [
            group._replace(fabric=group.fabric + start)
            for group, start in zip(groups, starts, strict=True)
        ]
    )
    polygons = paint.hulls(pieces.discs)
    seen = paint.cover(polygons, pieces.depth, request.size)
    shapes = paint.silhouettes(polygons, pieces.owner, people, request.size)
    return Arrangement(pieces, seen, cast, shapes)


def examine(arrangement: Arrangement) -> Scene:
    """The scene and its truth, still without an image."""
    pieces, seen, cast, shapes = arrangement
    people, height, width = shapes.shape
    numbers = paint.centre(seen).astype(np.intp) - 1
    # What the pieces carry; those of the people come first, in the order of the cast.
    count = int(cast.present.sum())
    carries = np.zeros((len(pieces.depth), figure.NUM_JOINTS), bool)
    carries[:count] = flesh.CARRIES[np.nonzero(cast.present)[1]]
    limit = np.zeros(len(pieces.depth))
    limit[:count] = cast.limit[cast.present]
    x, y = np.rint(np.moveaxis(cast.joints[..., :2], -1, 0)).astype(int)
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    piece = numbers[np.where(inside, y, 0), np.where(inside, x, 0)]  # [P, 19]
    shown = pieces.owner[piece] == np.arange(1, people + 1)[:, None]
    shown &= carries[piece, np.arange(figure.NUM_JOINTS)]
    shown &= (cast.joints[..., 2] <= limit[piece]) & (piece >= 0)
    joints = cast.joints.astype(np.float32)
    joints[..., 2] = np.where(shown, 2, 1)
    joints[~inside] = 0.0
    return Scene(
        image=np.zeros((0, 0, 3), np.uint8),
        instances=np.append(pieces.owner, 0).astype(np.int32)[numbers],
        pieces=numbers,
        joints=joints,
        depth=cast.joints[..., 2],
        carries=carries,
        silhouettes=shapes.view(bool),
    )


def _acceptable(scene: Scene) -> bool:
    """Whether every person can be seen well enough to be asked for."""
    people = len(scene.joints)
    owners = np.maximum(scene.instances, 0).reshape(-1)
    visible = np.bincount(owners, minlength=people + 1)[1:]
    whole = scene.silhouettes.reshape(people, -1).sum(axis=1)
    v = scene.joints[:, :17, 2]
    return bool(
        np.all(visible >= np.maximum(_MIN_VISIBLE * whole, _MIN_AREA * owners.size))
        and np.all((v > 0).sum(axis=1) >= _MIN_JOINTS)
        and np.all((v == 2).sum(axis=1) >= _MIN_VISIBLE_JOINTS)
    )


def render(
    rng: np.random.Generator,
    colors: np.random.Generator,
    request: staging.Request,
    things: int,
) -> Scene:
    """Renders one scene.

    Args:
        rng: decides everything but colours and textures.
        colors: decides colours and textures, and no label.
        request: people, overlap and sizes.
        things: how many objects stand before or between the people.

    Raises:
        UserError: no arrangement shows everybody well enough.
    """
    size, people = request.size, request.people
    backdrop = scenery.backdrop(rng, colors, size)
    clutter = scenery.clutter(rng, size)
    fabrics = palette.fabrics(colors, people, things + people, len(clutter.depth))
    light = np.array([*rng.uniform((-0.3, -0.25), (0.3, 0.02)), 0.42])
    for _ in range(_ATTEMPTS):
        arrangement = _arrange(rng, request, things, clutter)
        scene = examine(arrangement)
        if _acceptable(scene):
            break
    else:
        raise UserError(
            f"crowd: {people} people of height {request.height} px with overlap "
            f"{request.overlap:.2f} cannot all be seen in {size[1]} x {size[0]} px; "
            "ask for fewer, smaller or less overlapping people."
        )
    image = paint.paint(arrangement.pieces, fabrics, arrangement.seen, backdrop, light)
    grain = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    return scene._replace(image=cv2.subtract(cv2.add(image, grain & 15), grain >> 4))
