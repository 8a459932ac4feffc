"""A transformer whose queries are joints: Poseur's decoder (Mao et al., ECCV 2022).

Each joint looks at the others, then at features around the point where it is thought to
be, and moves that point, as boxes move in Deformable DETR (Zhu et al., ICLR 2021).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn.blocks import ConvBN
from occjax.nn.residual_flow import deviation
from occjax.ops import sampling
from occjax.types import Array

_WAVES = (0.5, 8)  # across the frame, the slowest and the fastest of an encoding


class Guess(NamedTuple):
    """Where joints are, in the frame of `sampling.to_unit`: the map is from -1 to 1."""

    mean: Array  # [B, J, 2] float32 or wider
    spread: Array  # [B, J, 2] deviations within 0..1


def guess(x: Array, start: Array, name: str) -> Guess:
    """A linear layer, `name` of the module that calls this, that moves points.

    Args:
        x: [..., J, C], or [..., C] for all joints together.
        start: [..., J, 2] points.
        name: of the layer.
    """
    joints = start.shape[-2] if x.ndim < start.ndim else 1
    small = nn.initializers.normal(0.01)  # near the start, with deviations of one half
    layer = nn.Dense(4 * joints, dtype=start.dtype, kernel_init=small, name=name)
    told = layer(x).reshape(*start.shape[:-1], 4)
    return Guess(start + told[..., :2], deviation(told[..., 2:]))


class Laterals(nn.Module):
    """Maps of a backbone brought to one number of channels."""

    features: int
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, levels: Sequence[Array], *, train: bool) -> list[Array]:
        """Maps levels [B, h, w, C] to levels [B, h, w, features]."""
        layers = (
            ConvBN(self.features, 1, relu=False, dtype=self.dtype, name=f"level{i}")
            for i in range(len(levels))
        )
        return [layer(x, train=train) for layer, x in zip(layers, levels, strict=True)]


class DeformableAttention(nn.Module):
    """Attention to learnt offsets around a point on every level (Zhu et al., eq. 3).

    Each head samples its own channels, and the sum is mapped linearly. Poseur samples
    before it maps, as it is the same for few queries and much cheaper.
    """

    heads: int
    points: int  # of a head on a level
    dtype: Any = jnp.float32  # computation; points and softmax are float32 or wider

    @nn.compact
    def __call__(self, query: Array, levels: Sequence[Array], where: Array) -> Array:
        """What queries [B, J, C] see around points [B, J, 2]: [B, J, C].

        Args:
            query: [B, J, C].
            levels: [B, h, w, C] each.
            where: in the frame of `Guess`, float32 or wider.
        """
        batch, joints, channels = query.shape
        count = (batch, joints, len(levels), self.heads, self.points)
        flat = int(np.prod(count[2:]))
        zeros, wide = nn.initializers.zeros, where.dtype
        offsets = nn.Dense(
            *(2 * flat, True, wide),
            kernel_init=zeros,
            bias_init=self._ring,
            name="offsets",
        )(query)
        offsets = offsets.reshape(*count, 2)  # pixels of the level
        share = nn.Dense(flat, dtype=wide, kernel_init=zeros, name="share")(query)
        share = jax.nn.softmax(share.reshape(count), axis=(2, 4))
        seen = jnp.zeros((batch, joints, self.heads, channels // self.heads), wide)
        for i, level in enumerate(levels):
            size = level.shape[2:0:-1]
            centre = sampling.from_unit(where, (0, 0), size)
            points = centre[:, :, None, None] + offsets[:, :, i]
            found = self._sampled(level, points).astype(wide)
            seen += jnp.einsum("bjmk,bmjkd->bjmd", share[:, :, i], found)
        seen = seen.reshape(query.shape)
        return nn.Dense(channels, dtype=self.dtype, name="output")(seen)

    def _sampled(self, level: Array, points: Array) -> Array:
        """Each head's channels of [B, h, w, C] at its points: [B, M, J, K, D].

        Args:
            level: [B, h, w, C].
            points: [B, J, M, K, 2], pixels of the level.
        """
        batch, height, width, _ = level.shape
        _, joints, heads, count, _ = points.shape
        values = level.reshape(batch, height, width, heads, -1)
        values = jnp.moveaxis(values, 3, 1).reshape(batch * heads, height, width, -1)
        points = jnp.moveaxis(points, 2, 1).reshape(batch * heads, joints * count, 2)
        found = sampling.bilinear(values, points)
        return found.reshape(batch, heads, joints, count, -1)

    def _ring(self, key: Array, shape: tuple[int, ...], dtype: Any, *_: Any) -> Array:
        """Start of the offsets: a direction for each head, farther at each point."""
        angle = 2 * np.pi * np.arange(self.heads) / self.heads
        unit = np.stack((np.cos(angle), np.sin(angle)), axis=-1)  # [M, 2]
        ring = unit[:, None] * np.arange(1, self.points + 1)[:, None]  # [M, K, 2]
        levels = shape[0] // ring.size
        return jnp.asarray(np.tile(ring.ravel(), levels), dtype)


class DecoderLayer(nn.Module):
    """Attention among joints, attention to the features, two dense layers.

    Each is added to what it got, and normalised.
    """

    heads: int
    points: int
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, query: Array, levels: Sequence[Array], where: Array) -> Array:
        """Maps queries [B, J, C] to queries; arguments of `DeformableAttention`."""
        # In where's dtype, for the softmax. Biases of keys would have no gradient.
        among = nn.MultiHeadDotProductAttention(
            self.heads, dtype=where.dtype, use_bias=False, name="among"
        )
        others = among(query).astype(query.dtype)
        query = self._norm("among_norm", query + others)
        look = DeformableAttention(self.heads, self.points, self.dtype, name="look")
        query = self._norm("look_norm", query + look(query, levels, where))
        channels = query.shape[-1]
        inner = nn.Dense(4 * channels, dtype=self.dtype, name="inner")(query)
        outer = nn.Dense(channels, dtype=self.dtype, name="outer")(nn.relu(inner))
        return self._norm("dense_norm", query + outer)

    def _norm(self, name: str, x: Array) -> Array:
        wide = np.promote_types(self.dtype, np.float32)
        return nn.LayerNorm(dtype=wide, name=name)(x.astype(wide)).astype(self.dtype)


class QueryDecoder(nn.Module):
    """Moves the joints of a pose, layer by layer."""

    layers: int = 3
    heads: int = 4
    points: int = 4  # that a head looks at on a level
    dtype: Any = jnp.float32  # computation; points are float32 or wider

    @nn.compact
    def __call__(self, levels: Sequence[Array], start: Array) -> tuple[Guess, ...]:
        """Poses of each layer, the last one best; none teaches those before it.

        Args:
            levels: [B, h, w, C] each, the finest last.
            start: [B, J, 2], in the frame of `Guess`.

        Raises:
            ValueError: C is no multiple of 4 and of the heads.
        """
        channels = levels[-1].shape[-1]
        if channels % 4 or channels % self.heads:
            raise ValueError(
                f"features: expected a multiple of 4 and of heads={self.heads}, "
                f"got {channels}."
            )
        where = jax.lax.stop_gradient(start)
        query = self._queries(levels[-1], where)
        found = []
        for i in range(self.layers):
            layer = DecoderLayer(self.heads, self.points, self.dtype, name=f"layer{i}")
            query = layer(query, levels, where)
            found.append(guess(query, where, f"move{i}"))
            where = jax.lax.stop_gradient(found[-1].mean)
        return tuple(found)

    def _queries(self, finest: Array, where: Array) -> Array:
        """[B, J, C]: which joint it is, where it may be, and what can be seen there."""
        joints, channels = where.shape[1], finest.shape[-1]
        which = self.param("joints", nn.initializers.normal(1.0), (joints, channels))
        place = nn.Dense(channels, dtype=self.dtype, name="place")
        pixels = sampling.from_unit(where, (0, 0), finest.shape[2:0:-1])
        seen = sampling.bilinear(finest, pixels).astype(self.dtype)
        return which.astype(self.dtype)[None] + place(waves(where, channels)) + seen


def waves(points: Array, channels: int) -> Array:
    """Points [..., 2] as sines and cosines of many lengths: [..., channels]."""
    rates = np.pi * np.geomspace(*_WAVES, channels // 4)
    rates = jnp.asarray(rates, points.dtype)
    angles = points[..., None] * rates.reshape((1,) * points.ndim + (-1,))
    both = jnp.concatenate((jnp.sin(angles), jnp.cos(angles)), axis=-1)
    return both.reshape(*points.shape[:-1], channels)
