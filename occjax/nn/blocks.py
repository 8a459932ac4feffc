"""Batch norm as torch defines it, explicitly padded convolutions, residual blocks."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.types import Array

MOMENTUM, EPSILON = 0.9, 1e-5  # torch's defaults; its momentum is 1 - ours
SMALL_NORMAL = nn.initializers.normal(0.001)  # what HRNet starts its kernels from
# Torch's own start values, for convolutions that no batch norm follows.
TORCH_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
Init = Callable[..., Array]


class BatchNorm(nn.Module):
    """Batch norm over all axes but the last, with torch's running statistics.

    The batch is normalised by its biased variance while the running variance takes the
    unbiased one. Statistics are float32 or wider. Under `jit` with a sharded batch they
    are those of the global batch. Running statistics carry no gradient.

    Parameters `scale` and `bias` [C]; `batch_stats` `mean` and `var` [C].
    """

    dtype: Any = jnp.float32  # of the output
    start: float = 1.0  # of the scale

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
        scale = self.param("scale", nn.initializers.constant(self.start), shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        wide = _wide(x)
        scale, bias = scale.astype(wide), bias.astype(wide)
        if not train:
            stats = mean.value.astype(wide), var.value.astype(wide)
            y = _affine(x.astype(wide), *stats, scale, bias)
            return y.astype(self.dtype)
        if mask is not None:
            mask = jnp.broadcast_to(mask, x.shape[:-1])[..., None]
        y, new_mean, new_var = _by_batch(x, scale, bias, mask)
        if not self.is_initializing():
            count = _count(x, mask)
            unbiased = new_var * (count / _at_least_one(count - 1))
            for running, new in ((mean, new_mean), (var, unbiased)):
                old = running.value.astype(wide)
                new = old * MOMENTUM + new * (1 - MOMENTUM)
                if mask is not None:
                    new = jnp.where(count > 0, new, old)  # no row: nothing to learn
                running.value = new.astype(running.value.dtype)
        return y.astype(self.dtype)


# The gradient is written out because autodiff of the formulas below gives half as many
# kernels again, and compiling a network of 305 batch norms is a matter of minutes.
@jax.custom_vjp
def _by_batch(
    x: Array, scale: Array, bias: Array, mask: Array | None
) -> tuple[Array, Array, Array]:
    """Normalises x [..., C] by its own moments; also returns mean and variance.

    Args:
        x: [..., C].
        scale: [C], float32 or wider, which is also the type of the results.
        bias: [C], of that type.
        mask: bool [..., 1], rows that enter the moments; None for all.
    """
    return _by_batch_forward(x, scale, bias, mask)[0]


def _by_batch_forward(
    x: Array, scale: Array, bias: Array, mask: Array | None
) -> tuple[Any, Any]:
    mean, var = _moments(x.astype(scale.dtype), mask)
    y = _affine(x.astype(scale.dtype), mean, var, scale, bias)
    return (y, mean, var), (x, scale, mask, mean, var)


def _by_batch_backward(kept: Any, grads: Any) -> tuple[Any, ...]:
    """With n = (x - mean) / std: dx = scale / std * (g - [row counts] (b + n s) / N).

    Here b = sum g is the gradient of the bias and s = sum g n that of the scale.
    """
    x, scale, mask, mean, var = kept
    grad = grads[0]  # the moments feed the running statistics only
    axes, wide = tuple(range(x.ndim - 1)), x.astype(scale.dtype)
    count = _at_least_one(_count(x, mask))
    inverse = jax.lax.rsqrt(var + EPSILON)
    bias_grad = jnp.sum(grad, axes)
    scale_grad = inverse * (jnp.sum(grad * wide, axes) - mean * bias_grad)
    normal = (wide - _row(mean, x)) * _row(inverse, x)
    shared = _row(bias_grad / count, x) + normal * _row(scale_grad / count, x)
    if mask is not None:
        shared = jnp.where(mask, shared, jnp.zeros_like(shared))
    x_grad = (grad - shared) * _row(inverse, x) * _row(scale, x)
    return x_grad.astype(x.dtype), scale_grad, bias_grad, None


_by_batch.defvjp(_by_batch_forward, _by_batch_backward)


def _affine(x: Array, mean: Array, var: Array, scale: Array, bias: Array) -> Array:
    """(x - mean) / sqrt(var + EPSILON) * scale + bias, per channel."""
    normal = (x - _row(mean, x)) * _row(jax.lax.rsqrt(var + EPSILON), x)
    return normal * _row(scale, x) + _row(bias, x)


def _moments(x: Array, mask: Array | None) -> tuple[Array, Array]:
    """Mean [C] and biased variance [C] of the rows of x [..., C] that count.

    One pass over x: sums of x and of its square, as in every fused batch norm.
    """
    axes = tuple(range(x.ndim - 1))
    if mask is not None:
        x = jnp.where(mask, x, jnp.zeros_like(x))
    count = _at_least_one(_count(x, mask))
    mean = jnp.sum(x, axes) / count
    var = jnp.sum(jnp.square(x), axes) / count - jnp.square(mean)
    return mean, jnp.maximum(var, 0)


def _count(x: Array, mask: Array | None) -> Array | float:
    """How many rows of x [..., C] enter the statistics; a constant without mask."""
    if mask is None:
        return float(math.prod(x.shape[:-1]))
    return jnp.sum(mask, dtype=_wide(x))


def _at_least_one(count: Array | float) -> Array | float:
    return max(count, 1.0) if isinstance(count, float) else jnp.maximum(count, 1)


def _wide(x: Array) -> Any:
    """The type of the statistics of x (strict promotion refuses jnp.promote_types)."""
    return np.promote_types(x.dtype, np.float32)


def _row(vector: Array, like: Array) -> Array:
    """[C] -> [1, ..., 1, C]: rank promotion is explicit here."""
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


def conv(
    features: int,
    kernel: int = 3,
    stride: int = 1,
    *,
    dilation: int = 1,
    dtype: Any = jnp.float32,
    use_bias: bool = False,
    kernel_init: Init = SMALL_NORMAL,
    name: str | None = None,
) -> nn.Conv:
    """Square convolution padded by half its reach on every side, as torch pads it.

    Flax's "SAME" pads an even size with stride 2 on one side only.
    """
    pad = dilation * (kernel - 1) // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        kernel_dilation=(dilation, dilation),
        use_bias=use_bias,
        kernel_init=kernel_init,
        dtype=dtype,
        name=name,
    )


class Deconv(nn.Module):
    """Transposed 4x4 convolution that doubles the size: torch's stride 2, padding 1.

    Row 2m + d of the output sees rows m - 1 + d and m + d of the input, through every
    second row of the kernel. So it is four ordinary 2x2 convolutions, one per parity;
    on a CPU their gradient takes a thirtieth of the time of `lax.conv_transpose`'s.

    Parameter `kernel` [4, 4, features, C]: torch's, with the two sizes in front.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, 2 H, 2 W, features]."""
        batch, height, width, channels = x.shape
        kernel = self.param("kernel", SMALL_NORMAL, (4, 4, self.features, channels))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        kernel = kernel[::-1, ::-1].swapaxes(2, 3)  # as a convolution reads it
        rows = [
            jnp.stack([self._parity(x, kernel, dy, dx) for dx in (0, 1)], axis=3)
            for dy in (0, 1)
        ]
        y = jnp.stack(rows, axis=2)  # [B, H, 2, W, 2, features]
        return y.reshape(batch, 2 * height, 2 * width, self.features)

    def _parity(self, x: Array, kernel: Array, dy: int, dx: int) -> Array:
        """Output pixels (2m + dy, 2n + dx) as [B, H, W, features]."""
        return jax.lax.conv_general_dilated(
            x,
            kernel[dy::2, dx::2],
            window_strides=(1, 1),
            padding=((1 - dy, dy), (1 - dx, dx)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class ConvBN(nn.Module):
    """Convolution without bias, batch norm, and ReLU unless `relu` is off."""

    features: int
    kernel: int = 3
    stride: int = 1
    relu: bool = True
    dilation: int = 1
    dtype: Any = jnp.float32
    kernel_init: Init = SMALL_NORMAL
    start: float = 1.0  # of the norm's scale

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        x = conv(
            self.features,
            self.kernel,
            self.stride,
            dilation=self.dilation,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            name="conv",
        )(x)
        norm = BatchNorm(dtype=self.dtype, start=self.start, name="bn")
        x = norm(x, train=train)
        return nn.relu(x) if self.relu else x


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016, figure 5 left).

    The shortcut is a 1x1 ConvBN where size or channels change.
    """

    features: int  # channels of the output
    stride: int = 1
    dtype: Any = jnp.float32
    kernel_init: Init = SMALL_NORMAL

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        how: Any = {"dtype": self.dtype, "kernel_init": self.kernel_init}
        y = ConvBN(self.features, stride=self.stride, **how, name="conv1")(
            x, train=train
        )
        y = ConvBN(self.features, relu=False, **how, name="conv2")(y, train=train)
        if x.shape != y.shape:
            x = _projected(self.features, self.stride, how)(x, train=train)
        return nn.relu(y + x)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut (He et al. 2016, figure 5 right).

    The stride sits in the 3x3 convolution, as torchvision and HRNet place it; Caffe's
    ResNets have it in the first 1x1.
    """

    features: int  # channels of the output
    stride: int = 1
    dtype: Any = jnp.float32
    expansion: int = 4  # features / channels inside
    caffe: bool = False  # stride in the first convolution
    project: bool = False  # a projected shortcut even where the shapes agree
    excite: bool = False  # squeeze and excitation before the sum
    kernel_init: Init = SMALL_NORMAL

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps [B, H, W, C] to [B, H / stride, W / stride, features]."""
        how: Any = {"dtype": self.dtype, "kernel_init": self.kernel_init}
        inner = self.features // self.expansion
        strides = (self.stride, 1) if self.caffe else (1, self.stride)
        y = ConvBN(inner, 1, strides[0], **how, name="conv1")(x, train=train)
        y = ConvBN(inner, 3, strides[1], **how, name="conv2")(y, train=train)
        y = ConvBN(self.features, 1, relu=False, **how, name="conv3")(y, train=train)
        if self.excite:
            y = SqueezeExcite(dtype=self.dtype, name="excite")(y)
        if self.project or x.shape != y.shape:
            x = _projected(self.features, self.stride, how)(x, train=train)
        return nn.relu(y + x)


def _projected(features: int, stride: int, how: dict[str, Any]) -> ConvBN:
    """What brings a shortcut to the shape of the block's output."""
    return ConvBN(features, 1, stride, relu=False, **how, name="downsample")


class SqueezeExcite(nn.Module):
    """Channel gates from the mean over the map (Hu et al. 2018), without reduction."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Scales each channel of [B, H, W, C] by a gate in (0, 1)."""
        gate = jnp.mean(x, axis=(1, 2), keepdims=True)  # [B, 1, 1, C]
        gate = nn.relu(nn.Dense(x.shape[-1], dtype=self.dtype, name="fc1")(gate))
        gate = nn.Dense(x.shape[-1], dtype=self.dtype, name="fc2")(gate)
        return x * nn.sigmoid(gate)
