"""Reading feature maps at points, and moving points between images."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from occjax.types import Array


def gather(maps: Array, pixels: Array) -> Array:
    """Values of maps [B, H, W, ...] at integer pixels [B, N, 2] (x, y): [B, N, ...].

    Pixels off the map read its nearest pixel.
    """
    height, width = maps.shape[1:3]
    x = jnp.clip(pixels[..., 0], 0, width - 1)
    y = jnp.clip(pixels[..., 1], 0, height - 1)
    return jax.vmap(lambda one, x, y: one[y, x])(maps, x, y)


def gather_each(maps: Array, pixels: Array) -> Array:
    """Values of maps [B, H, W, K, ...] at pixels [B, K, N, 2] of each of K channels.

    Pixels off the map read its nearest pixel. Returns [B, K, N, ...].
    """
    height, width, channels = maps.shape[1:4]
    x = jnp.clip(pixels[..., 0], 0, width - 1)
    y = jnp.clip(pixels[..., 1], 0, height - 1)
    channel = jnp.arange(channels).reshape(channels, 1)
    return jax.vmap(lambda one, x, y: one[y, x, channel])(maps, x, y)


def scatter_each(values: Array, pixels: Array, size: tuple[int, int]) -> Array:
    """Puts values [B, K, N] at pixels [B, K, N, 2] of K maps: [B, H, W, K], else 0.

    Values are not negative. A pixel that is named twice takes the larger one; a pixel
    off the map counts for the nearest one on it.
    """
    x = jnp.clip(pixels[..., 0], 0, size[1] - 1)
    y = jnp.clip(pixels[..., 1], 0, size[0] - 1)
    channels = values.shape[1]
    channel = jnp.arange(channels).reshape(channels, 1)
    empty = jnp.zeros((*size, channels), values.dtype)
    return jax.vmap(lambda one, x, y: empty.at[y, x, channel].max(one))(values, x, y)


def bilinear(features: Array, points: Array) -> Array:
    """Bilinear samples of features [B, H, W, C] at points [B, N, 2]: [B, N, C].

    The map is zero outside. Weights are float32 or wider, the result has the features'
    dtype. Differentiable in the features and in the points.
    """
    height, width = features.shape[1:3]
    wide = np.promote_types(features.dtype, points.dtype)
    corner = jnp.floor(points)
    total = jnp.zeros((*points.shape[:2], features.shape[-1]), wide)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        pixel = corner + jnp.asarray((dx, dy), points.dtype).reshape(1, 1, 2)
        weight = jnp.prod(1 - jnp.abs(points - pixel), axis=-1)
        x, y = pixel[..., 0], pixel[..., 1]
        within = (x >= 0) & (y >= 0) & (x < width) & (y < height)
        weight = jnp.where(within, weight, 0).astype(wide)
        # clipped before the cast: no integer holds a wild coordinate
        limit = jnp.asarray((width - 1, height - 1), points.dtype).reshape(1, 1, 2)
        value = gather(features, jnp.clip(pixel, 0, limit).astype(jnp.int32))
        total += weight[..., None] * value.astype(wide)
    return total.astype(features.dtype)


def misaligned(points: Array, size: tuple[int, int]) -> Array:
    """Where PINet's published code really samples when asked for points [..., 2].

    It normalises coordinates for aligned corners and samples without: pixel x of W is
    read at x W / (W - 1) - 0.5, half a pixel off at the borders, exact in the middle.
    Published weights were trained with it. The paper has no such shift.
    """
    height, width = size
    if min(size) < 2:
        raise ValueError(f"size: expected a map of 2 pixels or more, got {size}.")
    factor = (width / (width - 1), height / (height - 1))
    return points * jnp.asarray(factor, points.dtype).reshape(_row(points)) - 0.5


def response(maps: Array, points: Array, size: tuple[int, int]) -> Array:
    """Map value at each joint, as PINet's published scoring reads it.

    That code interpolates in the enlarged maps of `_enlarged`, truncating coordinates
    toward zero. So -1 < x < 0 extrapolates the first cell, and outside
    -1 < x < width - 1 (rows alike) the value is 0.

    Args:
        maps: [B, h, w, J].
        points: [B, N, J, 2] in input pixels.
        size: height and width of the input image in pixels.

    Returns:
        [B, N, J].
    """
    limits = jnp.asarray((size[1] - 1, size[0] - 1), points.dtype)
    known = jnp.all((points > -1) & (points < limits.reshape(_row(points))), axis=-1)
    points = jnp.where(known[..., None], points, 0)
    return jnp.where(known, _enlarged(maps, points, size), 0)


def floor_response(maps: Array, points: Array, size: tuple[int, int]) -> Array:
    """Map value at each joint, as DEKR's published scoring reads it.

    The enlarged maps of `_enlarged` are read at the pixel above and left of the joint,
    or at the nearest one on the image. Arguments and result are those of `response`.
    """
    limits = jnp.asarray((size[1] - 1, size[0] - 1), points.dtype)
    points = jnp.clip(jnp.floor(points), 0, limits.reshape(_row(points)))
    return _enlarged(maps, points, size)


def _enlarged(maps: Array, points: Array, size: tuple[int, int]) -> Array:
    """Bilinear values of maps [B, h, w, J] enlarged to the input image, [B, N, J].

    Map pixel u lands on u * stride, and the last rows and columns are repeated. This
    reads the small maps directly. Points [B, N, J, 2] above or left of the image
    extrapolate its first cells.
    """
    height, width = maps.shape[1:3]
    if min(height, width) < 2:
        raise ValueError(f"maps: expected 2 x 2 pixels or more, got {maps.shape}.")
    x = jnp.minimum(points[..., 0] * (width / size[1]), width - 1)
    y = jnp.minimum(points[..., 1] * (height / size[0]), height - 1)
    left = jnp.clip(jnp.floor(x), 0, width - 2)
    top = jnp.clip(jnp.floor(y), 0, height - 2)
    right_share, low_share = x - left, y - top
    value = jnp.zeros_like(x)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        weight = (right_share if dx else 1 - right_share) * (
            low_share if dy else 1 - low_share
        )
        cell = jnp.stack((left + dx, top + dy), axis=-1).astype(jnp.int32)
        at_cell = gather_each(maps, jnp.swapaxes(cell, 1, 2))  # [B, J, N]
        value += weight * jnp.swapaxes(at_cell, 1, 2).astype(x.dtype)
    return value


def to_unit(points: Array, low: Any, high: Any) -> Array:
    """Points [..., 2] in the frame where the corner `low` is -1 and `high` is 1.

    Args:
        points: in pixels.
        low: (x, y), or an array that broadcasts to the points, one corner for each box.
        high: likewise; for a map or image its width and height, so that a point has the
            same coordinates at every stride.
    """
    low, high = (_spread(corner, points) for corner in (low, high))
    return 2 * (points - low) / (high - low) - 1


def from_unit(points: Array, low: Any, high: Any) -> Array:
    """The inverse of `to_unit`.

    With `high` one pixel less than the size of a map it is torch's `align_corners`.
    """
    low, high = (_spread(corner, points) for corner in (low, high))
    return low + (points + 1) / 2 * (high - low)


def affine(points: Array, matrix: Array) -> Array:
    """Applies matrix [B, 2, 3] to points [B, ..., 2].

    Written out, because a matrix product may round coordinates to bfloat16.
    """
    matrix = matrix.reshape(-1, *(1,) * (points.ndim - 2), 2, 3).astype(points.dtype)
    x, y = points[..., :1], points[..., 1:]
    return matrix[..., 0] * x + matrix[..., 1] * y + matrix[..., 2]


def inverse(matrix: Array) -> Array:
    """The affine maps that undo `matrix` [..., 2, 3]."""
    a, b, c, d = (matrix[..., i, j] for i in (0, 1) for j in (0, 1))
    x, y = matrix[..., 0, 2], matrix[..., 1, 2]
    rows = ((d, -b, b * y - d * x), (-c, a, c * x - a * y))
    rows = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
    return rows / determinant(matrix)[..., None, None]


def determinant(matrix: Array) -> Array:
    """Signed area that affine maps [..., 2, 3] give to the unit square: [...]."""
    a, b, c, d = (matrix[..., i, j] for i in (0, 1) for j in (0, 1))
    return a * d - b * c


def _spread(corner: Any, points: Array) -> Array:
    """A corner as an array of the points' rank and dtype."""
    corner = jnp.asarray(corner, points.dtype)
    return corner.reshape((1,) * (points.ndim - corner.ndim) + corner.shape)


def _row(points: Array) -> tuple[int, ...]:
    """Shape that spreads a vector [2] over points [..., 2]."""
    return (1,) * (points.ndim - 1) + (2,)
