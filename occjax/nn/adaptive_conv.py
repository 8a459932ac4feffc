"""DEKR's adaptive convolution (Geng et al., CVPR 2021, section 3.2), for all joints.

A 3x3 convolution that looks where each pixel says: its nine taps are moved by a matrix
and a translation that two ordinary convolutions predict. Each joint has weights of its
own. Maps have the joints in front, [J, B, H, W, C]: a loop over them compiles the
sampling once, and keeps the samples of one joint at a time.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn.blocks import SMALL_NORMAL, BatchNorm
from occjax.types import Array

TAPS = np.asarray([(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)], np.float32)  # [9,2]
_01 = (0, 1)
_ZEROS = nn.initializers.zeros
# torch's default, U(+-1 / sqrt(fan in)): DEKR leaves its deformable convolutions at it
_TORCH_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Weights(nn.Module):
    """Parameters `kernel` [size, size, C, features] and, if there is one, `bias`."""

    size: int
    channels: int  # C
    features: int
    kernel_init: Any = SMALL_NORMAL
    use_bias: bool = True

    @nn.compact
    def __call__(self) -> list[Array]:
        """The parameters themselves."""
        shape = (self.size, self.size, self.channels, self.features)
        found = [self.param("kernel", self.kernel_init, shape)]
        if self.use_bias:
            found.append(self.param("bias", _ZEROS, (self.features,)))
        return found


def stacked(layers: list[Weights]) -> list[Array]:
    """Parameters of J equal layers with the joints in front, [J, ...]."""
    return [jnp.stack(arrays) for arrays in zip(*(x() for x in layers), strict=True)]


class AdaptiveBlock(nn.Module):
    """relu(x + batch_norm(adaptive convolution of x)).

    At the start matrix and translation are 0: all taps read the pixel itself.

    Parameters of joint j: `matrix{j}`, `translation{j}`, `conv{j}` and `bn{j}`.
    """

    dtype: Any = jnp.float32  # of features; positions are float32 or wider

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps features [J, B, H, W, C] to [J, B, H, W, C]."""
        joints, channels = x.shape[0], x.shape[-1]

        def layers(name: str, features: int, size: int = 3, **fields: Any):
            return stacked(
                [
                    Weights(size, channels, features, name=f"{name}{j}", **fields)
                    for j in range(joints)
                ]
            )

        matrix = layers("matrix", 4, kernel_init=_ZEROS)
        translation = layers("translation", 2, kernel_init=_ZEROS)
        (kernel,) = layers("conv", channels, kernel_init=_TORCH_UNIFORM, use_bias=False)
        x = x.astype(self.dtype)
        where = [
            jnp.concatenate(pair, -1) for pair in zip(matrix, translation, strict=True)
        ]

        def one(args: list[Array]) -> Array:
            x, where_kernel, where_bias, kernel = args
            points = tap_points(x, where_kernel, where_bias)
            return deform_conv(x, points, kernel.astype(x.dtype))

        # samples are nine times the features: taken again in the backward pass
        y = jax.lax.map(jax.checkpoint(one), [x, *where, kernel])
        normed = [
            BatchNorm(dtype=self.dtype, name=f"bn{j}")(y[j], train=train)
            for j in range(joints)
        ]
        return nn.relu(x + jnp.stack(normed))


def tap_points(x: Array, kernel: Array, bias: Array) -> Array:
    """Where the taps of each pixel read: pixel + T r + t for each r of TAPS.

    Args:
        x: features [B, H, W, C].
        kernel: [3, 3, C, 6], predicts T and t: rows of T for y, then x; t as (y, x).
        bias: [6].

    Returns:
        Points [B, H, W, 9, 2], x before y, float32 or wider.
    """
    wide = np.promote_types(x.dtype, np.float32)
    predicted = jax.lax.conv_general_dilated(
        x.astype(wide),
        kernel.astype(wide),
        window_strides=(1, 1),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ) + bias.astype(wide).reshape(1, 1, 1, 6)
    yy, yx, xy, xx, ty, tx = jnp.split(predicted, 6, axis=-1)  # [B, H, W, 1] each
    rx, ry = (jnp.asarray(r, wide).reshape(1, 1, 1, 9) for r in TAPS.T)
    _, height, width, _ = x.shape
    column = jnp.arange(width, dtype=wide).reshape(1, 1, width, 1)
    row = jnp.arange(height, dtype=wide).reshape(1, height, 1, 1)
    return jnp.stack(
        (column + (xy * ry + xx * rx + tx), row + (yy * ry + yx * rx + ty)), axis=-1
    )


def deform_conv(x: Array, points: Array, kernel: Array) -> Array:
    """A convolution whose taps are read, bilinearly, at points of their own.

    The features are zero outside. With points = pixel + TAPS it is an ordinary
    convolution.

    Args:
        x: [B, H, W, C].
        points: [B, H, W, 9, 2], x before y.
        kernel: [3, 3, C, F].

    Returns:
        [B, H, W, F].
    """
    batch, height, width, taps, _ = points.shape
    sampled = _samples(x, points.reshape(batch, height * width * taps, 2))
    sampled = sampled.reshape(batch, height, width, -1)  # [B, H, W, 9 C]
    return sampled @ kernel.reshape(-1, kernel.shape[-1])


def _samples(x: Array, points: Array) -> Array:
    """Bilinear samples of x [B, H, W, C] at points [B, N, 2], zero outside: [B, N, C].

    The four pixels around a point are read as one row of a table. Its gradient adds
    rows instead of pixels, which are four times as many. The slope at a pixel itself is
    the one to its right and below, as in torch: at the start every tap is there.
    """
    batch, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    cells = [padded[:, i : i + height + 1, j : j + width + 1] for i in _01 for j in _01]
    table = jnp.concatenate(cells, axis=-1).reshape(batch, -1, 4 * channels)
    limit = jnp.asarray((width, height), points.dtype).reshape(1, 1, 2)
    points = jnp.clip(points, -1, limit)  # there everything is 0
    corner = jnp.minimum(jnp.floor(points), limit - 1)
    share = points - corner
    column, row = jnp.moveaxis(corner.astype(jnp.int32) + 1, -1, 0)
    found = jax.vmap(lambda rows, index: rows.at[index].get(mode="promise_in_bounds"))(
        table, row * (width + 1) + column
    )
    right, low = share[..., :1], share[..., 1:]
    weight = jnp.concatenate(
        ((1 - right) * (1 - low), right * (1 - low), (1 - right) * low, right * low), -1
    )
    found = found.reshape(batch, -1, 4, channels)
    wide = np.promote_types(x.dtype, points.dtype)
    total = jnp.sum(found.astype(wide) * weight[..., None].astype(wide), axis=2)
    return total.astype(x.dtype)


class JointConv(nn.Module):
    """A 1x1 convolution with bias for each joint: parameters `joint{j}`."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [J, B, H, W, C] to [J, B, H, W, features]."""
        joints, channels = x.shape[0], x.shape[-1]
        kernel, bias = stacked(
            [
                Weights(1, channels, self.features, name=f"joint{j}")
                for j in range(joints)
            ]
        )
        kernel, bias = kernel[:, 0, 0].astype(self.dtype), bias.astype(self.dtype)
        y = jnp.einsum("jbhwc,jcf->jbhwf", x.astype(self.dtype), kernel)
        return y + bias.reshape(joints, 1, 1, 1, self.features)


# Names of the official code, joint, block, layer; see torch_names.py. The blocks are
# called `adapt_0` and on. The grid of taps is a constant that the file repeats.
TORCH_NAMES = (
    (r"(\d+)\.(\d)\.transform_matrix_conv", r"adapt_\2/matrix\1", "conv"),
    (r"(\d+)\.(\d)\.translation_conv", r"adapt_\2/translation\1", "conv"),
    (r"(\d+)\.(\d)\.adapt_conv", r"adapt_\2/conv\1", "conv"),
    (r"(\d+)\.(\d)\.bn", r"adapt_\2/bn\1", "norm"),
    (r"\d+\.\d\.regular_matrix", "", "drop"),
)
