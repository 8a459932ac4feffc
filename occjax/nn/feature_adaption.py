"""Cascaded feature adaption (OPEC-Net): a decoder's maps made fit to be sampled."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from occjax.nn.blocks import conv
from occjax.nn.dense import symmetric_uniform
from occjax.types import Array

_KAIMING = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_KAIMING_UNIFORM = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


class Adapted(NamedTuple):
    """What the module returns."""

    maps: tuple[Array, ...]  # E1, E2, E3: sizes of the inputs, channels `widths`
    heatmaps: Array  # [B, H, W, joints] of the finest size


class FeatureAdaption(nn.Module):
    """Adapts maps from coarse to fine, each fused with the one before; heatmaps last.

    No batch norm. A map whose channels differ from those of the upsampled one first
    passes a 1x1 convolution, which the published widths never need: it serves decoders
    of constant width, as SimpleBaseline's.
    """

    joints: int
    widths: tuple[int, ...] = (256, 128, 128)  # channels of E1, E2, E3
    fusion: bool = True  # False: each map adapted by itself (Table 6 e)
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, maps: Sequence[Array]) -> Adapted:
        """Adapts maps [B, H, W, C], [B, 2H, 2W, C'], ...

        Args:
            maps: the coarsest first, each of twice the size of the one before.

        Raises:
            ValueError: not one map for each width, or a size that is not doubled.
        """
        if len(maps) != len(self.widths):
            raise ValueError(f"maps: expected {len(self.widths)}, got {len(maps)}.")
        adapted: list[Array] = []
        for i, (x, width) in enumerate(zip(maps, self.widths, strict=True), start=1):
            if adapted and self.fusion:
                _check_doubled(adapted[-1], x)
                x = self._fused(adapted[-1], x, i - 1)
            adapted.append(nn.relu(self._conv(width, f"conv{i}")(x)))
        heatmaps = self._conv(self.joints, "heatmaps")(adapted[-1])
        return Adapted(tuple(adapted), heatmaps)

    def _conv(self, features: int, name: str, kernel: int = 3) -> nn.Conv:
        return conv(
            features,
            kernel,
            dtype=self.dtype,
            use_bias=True,
            kernel_init=_KAIMING,
            name=name,
        )

    def _fused(self, coarse: Array, fine: Array, place: int) -> Array:
        """The fusion block: the upsampled map is gated, the other added as it is."""
        channels = coarse.shape[-1]
        up = nn.relu(Upsample(channels, self.dtype, name=f"up{place}")(coarse))
        if fine.shape[-1] != channels:
            fine = self._conv(channels, f"project{place}", kernel=1)(fine)
        return Fusion(self.dtype, name=f"fusion{place}")(up, fine)


class Upsample(nn.Module):
    """Transposed 2x2 convolution of stride 2: each pixel becomes four, none overlap.

    Parameters `kernel` [2, 2, features, C] and `bias` [features].
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, H, W, C] to [B, 2 H, 2 W, features]."""
        batch, height, width, channels = x.shape
        # torch's default start takes the fan in from the kernel's second axis
        spread = symmetric_uniform((4 * self.features) ** -0.5)
        kernel = self.param("kernel", spread, (2, 2, self.features, channels))
        bias = self.param("bias", spread, (self.features,)).astype(self.dtype)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = jnp.einsum("bhwc,yxfc->bhywxf", x, kernel)
        y = y.reshape(batch, 2 * height, 2 * width, self.features)
        return y + bias.reshape(1, 1, 1, -1)


class Fusion(nn.Module):
    """U g + F, with a gate g in (0, 1) per channel from the means of U and F."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, up: Array, fine: Array) -> Array:
        """Fuses maps U and F of one shape [B, H, W, C]."""
        fine = fine.astype(self.dtype)
        mean = jnp.mean(jnp.concatenate((up, fine), axis=-1), axis=(1, 2))
        gate = nn.relu(self._dense(up.shape[-1], "fc1")(mean))
        gate = nn.sigmoid(self._dense(up.shape[-1], "fc2")(gate))
        return up * gate[:, None, None] + fine

    def _dense(self, features: int, name: str) -> nn.Dense:
        return nn.Dense(
            features, dtype=self.dtype, kernel_init=_KAIMING_UNIFORM, name=name
        )


def _check_doubled(coarse: Array, fine: Array) -> None:
    if fine.shape[1:3] != (2 * coarse.shape[1], 2 * coarse.shape[2]):
        raise ValueError(
            f"maps: expected twice {coarse.shape[1:3]} pixels, got {fine.shape[1:3]}."
        )


# Names of OPEC-Net's code; see torch_names.py.
TORCH_NAMES = (
    (r"level_conv(\d)_1", r"conv\1", "conv"),
    (r"level_conv(\d)_up", r"up\1", "conv"),
    (r"attention_conv(\d)_up_a\.channel_attention\.fc\.0", r"fusion\1/fc1", "linear"),
    (r"attention_conv(\d)_up_a\.channel_attention\.fc\.2", r"fusion\1/fc2", "linear"),
    ("level_conv_out", "heatmaps", "conv"),
)
