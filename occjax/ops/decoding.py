"""From heatmaps of one person to joints: the highest pixel, what refines it, the mean.

Every rule takes maps [B, H, W, J] of any float dtype and returns joints [B, J, 2] in
map pixels (x before y) and scores [B, J], both at least float32. A joint whose map is
nowhere positive stands at (0, 0), as in HRNet's published code, and the first of equal
pixels counts, row by row; but the soft-argmax weighs all pixels of any sign.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from occjax.ops import grouping, sampling
from occjax.types import Array

_LOWEST = 1e-10  # DARK's code raises the blurred map to it before the logarithm


def highest_pixel(maps: Array) -> tuple[Array, Array]:
    """The highest pixel and its value, without refinement."""
    maps = _wide(maps)
    pixel, score = _peak(maps)
    return pixel.astype(maps.dtype), score


def quarter_offset(maps: Array, first: int = 2) -> tuple[Array, Array]:
    """A quarter pixel from the highest pixel toward its higher neighbour, per axis.

    Equal neighbours leave the axis alone. Peaks at the border stay where they are.

    Args:
        maps: [B, H, W, J].
        first: lowest column and row that is moved; the highest is the last but one. 2
            in SimpleBaseline, HRNet and AlphaPose (all test 1 < p < size - 1), 1 in
            OPEC-Net's copy of an older AlphaPose and in pytorch-pose.
    """
    maps = _wide(maps)
    pixel, score = _peak(maps)
    step = jnp.where(_between(pixel, maps, first, 1), jnp.sign(_slope(maps, pixel)), 0)
    return pixel.astype(maps.dtype) + step / 4, score


def quarter_offset_always(maps: Array) -> tuple[Array, Array]:
    """A quarter pixel toward the higher neighbour, backward where it is no higher.

    The rule of the stacked hourglass' PyTorch code (princeton-vl): the border moves as
    well, its missing neighbour being the pixel itself.
    """
    maps = _wide(maps)
    pixel, score = _peak(maps)
    step = jnp.where(_slope(maps, pixel) > 0, 0.25, -0.25).astype(maps.dtype)
    found = score > 0
    return pixel.astype(maps.dtype) + jnp.where(found[..., None], step, 0), score


def toward_second(maps: Array, kernel: int = 21) -> tuple[Array, Array]:
    """A quarter pixel from the highest toward the second highest pixel (CPN; OAKS).

    Both are taken from the blurred map, which reaches half a kernel beyond the border,
    as in CPN's published code. The score is the map's own value at the peak.

    Args:
        maps: [B, H, W, J].
        kernel: odd side of the Gaussian blur.
    """
    maps = _wide(maps)
    margin = kernel // 2
    pixels, value = grouping.highest(_blurred(maps, kernel, margin), 2)
    pixels = pixels - margin
    start = pixels[:, :, 0].astype(maps.dtype)
    way = (pixels[:, :, 1] - pixels[:, :, 0]).astype(maps.dtype)
    step = way / (4 * jnp.sqrt(jnp.sum(jnp.square(way), -1, keepdims=True)))
    # the published code blanks the peak to 0: nothing below that is second
    joints = start + jnp.where(value[..., 1:] > 0, step, 0)
    last = jnp.asarray((maps.shape[2] - 1, maps.shape[1] - 1), maps.dtype)
    joints = jnp.clip(joints, 0, last.reshape(1, 1, 2))
    joints = jnp.where(jnp.max(maps, axis=(1, 2))[..., None] > 0, joints, 0)
    at_peak = jnp.round(joints).astype(jnp.int32)
    return joints, sampling.gather_each(maps, at_peak[:, :, None])[..., 0]


def dark(maps: Array, kernel: int) -> tuple[Array, Array]:
    """Distribution-aware decoding (DARK, CVPR 2020, section 3.1): one Newton step.

    The map is blurred, scaled back to its own maximum and taken as the logarithm of a
    Gaussian, whose centre follows from the derivatives at the highest pixel, eq. 5-9.
    Peaks within two pixels of the border stay, and so do those without curvature. The
    step is not limited, as in the published code.

    Args:
        maps: [B, H, W, J].
        kernel: odd side of the blur; published: 11 for targets of sigma 2, 17 for 3.
    """
    maps = _wide(maps)
    pixel, score = _peak(maps)
    blurred = _blurred(maps, kernel, 0)
    top = jnp.max(blurred, axis=(1, 2), keepdims=True)
    scale = score[:, None, None] / jnp.where(top > 0, top, 1)
    log = jnp.log(jnp.maximum(blurred * scale, _LOWEST))
    step = _newton_step(log, pixel)
    step = jnp.where(_between(pixel, maps, 2, 2), step, 0)
    return pixel.astype(maps.dtype) + step, score


def soft_argmax(maps: Array) -> tuple[Array, Array]:
    """The mean pixel under each map's softmax (integral regression, Sun et al. 2018).

    Differentiable everywhere and never off the map. The score is the largest
    probability of a pixel, so it falls as maps grow.
    """
    maps = _wide(maps)
    batch, height, width, joints = maps.shape
    share = jax.nn.softmax(maps.reshape(batch, height * width, joints), axis=1)
    rows, columns = (
        jnp.arange(length, dtype=maps.dtype).reshape(1, length, 1)
        for length in (height, width)
    )
    spread = share.reshape(maps.shape)
    x = jnp.sum(jnp.sum(spread, axis=1) * columns, axis=1)
    y = jnp.sum(jnp.sum(spread, axis=2) * rows, axis=1)
    return jnp.stack((x, y), axis=-1), jnp.max(share, axis=1)


def to_source(joints: Array, matrix: Array, stride: int) -> Array:
    """Map pixels [B, ..., 2] to source pixels.

    Args:
        joints: in map pixels.
        matrix: [B, 2, 3], `Inputs.to_source`.
        stride: input pixels per map pixel.
    """
    return sampling.affine(joints * stride, matrix)


def _wide(maps: Array) -> Array:
    """Maps in float32, or wider if they are."""
    return maps.astype(np.promote_types(maps.dtype, np.float32))


def _peak(maps: Array) -> tuple[Array, Array]:
    """Highest pixel [B, J, 2] int32, (0, 0) where nothing is positive; value [B, J]."""
    pixel, value = grouping.highest(maps, 1)
    return jnp.where(value[..., None] > 0, pixel, 0)[:, :, 0], value[..., 0]


def _between(pixel: Array, maps: Array, first: int, margin: int) -> Array:
    """Whether pixels [B, J, 2] keep off the border on both axes: [B, J, 1] bool."""
    end = jnp.asarray((maps.shape[2] - margin, maps.shape[1] - margin), pixel.dtype)
    free = (pixel >= first) & (pixel < end.reshape(1, 1, 2))
    return jnp.all(free, axis=-1, keepdims=True)


def _around(maps: Array, pixel: Array, steps: Sequence[tuple[int, int]]) -> Array:
    """Values of the maps at pixels [B, J, 2] moved by N steps (dx, dy): [N, B, J]."""
    moved = pixel[:, :, None] + jnp.asarray(steps, pixel.dtype)[None, None]
    return jnp.moveaxis(sampling.gather_each(maps, moved), -1, 0)


def _slope(maps: Array, pixel: Array) -> Array:
    """Next minus previous neighbour along x and y: [B, J, 2]."""
    right, left, low, high = _around(maps, pixel, ((1, 0), (-1, 0), (0, 1), (0, -1)))
    return jnp.stack((right - left, low - high), axis=-1)


def _newton_step(maps: Array, pixel: Array) -> Array:
    """From a pixel to the top of the parabola through it (DARK, eq. 8): [B, J, 2]."""
    gradient = _slope(maps, pixel) / 2
    centre, right, left, low, high = _around(
        maps, pixel, ((0, 0), (2, 0), (-2, 0), (0, 2), (0, -2))
    )
    corners = _around(maps, pixel, ((1, 1), (1, -1), (-1, 1), (-1, -1)))
    xx = (right - 2 * centre + left) / 4
    yy = (low - 2 * centre + high) / 4
    xy = (corners[0] - corners[1] - corners[2] + corners[3]) / 4
    x, y = gradient[..., 0], gradient[..., 1]
    determinant = xx * yy - jnp.square(xy)
    curved = determinant != 0
    step = jnp.stack((xy * y - yy * x, xy * x - xx * y), axis=-1)
    step = step / jnp.where(curved, determinant, 1)[..., None]
    return jnp.where(curved[..., None], step, 0)


def _blurred(maps: Array, kernel: int, margin: int) -> Array:
    """Gaussian blur of maps, zero outside, read `margin` pixels beyond the border too.

    The deviation follows from the kernel's side as in OpenCV. Rows and columns are
    blurred by one matrix product each.

    Returns:
        [B, H + 2 margin, W + 2 margin, J].
    """
    if kernel % 2 == 0 or kernel < 3:
        raise ValueError(f"kernel: expected an odd side of 3 or more, got {kernel}.")
    _, height, width, _ = maps.shape
    down, across = (
        jnp.asarray(_band(length, kernel, margin), maps.dtype)
        for length in (height, width)
    )
    exact = jax.lax.Precision.HIGHEST  # accelerators would round to bfloat16
    maps = jnp.einsum("gh,bhwj->bgwj", down, maps, precision=exact)
    return jnp.einsum("vw,bgwj->bgvj", across, maps, precision=exact)


def _band(length: int, kernel: int, margin: int) -> np.ndarray:
    """Matrix [length + 2 margin, length] that blurs one axis."""
    radius = kernel // 2
    sigma = 0.3 * (radius - 1) + 0.8
    weight = np.exp(-np.square(np.arange(-radius, radius + 1)) / (2 * sigma**2))
    weight = np.concatenate((weight / np.sum(weight), [0]))
    gap = np.arange(-margin, length + margin)[:, None] - np.arange(length)[None]
    return weight[np.where(np.abs(gap) <= radius, gap + radius, -1)]
