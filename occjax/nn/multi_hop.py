"""FGMH-GCN, DAG's feature-guided multi-hop graph network (Xu et al., ICASSP 2024).

Sizes and the order of layers follow its published code, which builds on MM-GCN's.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn.blocks import BatchNorm, conv
from occjax.nn.dense import symmetric_uniform
from occjax.nn.torch_names import prefixed
from occjax.types import Array

MIXES = ("sum", "gated")


class MultiHopConv(nn.Module):
    """sum over hops k of w_k o (X W0 + A_k X W1), plus a bias (equation 3).

    W0 and W1 are shared by all hops; w_k weighs every joint and feature. With the mix
    "gated", as in the code, w_k is the k-th gate times what the gates before it have
    left over: L_k (1 - L_1) ... (1 - L_(k-1)); the gates start at 1, so that the first
    hop starts alone.

    Parameters `kernel` [2, C, features], for the joint itself and for the others;
    `mix1` ... `mixK` [J, features]; `bias` [features].
    """

    features: int
    mix: str = "sum"  # one of MIXES
    still: bool = False  # start with a kernel and a bias of 0
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, x: Array, hops: Array) -> Array:
        """Maps joint features [B, J, C] to [B, J, features].

        Args:
            x: [B, J, C].
            hops: [K, J, J] of the joints 1 to K bones apart, without diagonals.

        Raises:
            ValueError: there is no such mix.
        """
        if self.mix not in MIXES:
            raise ValueError(
                f"mix: expected one of {', '.join(MIXES)}, got {self.mix!r}."
            )
        joints, channels = x.shape[1:]
        xavier = nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", batch_axis=0
        )
        spread, zeros = symmetric_uniform(self.features**-0.5), nn.initializers.zeros
        start, bias_start = (zeros, zeros) if self.still else (xavier, spread)
        shape = (2, channels, self.features)
        kernel = self.param("kernel", start, shape).astype(self.dtype)
        bias = self.param("bias", bias_start, (self.features,)).astype(self.dtype)
        x, hops = x.astype(self.dtype), hops.astype(self.dtype)
        own, others = jnp.einsum("bjc,ocf->objf", x, kernel)
        reached = jnp.einsum("kij,bjf->bkif", hops, others) + own[:, None]
        weight = self._weights(len(hops), joints)
        return jnp.einsum("kif,bkif->bif", weight, reached) + bias.reshape(1, 1, -1)

    def _weights(self, count: int, joints: int) -> Array:
        """w_k of all hops: [K, J, features]."""
        start = 1.0 if self.mix == "gated" else 1 / count
        given = [
            self.param(
                f"mix{k}", nn.initializers.constant(start), (joints, self.features)
            )
            for k in range(1, count + 1)
        ]
        weights = jnp.stack(given).astype(self.dtype)
        if self.mix == "sum":
            return weights
        left = jnp.cumprod(1 - weights, axis=0)
        return weights.at[1:].multiply(left[:-1])


class MultiHopLayer(nn.Module):
    """Multi-hop convolution, batch norm over batch and joints, ReLU."""

    features: int
    mix: str = "sum"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, hops: Array, *, train: bool, mask: Array | None = None
    ) -> Array:
        """Maps joint features [B, J, C] to [B, J, features]; as `MultiHopConv`.

        Args:
            x: [B, J, C].
            hops: [K, J, J].
            train: normalise by this batch.
            mask: [B] bool, the poses that enter its statistics.
        """
        conv = MultiHopConv(self.features, self.mix, dtype=self.dtype, name="conv")
        x = conv(x, hops)
        norm = BatchNorm(dtype=self.dtype, name="bn")
        return nn.relu(norm(x, train=train, mask=_rows(mask)))


class MultiHopBlock(nn.Module):
    """Two layers and an identity, then batch norm and ReLU."""

    mix: str = "sum"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, hops: Array, *, train: bool, mask: Array | None = None
    ) -> Array:
        """Maps joint features [B, J, C] to [B, J, C]; as `MultiHopLayer`."""
        y = x.astype(self.dtype)
        for name in ("layer1", "layer2"):
            layer = MultiHopLayer(x.shape[-1], self.mix, self.dtype, name=name)
            y = layer(y, hops, train=train, mask=mask)
        y = x.astype(self.dtype) + y
        norm = BatchNorm(dtype=self.dtype, name="bn")
        return nn.relu(norm(y, train=train, mask=_rows(mask)))


class NonLocal(nn.Module):
    """Every joint sees all others (Wang et al., CVPR 2018), embedded Gaussian.

    The last batch norm's scale starts at 0, so that nothing changes at first.
    """

    dtype: Any = jnp.float32  # computation; the softmax is float32 or wider

    @nn.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """Maps joint features [B, J, C] to [B, J, C]; `mask` as of `MultiHopLayer`."""
        channels, x = x.shape[-1], x.astype(self.dtype)
        value, first, second = (
            self._map(x, channels // 2, name) for name in ("value", "first", "second")
        )
        wide = np.promote_types(self.dtype, np.float32)
        alike = jnp.einsum("bic,bjc->bij", first.astype(wide), second.astype(wide))
        share = jax.nn.softmax(alike, axis=-1).astype(self.dtype)
        y = jnp.einsum("bij,bjc->bic", share, value)
        norm = BatchNorm(start=0.0, dtype=self.dtype, name="bn")
        back = self._map(y, channels, "back")
        return x + norm(back, train=train, mask=_rows(mask))

    def _map(self, x: Array, features: int, name: str) -> Array:
        """A 1 x 1 convolution: [B, J, C] to [B, J, features]."""
        layer = conv(features, 1, dtype=self.dtype, use_bias=True, name=name)
        return layer(x[:, :, None])[:, :, 0]


class FeatureGuidedGCN(nn.Module):
    """Moves a pose, guided by features at its joints.

    One layer and three blocks read the pose alone, another block and a non-local one
    read it together with the features. The last layer starts at 0, so that the pose is
    what it was at first; the published code starts with offsets of about half the
    frame, which a training must unlearn.
    """

    hidden: int = 128
    blocks: int = 3
    mix: str = "sum"  # one of MIXES
    dtype: Any = jnp.float32  # computation; offsets are float32 or wider

    @nn.compact
    def __call__(
        self,
        pose: Array,
        features: Array,
        hops: Array,
        *,
        train: bool,
        mask: Array | None = None,
    ) -> Array:
        """Offsets [B, J, 2] to add to poses, float32 or wider.

        Args:
            pose: [B, J, 2] in a frame of about -1 to 1.
            features: [B, J, F] of the image at the joints.
            hops: as of `MultiHopConv`.
            train: normalise by this batch.
            mask: [B] bool, the poses that enter its statistics.
        """
        how = {"mix": self.mix, "dtype": self.dtype}
        norm: dict[str, Any] = {"train": train, "mask": mask}
        x = MultiHopLayer(self.hidden, **how, name="input")(pose, hops, **norm)
        for i in range(self.blocks):
            x = MultiHopBlock(**how, name=f"block{i}")(x, hops, **norm)
        x = jnp.concatenate((features.astype(self.dtype), x), axis=-1)
        x = MultiHopBlock(**how, name="guided")(x, hops, **norm)
        x = NonLocal(self.dtype, name="non_local")(x, **norm)
        wide = np.promote_types(self.dtype, np.float32)
        last = MultiHopConv(2, self.mix, still=True, dtype=wide, name="output")
        return last(x, hops)


def _rows(mask: Array | None) -> Array | None:
    """A mask of poses [B] as one of their joints, [B, 1]."""
    return None if mask is None else mask[:, None]


# Names of DAG's code; see torch_names.py.
CONV_NAMES = (
    ("W", "kernel", "keep"),
    (r"Lamda(\d)", r"mix\1", "keep"),
    ("bias", "bias", "keep"),
)
LAYER_NAMES = (*prefixed(CONV_NAMES, "gconv.", "conv"), ("bn", "bn", "norm"))
BLOCK_NAMES = (
    *prefixed(LAYER_NAMES, "gconv1.", "layer1"),
    *prefixed(LAYER_NAMES, "gconv2.", "layer2"),
    ("bn", "bn", "norm"),
)
NON_LOCAL_NAMES = (
    ("g", "value", "conv"),
    ("theta", "first", "conv"),
    ("phi", "second", "conv"),
    (r"W\.0", "back", "conv"),
    (r"W\.1", "bn", "norm"),
)
GCN_NAMES = (
    *prefixed(LAYER_NAMES, "gconv_input.0.", "input"),
    *(
        row
        for i in range(3)
        for row in prefixed(BLOCK_NAMES, f"gconv_layers.{i}.", f"block{i}")
    ),
    *prefixed(BLOCK_NAMES, "gconv_layer_last.", "guided"),
    *prefixed(NON_LOCAL_NAMES, "non_local.", "non_local"),
    *prefixed(CONV_NAMES, "gconv_output.", "output"),
)
