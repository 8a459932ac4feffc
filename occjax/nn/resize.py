"""Changes of a map's resolution without parameters, as torch makes them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.types import Array


def max_pool(x: Array, window: int, pad: int = 0) -> Array:
    """[B, H, W, C] -> half the size: the largest of each window, stride 2.

    Torch's `MaxPool2d(window, 2, pad)`: the border counts as minus infinity.
    """
    padding: Any = ((pad, pad), (pad, pad))  # annotated as a name only
    return nn.max_pool(x, (window, window), (2, 2), padding)


def upsample_nearest(x: Array, factor: int) -> Array:
    """[B, H, W, C] -> [B, H * factor, W * factor, C], each pixel repeated."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(
        x[:, :, None, :, None], (batch, height, factor, width, factor, channels)
    )
    return x.reshape(batch, height * factor, width * factor, channels)


def bilinear_aligned(x: Array, size: tuple[int, int]) -> Array:
    """[B, H, W, C] -> [B, *size, C], bilinear, corner pixels on corner pixels.

    Torch's `align_corners=True`; `jax.image.resize` is its `align_corners=False`.
    """
    if size == x.shape[1:3]:
        return x
    rows, columns = (_weights(*pair) for pair in zip(x.shape[1:3], size, strict=True))
    x = jnp.einsum("ph,bhwc->bpwc", jnp.asarray(rows, x.dtype), x)
    return jnp.einsum("qw,bpwc->bpqc", jnp.asarray(columns, x.dtype), x)


def _weights(old: int, new: int) -> np.ndarray:
    """[new, old]: what each old pixel gives to each new one along an axis."""
    at = np.linspace(0, old - 1, new)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old)))


def pixel_shuffle(x: Array, factor: int = 2) -> Array:
    """[B, H, W, C] -> [B, H * factor, W * factor, C / factor^2] (Shi et al. 2016).

    Channel (c * factor + dy) * factor + dx becomes channel c of the pixel at (dx, dy).
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, channels // factor**2, factor, factor)
    x = x.transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, height * factor, width * factor, -1)


def doubled(x: Array) -> Array:
    """[B, H, W, C] -> [B, 2 H, 2 W, C], bilinear; torch's `align_corners=False`."""
    batch, height, width, channels = x.shape
    return jax.image.resize(x, (batch, 2 * height, 2 * width, channels), "bilinear")
