"""Affine maps between source image and network input, exactly the official ones.

Whole images follow PINet, crops of people HRNet and SimpleBaseline.

A matrix is [2, 3] float64 and maps source pixels to input pixels, x before y, both with
pixel centres on integers. Feature maps of stride 4 sit at multiples of four pixels.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from occjax.errors import UserError


def window_matrix(
    center: tuple[float, float],
    side: float,
    rotation: float,
    width: int,
    height: int,
) -> np.ndarray:
    """Maps a square window of the source onto an input of width x height pixels.

    Args:
        center: x, y of the window in source pixels.
        side: length of the window's side in source pixels.
        rotation: degrees about the window's centre, as the training code counts them.
        width: of the input, pixels.
        height: of the input, pixels.

    Returns:
        [2, 3] matrix, source to input (spec of PINet, section 6.2).
    """
    turn = math.radians(rotation)
    cos, sin = math.cos(turn), math.sin(turn)
    linear = np.array([[cos, sin], [-sin, cos]]) @ np.diag([width, height]) / side
    shift = np.array([width, height]) / 2 - linear @ np.asarray(center, np.float64)
    return np.column_stack([linear, shift])


def crop_matrix(
    center: Sequence[float] | np.ndarray,
    side: float,
    rotation: float,
    width: int,
    height: int,
) -> np.ndarray:
    """Maps a turned window around a person onto an input of width x height pixels.

    Args:
        center: x, y of the window in source pixels; comes to (width / 2, height / 2).
        side: width of the window in source pixels; its height follows the input's.
        rotation: degrees about the centre, as the training code counts them.
        width: of the input, pixels.
        height: of the input, pixels.

    Returns:
        [2, 3] matrix, source to input: `get_affine_transform` of HRNet with a scale of
        side / 200.
    """
    turn, factor = math.radians(rotation), width / side
    cos, sin = factor * math.cos(turn), factor * math.sin(turn)
    x, y = map(float, center)
    right, down = width / 2 - (cos * x + sin * y), height / 2 - (cos * y - sin * x)
    return np.array([[cos, sin, right], [-sin, cos, down]])


def window_width(
    size: Sequence[float] | np.ndarray, padding: Sequence[float], aspect: float
) -> float:
    """Width of the least window of an aspect ratio around a padded box.

    Args:
        size: width and height of the box.
        padding: what they are multiplied by.
        aspect: width / height of the window.
    """
    return max(size[0] * padding[0], size[1] * padding[1] * aspect)


def test_canvas(
    height: int, width: int, size: int, multiple: int = 64
) -> tuple[int, int]:
    """Height and width of the test input: short side `size`, long side rounded up.

    The official code rounds to 64 pixels (spec of PINet, section 5.1).
    """
    fitted = int(size / min(height, width) * max(height, width))
    long = max(-(-fitted // multiple) * multiple, size)
    return (size, long) if width >= height else (long, size)


def test_matrix(
    height: int, width: int, canvas: tuple[int, int], scale: float = 1.0
) -> np.ndarray:
    """Uniform scaling about the image centre to the centre of the test canvas.

    Args:
        height: of the source image.
        width: of the source image.
        canvas: height and width of the input at scale 1, from `test_canvas`.
        scale: one of the scales of a multi-scale test.

    Returns:
        [2, 3] matrix, source to input (spec of PINet, sections 5.1 and 5.6).
    """
    # The whole-pixel centre and the factor of the short side are the official ones.
    center = np.array([int(width / 2 + 0.5), int(height / 2 + 0.5)], np.float64)
    factor = min(canvas) / min(height, width)
    shift = np.array([canvas[1], canvas[0]]) / 2 - factor * center
    return scale * np.column_stack([factor * np.eye(2), shift])


def multiple_for(size: int, scales: Sequence[float]) -> int:
    """What the long side of a test input is rounded to, in pixels.

    64 as in the official code from 512 pixels on, 32 below it, where 64 would be
    mostly padding; never so little that a further scale misses the 32 pixels which
    HRNet's coarsest branch divides by.

    Raises:
        UserError: the short side itself is no multiple of 32 at one of the scales.
    """
    for scale in scales:
        if size * scale % 32:
            raise UserError(
                f"data.size {size} at test scale {scale} is {size * scale:g} pixels; "
                "it must be a multiple of 32."
            )
    multiple = 64 if size >= 512 else 32
    while any(multiple * scale % 32 for scale in scales):
        multiple += 32
    return multiple


def test_view(
    image: np.ndarray, size: int, scale: float = 1.0, multiple: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """The official test input of an image [H, W, 3] at one scale, and its matrix."""
    height, width = image.shape[:2]
    canvas = test_canvas(height, width, size, multiple)
    matrix = test_matrix(height, width, canvas, scale)
    rows, columns = (int(side * scale) for side in canvas)
    return warp_image(image, matrix, rows, columns), matrix


def mirror(matrix: np.ndarray, width: int, shift: float = 0.0) -> np.ndarray:
    """The same map followed by x -> width - 1 - shift - x."""
    flipped = matrix.copy()
    flipped[0] = -matrix[0]
    flipped[0, 2] += width - 1 - shift
    return flipped


def invert(matrix: np.ndarray) -> np.ndarray:
    """The map [2, 3] from input back to source pixels."""
    # Plain numbers: NumPy takes longer over so few than decoding a row of an image.
    (a, b, x), (c, d, y) = matrix.tolist()
    det = a * d - b * c
    rows = (d / det, -b / det), (-c / det, a / det)
    return np.array([(p, q, -(p * x + q * y)) for p, q in rows])


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Maps points [..., 2]."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def area_factor(matrix: np.ndarray) -> float:
    """Input pixels per source pixel."""
    (a, b, _), (c, d, _) = matrix.tolist()
    return abs(a * d - b * c)


def warp_image(
    image: np.ndarray,
    matrix: np.ndarray,
    height: int,
    width: int,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Bilinear warp of an image [H, W, ...], into `out` if that is given.

    What lies outside the source is black.
    """
    size = (width, height)
    return cv2.warpAffine(image, matrix, size, dst=out, flags=cv2.INTER_LINEAR)


def covered(matrix: np.ndarray, shape: tuple[int, ...], canvas: tuple[int, int]):
    """Height and width [2] int32 of the input that source pixels reach into."""
    right, bottom = shape[1] - 1, shape[0] - 1
    reach = [
        math.floor(max(0.0, a * right) + max(0.0, b * bottom) + shift) + 1
        for a, b, shift in matrix[::-1].tolist()
    ]
    pairs = zip(reach, canvas, strict=True)
    return np.array([min(max(far, 0), most) for far, most in pairs], np.int32)
