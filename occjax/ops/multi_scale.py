"""The multi-scale test of top-down methods: several crops around one person."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from occjax.ops import sampling
from occjax.types import Array


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
    mean = jnp.mean(jnp.stack(read), axis=0)
    return mean.reshape(-1, *size, mean.shape[-1])
