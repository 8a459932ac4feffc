"""Painting solid pieces by depth: who is seen at each pixel first, colours after.

A piece is the convex hull of four discs in the image, with one depth. Pieces are
filled from far to near into a map of piece numbers, twice as fine as the image. Only
then is each sample coloured, from the piece seen there alone: what lies behind leaves
no trace. All arithmetic on pixels is exactly rounded (no transcendental function), so
that the same pieces give the same bytes on every machine.
"""

from typing import NamedTuple

import cv2
import numpy as np

FINE = 2  # samples per pixel and direction
_SIDES = 20
_BITS = 4  # fractional bits of polygon corners
_TURNS = np.arange(_SIDES) * (2 * np.pi / _SIDES)
_DIRECTIONS = np.stack([np.cos(_TURNS), np.sin(_TURNS)])  # [2, sides]
_SUPPORT = np.concatenate([_DIRECTIONS, np.ones((1, _SIDES))])  # of a disc, [3, sides]


class Fabrics(NamedTuple):
    """N materials. Colours 0..255, waves in periods per unit of the piece."""

    color: np.ndarray  # [N, 3]
    second: np.ndarray  # [N, 3] colour of the pattern
    pattern: np.ndarray  # [N, 3] strength of hoops, stripes, dots
    wave: np.ndarray  # [N]
    phase: np.ndarray  # [N, 2]
    duty: np.ndarray  # [N] share of a period that the pattern fills


FLAT, CYLINDER, BALL = 0, 1, 2
NO_CAP = np.array([0.0, 0.0, 0.0, 2.0])


class Pieces(NamedTuple):
    """N pieces. Arrays are [N, ...]; lengths in pixels."""

    discs: np.ndarray  # [N, 4, 3] x, y, radius; the axis runs from discs 0, 1 to 2, 3
    depth: np.ndarray  # [N] larger is farther
    owner: np.ndarray  # [N] 0 backdrop, person number from 1, things negative
    fabric: np.ndarray  # [N] row of Fabrics
    unit: np.ndarray  # [N] pixels, the unit of the fabric's waves
    tone: np.ndarray  # [N] brightness
    relief: np.ndarray  # [N] FLAT, CYLINDER or BALL
    cap: np.ndarray  # [N, 4] a ball takes `second` where normal . cap[:3] > cap[3]


def concatenate(groups: list[Pieces]) -> Pieces:
    """All pieces of several groups."""
    return Pieces(*(np.concatenate(fields) for fields in zip(*groups, strict=True)))


def hulls(discs: np.ndarray) -> np.ndarray:
    """Corners [N, 20, 2] of the convex hulls of discs [N, 4, 3]."""
    flat = discs.reshape(-1, 3)
    support = (flat @ _SUPPORT).reshape(-1, 4, _SIDES)
    best = support.argmax(axis=1)  # [N, sides]
    chosen = discs[np.arange(len(discs))[:, None], best]  # [N, sides, 3]
    return chosen[..., :2] + chosen[..., 2:] * _DIRECTIONS.T


def cover(polygons: np.ndarray, depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Numbers of the pieces seen, painted from far to near.

    Args:
        polygons: [N, 20, 2] what `hulls` returned.
        depth: [N].
        size: height and width of the image.

    Returns:
        [FINE * height, FINE * width] int16; 0 where there is none, else index + 1.
    """
    canvas = np.zeros((FINE * size[0], FINE * size[1]), np.int16)
    # A pixel's samples lie a quarter pixel around its centre.
    corners = _fixed_point(FINE * polygons + (FINE - 1) / 2)
    for index in np.argsort(-depth, kind="stable").tolist():
        cv2.fillConvexPoly(canvas, corners[index], index + 1, cv2.LINE_8, _BITS)
    return canvas


def _fixed_point(polygons: np.ndarray) -> np.ndarray:
    return np.rint(polygons * (1 << _BITS)).astype(np.int32)


def silhouettes(
    polygons: np.ndarray, owner: np.ndarray, count: int, size: tuple[int, int]
) -> np.ndarray:
    """Whole shapes [count, height, width] uint8 of owners 1..count, hidden or not."""
    masks = np.zeros((count, *size), np.uint8)
    people = owner > 0
    corners = _fixed_point(polygons[people])
    for polygon, person in zip(corners, owner[people].tolist(), strict=True):
        cv2.fillConvexPoly(masks[person - 1], polygon, 1, cv2.LINE_8, _BITS)
    return masks


def centre(seen: np.ndarray) -> np.ndarray:
    """The one sample of each pixel that labels go by, [height, width]."""
    return seen[::FINE, ::FINE]


def _table(pieces: Pieces, fabrics: Fabrics, light: np.ndarray) -> np.ndarray:
    """What shading needs to know of each piece, [20, N] float32."""
    end = 0.5 * (pieces.discs[:, 2, :2] + pieces.discs[:, 3, :2])
    axis = end - 0.5 * (pieces.discs[:, 0, :2] + pieces.discs[:, 1, :2])
    length = np.sqrt((axis**2).sum(axis=1, keepdims=True))
    axis = np.where(length < 1e-3, (0.0, -1.0), axis / np.maximum(length, 1e-3))
    across = axis[:, ::-1] * (-1.0, 1.0)
    offset = pieces.discs[..., :2] - end[:, None]  # [N, 4, 2]
    half = np.abs((offset * across[:, None]).sum(-1)) + pieces.discs[..., 2]
    cloth = fabrics.color, fabrics.second, fabrics.pattern, fabrics.phase
    color, second, pattern, phase = (field[pieces.fabric] for field in cloth)
    columns = (
        *(end, axis, 1.0 / np.maximum(half.max(axis=1), 0.5)),
        *(across @ light[:2], axis @ light[:2]),
        *(pattern, fabrics.wave[pieces.fabric] / pieces.unit),
        *(phase, fabrics.duty[pieces.fabric]),
        *(color * pieces.tone[:, None], (second - color) * pieces.tone[:, None]),
    )
    return np.column_stack(columns).T.astype(np.float32)


def _share(rows: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Share [M] of the second colour at pixels u along and v across, in pixels."""
    hoops, stripes, dots, wave, start_u, start_v, duty = rows
    u, v = u * wave + start_u, v * wave + start_v
    u -= np.floor(u)
    v -= np.floor(v)
    share = hoops * (u < duty) + stripes * (v < duty)
    u -= 0.5
    v -= 0.5
    return share + dots * (u * u + v * v < 0.1)


def shade(
    pieces: Pieces,
    fabrics: Fabrics,
    ids: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    light: np.ndarray,
) -> np.ndarray:
    """Colours of samples.

    Args:
        pieces: N of them.
        fabrics: what they are made of.
        ids: [M] intp, index of the piece seen at each sample.
        x: [M] float32, where the samples lie.
        y: [M] float32.
        light: [3] strength of light from the right, from below, from the camera.

    Returns:
        [3, M] float32, not clipped.
    """
    rows = _table(pieces, fabrics, light).take(ids, axis=1)  # [20, M]
    ox, oy, ax, ay, inverse, lit, _ = rows[:7]
    x, y = x - ox, y - oy
    u, v = x * ax + y * ay, y * ax - x * ay
    n = np.clip(v * inverse, -1.0, 1.0)
    squared = n * n
    # Patterns run with the surface of a cylinder: arc sine, to second order.
    share = _share(rows[7:14], u, v * (1.0 + 0.25 * squared))
    ambient, frontal = np.float32(1.0 - 0.9 * light[2]), np.float32(light[2])
    glow = ambient + lit * n + frontal * np.sqrt(1.0 - squared)
    relief = pieces.relief.take(ids)
    glow[relief == FLAT] = 1.0
    ball = np.flatnonzero(relief == BALL)
    if len(ball):
        share[ball], light_on = _ball(
            pieces.cap, ids[ball], rows[:7, ball], u[ball], n[ball]
        )
        glow[ball] = ambient + light_on[0] + frontal * light_on[1]
    return (rows[14:17] + rows[17:20] * share) * glow


def _ball(
    cap: np.ndarray, ids: np.ndarray, rows: np.ndarray, u: np.ndarray, n: np.ndarray
):
    """Share of the second colour on balls; light from the side and from the front."""
    _, _, ax, ay, inverse, lit, lit_along = rows
    m = np.clip(u * inverse, -1.0, 1.0)
    out = np.sqrt(np.maximum(1.0 - n * n - m * m, 0.0))
    # The normal in image axes; `out` points to the camera.
    nx, ny = m * ax - n * ay, m * ay + n * ax
    cx, cy, cz, least = cap.T.astype(np.float32).take(ids, axis=1)
    inside = (cx * nx + cy * ny - cz * out > least).astype(np.float32)
    return inside, (lit * n + lit_along * m, out)


def paint(
    pieces: Pieces,
    fabrics: Fabrics,
    seen: np.ndarray,
    backdrop: np.ndarray,
    light: np.ndarray,
) -> np.ndarray:
    """The image [height, width, 3] uint8.

    Args:
        pieces: all of the scene.
        fabrics: what they are made of.
        seen: what `cover` returned.
        backdrop: [height, width, 3] uint8, seen where no piece is.
        light: see shade.
    """
    height, width, _ = backdrop.shape
    views = seen.reshape(height, FINE, width, FINE).transpose(1, 3, 0, 2)
    views = views.reshape(FINE * FINE, -1)  # [samples, pixels]
    mixed = np.any(views[1:] != views[0], axis=0)
    inner, edge = np.flatnonzero((views[0] > 0) & ~mixed), np.flatnonzero(mixed)
    # Pixels within a piece take one sample; others average all of theirs.
    place = np.concatenate([inner, np.tile(edge, FINE * FINE)])
    number = np.concatenate([views[0, inner], views[:, edge].reshape(-1)])
    x, y = np.tile(_steps(width), height), np.repeat(_steps(height), width)
    planes = np.stack(cv2.split(backdrop)).reshape(3, -1)
    # Number 0 stands for the backdrop; its shade is computed and thrown away.
    colors = shade(
        pieces,
        fabrics,
        np.maximum(number - 1, 0).astype(np.intp),
        x.take(place),
        y.take(place),
        light,
    )
    empty = np.flatnonzero(number == 0)
    colors[:, empty] = planes[:, place[empty]]
    colors = np.clip(colors, 0.0, 255.0)
    whole = len(inner)
    planes[:, inner] = np.rint(colors[:, :whole])
    blend = colors[:, whole:].reshape(3, FINE * FINE, -1)
    planes[:, edge] = np.rint(blend.sum(axis=1) * np.float32(1 / FINE**2))
    return cv2.merge(list(planes.reshape(3, height, width)))


def _steps(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32)
