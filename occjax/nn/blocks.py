"""Batch norm as torch defines it, explicitly padded convolutions, residual blocks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.types import Array

TORCH_MOMENTUM, TORCH_EPSILON = 0.9, 1e-5
SMALL_NORMAL = nn.initializers.normal(0.001)  # what HRNet starts its kernels from


class BatchNorm(nn.Module):
    """Batch norm over all axes but the last, with torch's running statistics.

    The batch is normalised by its biased variance while the running variance takes the
    unbiased one. Statistics are float32 or wider. Under `jit` with a sharded batch they
    are those of the global batch.

    Parameters `scale` and `bias` [C]; `batch_stats` `mean` and `var` [C].
    """

    dtype: Any = jnp.float32  # of the output; statistics are float32 or wider
    momentum: float = TORCH_MOMENTUM
    epsilon: float = TORCH_EPSILON

    @nn.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """Normalises x [..., C].

        Args:
            x: [..., C].
            train: normalise by this batch and update the running statistics.
            mask: bool, broadcastable to x.shape[:-1]: rows that enter the statistics.
                The others are normalised all the same.
        """
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        wide = np.promote_types(x.dtype, np.float32)  # strict promotion refuses jnp's
        x = x.astype(wide)
        used_mean, used_var = mean.value.astype(wide), var.value.astype(wide)
        if train:
            used_mean, used_var, count = _moments(x, mask)
            if not self.is_initializing():
                unbiased = used_var * (count / jnp.maximum(count - 1, 1))
                self._update(mean, used_mean, count)
                self._update(var, unbiased, count)
        factor = jax.lax.rsqrt(used_var + jnp.asarray(self.epsilon, wide))
        factor = factor * scale.astype(wide)
        shift = bias.astype(wide) - used_mean * factor
        x = x * _as_row(factor, x.ndim) + _as_row(shift, x.ndim)
        return x.astype(self.dtype)

    def _update(self, running: nn.Variable, batch: Array, count: Array) -> None:
        """Moves a running statistic towards the batch, unless no row counted."""
        old = running.value.astype(batch.dtype)
        new = old * self.momentum + jax.lax.stop_gradient(batch) * (1 - self.momentum)
        running.value = jnp.where(count > 0, new, old).astype(running.value.dtype)


def _moments(x: Array, mask: Array | None) -> tuple[Array, Array, Array]:
    """Mean [C], biased variance [C] and number of the rows of x [..., C] that count."""
    axes = tuple(range(x.ndim - 1))
    if mask is None:
        rows = jnp.ones(x.shape[:-1] + (1,), bool)
    else:
        rows = jnp.broadcast_to(mask, x.shape[:-1])[..., None]
    count = jnp.sum(rows, dtype=x.dtype)
    rows_or_one = jnp.maximum(count, 1)
    mean = jnp.sum(x, axes, where=rows) / rows_or_one
    var = jnp.sum(jnp.square(x - _as_row(mean, x.ndim)), axes, where=rows) / rows_or_one
    return mean, var, count


def _as_row(vector: Array, ndim: int) -> Array:
    """[C] -> [1, ..., 1, C]: rank promotion is explicit here."""
    return vector.reshape((1,) * (ndim - 1) + vector.shape)


def conv(
    features: int,
    kernel: int = 3,
    stride: int = 1,
    *,
    dtype: Any = jnp.float32,
    use_bias: bool = False,
    kernel_init: Callable[..., Array] = SMALL_NORMAL,
    name: str | None = None,
) -> nn.Conv:
    """Square convolution padded by (kernel - 1) / 2 on every side, as torch pads it.

    Flax's "SAME" pads an even size with stride 2 on one side only.
    """
    pad = (kernel - 1) // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        use_bias=use_bias,
        kernel_init=kernel_init,
        dtype=dtype,
        name=name,
    )


class ConvBN(nn.Module):
    """Convolution without bias, batch norm, and ReLU unless `relu` is off."""

    features: int
    kernel: int = 3
    stride: int = 1
    relu: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        x = conv(
            self.features, self.kernel, self.stride, dtype=self.dtype, name="conv"
        )(x)
        x = BatchNorm(dtype=self.dtype, name="bn")(x, train=train)
        return nn.relu(x) if self.relu else x


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016, figure 5 left).

    The shortcut is a 1x1 ConvBN where size or channels change.
    """

    features: int  # channels of the output
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        y = ConvBN(self.features, stride=self.stride, dtype=self.dtype, name="conv1")(
            x, train=train
        )
        y = ConvBN(self.features, relu=False, dtype=self.dtype, name="conv2")(
            y, train=train
        )
        return nn.relu(y + _shortcut(x, y, self.stride, self.dtype, train=train))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut (He et al. 2016, figure 5 right).

    The stride sits in the 3x3 convolution, as torchvision and HRNet place it.
    """

    features: int  # channels of the output, four times those inside
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        inner = self.features // 4
        y = ConvBN(inner, kernel=1, dtype=self.dtype, name="conv1")(x, train=train)
        y = ConvBN(inner, stride=self.stride, dtype=self.dtype, name="conv2")(
            y, train=train
        )
        y = ConvBN(self.features, kernel=1, relu=False, dtype=self.dtype, name="conv3")(
            y, train=train
        )
        return nn.relu(y + _shortcut(x, y, self.stride, self.dtype, train=train))


def _shortcut(x: Array, y: Array, stride: int, dtype: Any, *, train: bool) -> Array:
    """Returns x, projected by a 1x1 ConvBN where the shape of y differs."""
    if x.shape == y.shape:
        return x
    project = ConvBN(y.shape[-1], 1, stride, relu=False, dtype=dtype, name="downsample")
    return project(x, train=train)
