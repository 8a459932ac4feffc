"""Normalisation of images by the channel statistics of ImageNet."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from occjax.types import Array

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB, of pixels in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(
    image: Array,
    dtype: Any = jnp.float32,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Array:
    """(image / 255 - mean) / std per channel.

    Args:
        image: [..., 3] RGB in 0..255, uint8 or float.
        dtype: of the result; the arithmetic is float32 or wider.
        mean: of each channel, in [0, 1].
        std: of each channel.

    Raises:
        ValueError: the last axis is not 3 channels.
    """
    if image.shape[-1] != 3:
        raise ValueError(f"image: expected [..., 3] RGB, got {image.shape}.")
    wide = np.promote_types(dtype, np.float32)
    channels = (1,) * (image.ndim - 1) + (3,)
    shift, unit = (jnp.asarray(x, wide).reshape(channels) for x in (mean, std))
    return ((image.astype(wide) / 255 - shift) / unit).astype(dtype)
