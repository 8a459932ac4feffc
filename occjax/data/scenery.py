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
    discs[:, :2, 2], discs[:, 2:, 2] = np.reshape(thick, (-1, 1)), np.reshape(thin, (-1, 1))
    return discs


def _pieces(discs, depth, owner, fabric, unit, tone, relief) -> paint.Pieces:
    """Pieces without caps; whatever is one number holds for all."""
    count = len(discs)
    fields = (np.broadcast_to(f, count) for f in (depth, owner, fabric, unit, tone, relief))
    return paint.Pieces(discs, *fields, np.broadcast_to(paint.NO_CAP, (count, 4)))


def clutter(rng: _Rng, size: tuple[int, int]) -> paint.Pieces:
    """Buildings, furniture, blobs and limb-like sticks behind everybody.

    Piece k takes fabric k.
    """
    height, width = size
    blocks, blobs, sticks = (int(n) for n in rng.integers((1, 0, 2), (6, 5, 9)))
    draw = rng.uniform(size=(blocks + blobs + sticks, 5))
    spot = draw[:, :2] * (width, height)
    x, base = spot[:blocks].T
    half, tall = (0.04, 0.1) * np.ones(2) + draw[:blocks, 2:4] * (0.16, 0.5)
