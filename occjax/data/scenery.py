"""What stands behind the people, and the things that stand before them."""

import cv2
import numpy as np

from occjax.data import paint, palette

_FAR = 1e6  # depth of the clutter, beyond every person
_COARSE = 12  # cells of the backdrop
_Rng = np.random.Generator


def backdrop(rng: _Rng, colors: _Rng, size: tuple[int, int]) -> np.ndarray:
    """Wall and floor [height, width, 3] uint8: gradients with soft blotches."""
    horizon = rng.uniform(0.35, 0.85)
    mottle = rng.uniform(4.0, 30.0)
    wall, above, floor, front = palette.muted(colors, 4)
    rows = (np.arange(_COARSE) + 0.5)[:, None, None] / _COARSE
    cells = np.where(
        rows < horizon,
        wall + (above - wall) * 0.5 * rows,
        floor + (front - floor) * 0.6 * (rows - horizon),
    )
    cells = cells + colors.uniform(-mottle, mottle, (_COARSE, _COARSE, 1))
    cells = np.clip(cells, 0.0, 255.0).astype(np.uint8)
    return cv2.resize(cells, size[::-1], interpolation=cv2.INTER_LINEAR_EXACT)


def _rectangles(x0, y0, x1, y1) -> np.ndarray:
    """Discs [N, 4, 3] of upright rectangles; their axis points up."""
    discs = np.zeros((len(x0), 4, 3))
    discs[:, [0, 2], 0], discs[:, [1, 3], 0] = x0[:, None], x1[:, None]
    discs[:, :2, 1], discs[:, 2:, 1] = y1[:, None], y0[:, None]
    return discs


def _bars(start: np.ndarray, end: np.ndarray, thick, thin) -> np.ndarray:
    """Discs [N, 4, 3] of round-ended bars from start [N, 2] to end [N, 2]."""
    discs = np.empty((len(start), 4, 3))
    discs[:, :2, :2], discs[:, 2:, :2] = start[:, None], end[:, None]
    discs[:, :2, 2], discs[:, 2:, 2] = (
        np.reshape(thick, (-1, 1)),
        np.reshape(thin, (-1, 1)),
    )
    return discs


def _pieces(discs, depth, owner, fabric, unit, tone, relief) -> paint.Pieces:
    """Pieces without caps; whatever is one number holds for all."""
    count = len(discs)
    return paint.Pieces(
        discs=discs,
        depth=np.broadcast_to(depth, count),
        owner=np.broadcast_to(owner, count),
        fabric=np.broadcast_to(fabric, count),
        unit=np.broadcast_to(unit, count),
        tone=np.broadcast_to(tone, count),
        relief=np.broadcast_to(relief, count),
        cap=np.broadcast_to(paint.NO_CAP, (count, 4)),
    )


def clutter(rng: _Rng, size: tuple[int, int]) -> paint.Pieces:
    """Buildings, furniture, blobs and limb-like sticks behind everybody.

    Piece k takes fabric k.
    """
    height, width = size
    blocks, blobs, sticks = (int(n) for n in rng.integers((1, 0, 2), (6, 5, 9)))
    count = blocks + blobs + sticks
    draw = rng.uniform(size=(count, 5))
    spot = draw[:, :2] * (width, height)
    half, tall = (0.04 + 0.16 * draw[:, 2]) * width, (0.1 + 0.5 * draw[:, 3]) * height
    base = spot[:, 1] + 0.3 * tall
    walls = _rectangles(spot[:, 0] - half, base - tall, spot[:, 0] + half, base)
    turn = 2 * np.pi * draw[:, 2]
    round_ = np.arange(count) < blocks + blobs
    length = np.where(round_, 0.15, 0.08 + 0.22 * draw[:, 3]) * height
    thick = (
        np.where(round_, 0.02 + 0.08 * draw[:, 4], 0.008 + 0.022 * draw[:, 4]) * height
    )
    end = spot + length[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    bars = _bars(spot, end, thick, np.where(round_, 1.0, 0.7) * thick)
    discs = np.concatenate([walls[:blocks], bars[blocks:]])
    relief = np.where(np.arange(count) < blocks, paint.FLAT, paint.CYLINDER)
    depth = _FAR - np.arange(count)
    return _pieces(discs, depth, 0, np.arange(count), 0.6 * height, 1.0, relief)


# Each kind of thing: a function of (rng, x of the foot, y of the foot, height of a
# person there) that returns its discs, far to near, and how many of them are leaves.


def _pole(rng: _Rng, x: float, foot: float, tall: float) -> tuple[np.ndarray, int]:
    thick, lean = rng.uniform((0.018, -0.06), (0.05, 0.06)) * tall
    top = np.array([[x + lean, foot - 1.3 * tall]])
    return _bars(np.array([[x, foot]]), top, thick, thick), 0


def _box(rng: _Rng, x: float, foot: float, tall: float) -> tuple[np.ndarray, int]:
    half, high, shift = rng.uniform((0.1, 0.18, -0.06), (0.24, 0.45, 0.06)) * tall
    top = foot - high
    low_edge, high_edge = np.array([foot, top]), np.array([top, top - 0.1 * tall])
    discs = _rectangles(np.full(2, x - half), high_edge, np.full(2, x + half), low_edge)
    discs[1, 2:, 0] += shift
    return discs, 0


def _plant(rng: _Rng, x: float, foot: float, tall: float) -> tuple[np.ndarray, int]:
    leaves = int(rng.integers(6, 11))
    turn = np.linspace(-1.1, 1.1, leaves) + rng.uniform(-0.12, 0.12, leaves)
    length = rng.uniform(0.25, 0.5, (leaves, 1)) * tall
    root = np.tile([x, foot - 0.14 * tall], (leaves, 1))
    tip = root + length * np.stack([np.sin(turn), -np.cos(turn)], axis=1)
    blades = _bars(root, tip, 0.02 * tall, 0.004 * tall)
    # A leaf is widest in the middle.
    blades[:, 1, :2] = 0.5 * (root + tip)
    blades[:, 1, 2] = 0.034 * tall
    half, rim = np.array([0.08 * tall]), np.array([foot - 0.16 * tall])
    pot = _rectangles(x - half, rim, x + half, np.array([foot]))
    pot[:, :2, 0] += np.array([0.02, -0.02]) * tall
    return np.concatenate([blades, pot]), leaves


def _fence(rng: _Rng, x: float, foot: float, tall: float) -> tuple[np.ndarray, int]:
    slats = int(rng.integers(3, 7))
    step, high = rng.uniform((0.07, 0.25), (0.12, 0.45)) * tall
    half = rng.uniform(0.16, 0.3) * step
    at = x + (np.arange(slats) - 0.5 * (slats - 1)) * step
    bars = _rectangles(
        at - half, np.full(slats, foot - high), at + half, np.full(slats, foot)
    )
    rail = foot - np.array([0.3, 0.75]) * high
    thin, ends = 0.012 * tall, (at[0] - 0.6 * step, at[-1] + 0.6 * step)
    rails = _rectangles(
        np.full(2, ends[0]), rail - thin, np.full(2, ends[1]), rail + thin
    )
    return np.concatenate([rails, bars]), 0


def _umbrella(rng: _Rng, x: float, foot: float, tall: float) -> tuple[np.ndarray, int]:
    radius, rim = rng.uniform((0.16, 0.55), (0.3, 0.95)) * tall
    rim = foot - rim
    turn = np.linspace(np.pi, 2 * np.pi, 6)
    hem = np.linspace(x - radius, x + radius, 6)
    panels = np.zeros((5, 4, 3))
    panels[:, 0, 0], panels[:, 1, 0], panels[:, :2, 1] = hem[:-1], hem[1:], rim
    edge = np.stack([x + radius * np.cos(turn), rim + 0.62 * radius * np.sin(turn)], 1)
    panels[:, 2, :2], panels[:, 3, :2] = edge[:-1], edge[1:]
    handle = np.array([[x, rim + 0.5 * tall]])
    stick = _bars(
        handle, np.array([[x, rim - 0.6 * radius]]), 0.008 * tall, 0.008 * tall
    )
    return np.concatenate([stick, panels]), 0


_KINDS = (_pole, _box, _plant, _fence, _umbrella)


def things(rng: _Rng, spots: np.ndarray, depths: np.ndarray) -> paint.Pieces:
    """Things that may hide people. Thing k is owned by -1 - k.

    It takes fabric 2 k, its leaves take fabric 2 k + 1.

    Args:
        rng: decides kinds and shapes.
        spots: [N, 3] x and y of the foot and the height of a person there, pixels.
        depths: [N].
    """
    groups = [_pieces(np.zeros((0, 4, 3)), 0.0, 0, 0, 1.0, 1.0, paint.FLAT)]
    for number, (spot, depth) in enumerate(zip(spots, depths, strict=True)):
        kind = _KINDS[rng.integers(len(_KINDS))]
        discs, leaves = kind(rng, *spot)
        part = np.arange(len(discs))
        # Later parts of a thing lie before earlier ones, by a hair.
        near = depth - 1e-3 * part
        tone = np.where(
            part < leaves, rng.uniform(0.75, 1.2, len(part)), 0.85 + 0.2 * (part % 2)
        )
        relief = paint.CYLINDER if kind in (_pole, _plant) else paint.FLAT
        fabric = 2 * number + (part < leaves)
        groups.append(_pieces(discs, near, -1 - number, fabric, spot[2], tone, relief))
    return paint.concatenate(groups)


def stools(seats: np.ndarray, units: np.ndarray, owner: int) -> paint.Pieces:
    """A stool under each seat, one fabric each, owned by `owner`, `owner` - 1, ...

    Args:
        seats: [N, 4] x, y of the seat, y of the floor, depth.
        units: [N] pixels per stature.
        owner: of the first, negative.
    """
    x, top, floor, depth = seats.T
    count = len(seats)
    half = 0.075 * units
    top = np.minimum(top, floor - 0.02 * units)
    discs = _rectangles(x - half, top, x + half, floor)
    discs[:, 2:, 2] = 0.015 * units[:, None]
    number = np.arange(count)
    return _pieces(discs, depth, owner - number, number, units, 0.9, paint.CYLINDER)
