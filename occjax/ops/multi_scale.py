"""The multi-scale test of top-down methods: several crops around one person."""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from occjax.ops import frames, sampling
from occjax.types import WIDEST_CROP, Array, Inputs


def mean_on_canvas(
    maps: Sequence[Array],
    to_source: Sequence[Array],
    canvas: Array,
    size: tuple[int, int],
) -> Array:
    """Mean of the maps of several crops, each laid on one canvas, 0 outside its crop.

    The test of MPII and LSP (PyraNet's published code): there the canvas is the source
    image, six scales from 0.8 to 1.3 are pasted, and the highest pixel is the joint.

    Args:
        maps: S maps [B, h, w, J], of any sizes.
        to_source: S matrices [B, 2, 3], map pixel -> source pixel.
        canvas: [B, 2, 3], canvas pixel -> source pixel.
        size: height and width of the canvas.

    Returns:
        [B, *size, J], float32 or wider.
    """
    height, width = size
    pixel = jnp.stack(jnp.meshgrid(jnp.arange(width), jnp.arange(height)), axis=-1)
    pixel = pixel.reshape(1, -1, 2).astype(canvas.dtype)
    point = sampling.affine(pixel, canvas)  # [B, height * width, 2]
    read = [
        sampling.bilinear(
            one.astype(np.promote_types(one.dtype, np.float32)),
            sampling.affine(point, sampling.inverse(matrix)),
        )
        for one, matrix in zip(maps, to_source, strict=True)
    ]
    mean = functools.reduce(jnp.add, read) / len(read)
    return mean.reshape(-1, *size, mean.shape[-1])


def of_crops(
    maps: Sequence[Array], inputs: Inputs, stride: int
) -> tuple[tuple[Array], Array]:
    """`mean_on_canvas` of the crop and its further scales.

    The canvas has the pixels of the crop at scale 1 and reaches as far as the widest
    crop may; in the published test it is the whole source image.

    Args:
        maps: [B, h, w, J] of `inputs.image` and each of `inputs.scaled`.
        inputs: of B crops.
        stride: input pixels per map pixel.

    Returns:
        The canvas [B, H, W, J], as the only stage, and canvas pixel -> source pixel.
    """
    crop = inputs.image.shape[1:3]
    size = (round(WIDEST_CROP * crop[0]), round(WIDEST_CROP * crop[1]))
    corner = [(whole - part) / 2 for whole, part in zip(size, crop, strict=True)]
    moved = jnp.asarray([[1, 0, -corner[1]], [0, 1, -corner[0]]], jnp.float32)
    zoom = jnp.asarray([[stride, 0, 0], [0, stride, 0]], jnp.float32)
    matrices = (inputs.to_source, *inputs.scaled_to_source)
    canvas = frames.then(jnp.broadcast_to(moved, matrices[0].shape), matrices[0])
    of_maps = [frames.then(jnp.broadcast_to(zoom, m.shape), m) for m in matrices]
    return (mean_on_canvas(maps, of_maps, canvas, size),), canvas
