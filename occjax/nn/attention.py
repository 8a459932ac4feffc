"""ADAM, DAG's discriminative attention (Xu et al., ICASSP 2024, section 2.2)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn.blocks import conv
from occjax.nn.dense import torch_dense
from occjax.nn.heads import Heatmaps
from occjax.nn.resize import doubled
from occjax.nn.torch_names import prefixed
from occjax.types import Array

EVERYBODY = ("before", "after", "none")


def weighed(features: Array, centre: Array, dtype: Any) -> Array:
    """Features [B, N, ..., C] of N people weighed by what stands for each, [B, N, C].

    The layer of equation 1, "weigh", of the module that calls this.
    """
    weight = torch_dense(centre.shape[-1], centre, dtype, "weigh")
    between = (1,) * (features.ndim - 3)
    return features.astype(dtype) * weight.reshape(*weight.shape[:2], *between, -1)


class ChannelAttention(nn.Module):
    """Channels weighed by what the centre of the crop holds (equation 1).

    The centre of a person's crop is mostly the person's own: the channels that speak
    there speak for the target. There is no sigmoid. The published code also multiplies
    the centre by a random number, anew in each pass; that is left out.
    """

    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Maps features [B, h, w, C] to features of the same shape."""
        height, width = features.shape[1:3]
        centre = features[:, height // 2, width // 2]
        return weighed(features[:, None], centre[:, None], self.dtype)[:, 0]


class SpatialAttention(nn.Module):
    """Every pixel sees all others (equation 2): x + gamma V softmax(Q^T K)^T.

    gamma starts at 0, so that nothing changes at first. There is no scaling by the
    square root of the channels. The published code has it, multiplies gamma by 0.01,
    and does not use it.
    """

    narrow: int = 8  # channels of queries and keys are a so-manieth of the features'
    halve: bool = False  # attend at half the size; memory is quartic in it
    dtype: Any = jnp.float32  # computation; the softmax is float32 or wider

    @nn.compact
    def __call__(self, features: Array) -> Array:
        """Maps features [B, h, w, C] to features of the same shape."""
        batch, height, width, channels = features.shape
        x = features.astype(self.dtype)
        if self.halve:
            size = (batch, height // 2, width // 2, channels)
            x = jax.image.resize(x, size, "bilinear")
        few = max(4, channels // self.narrow)
        query, key, value = (
            self._map(x, count, name)
            for count, name in ((few, "query"), (few, "key"), (channels, "value"))
        )
        wide = np.promote_types(self.dtype, np.float32)
        alike = jnp.einsum("bic,bjc->bij", query.astype(wide), key.astype(wide))
        share = jax.nn.softmax(alike, axis=-1).astype(self.dtype)
        seen = jnp.einsum("bij,bjc->bic", share, value).reshape(x.shape)
        if self.halve:
            seen = jax.image.resize(seen, features.shape, "bilinear")
        gamma = self.param("gamma", nn.initializers.zeros, (1,)).astype(self.dtype)
        return features.astype(self.dtype) + gamma.reshape(1, 1, 1, 1) * seen

    def _map(self, x: Array, features: int, name: str) -> Array:
        """A 1 x 1 convolution: [B, h, w, C] to [B, h * w, features]."""
        y = conv(features, 1, dtype=self.dtype, use_bias=True, name=name)(x)
        return y.reshape(y.shape[0], -1, features)


class Attended(NamedTuple):
    """Features of the person of the crop, and maps of everybody in it."""

    features: Array  # [B, h, w, C]
    everybody: Array | None  # [B, h, w, J]


class Discriminate(nn.Module):
    """Tells the person of the crop from others (figure 2): both attentions, joined.

    Heatmaps of everybody's joints, read from the features before the attention as in
    the figure, or after that of the channels as in the code, make the features know of
    all people; the attention then chooses. Without one of the attentions the features
    stand in its place, as in the code, which has none of pixels; without both they stay
    what they are. They start as what they are, too: the convolution that joins them
    lets the attention of pixels through, which starts at the features.

    The code weighs the channels of `early` features, those before the backbone's last
    stage, and reads everybody's maps with a larger kernel.
    """

    joints: int
    channel: bool = True  # attention of channels
    spatial: bool = True  # attention of pixels
    early: bool = False  # channels are weighed of the features before the last stage
    everybody: str = "before"  # one of EVERYBODY: where their maps are read
    kernel: int = 1  # of what reads them
    double: bool = False  # their maps are twice as large as the features
    narrow: int = 8  # see `SpatialAttention`
    halve: bool = False  # see `SpatialAttention`
    dtype: Any = jnp.float32  # computation; heatmaps are float32 or wider

    @nn.compact
    def __call__(self, features: Array, early: Array | None = None) -> Attended:
        """Maps features [B, h, w, C] to those of the person.

        Args:
            features: [B, h, w, C].
            early: [B, h, w, C] those before the backbone's last stage, if any.

        Raises:
            ValueError: there is no such place to read everybody's maps, or `early`
                features are wanted and not there.
        """
        if self.everybody not in EVERYBODY:
            raise ValueError(
                f"everybody: expected one of {', '.join(EVERYBODY)}, "
                f"got {self.everybody!r}."
            )
        weighed = seen = features
        if self.early:
            if early is None or early.shape != features.shape:
                raise ValueError(
                    f"attend.early: expected a backbone that gives features "
                    f"{features.shape} before its last stage too, such as hrnet with "
                    f"early=True, got {None if early is None else early.shape}."
                )
            weighed = early
        if self.channel:
            weighed = ChannelAttention(self.dtype, name="channel")(weighed)
        if self.spatial:
            pixels = SpatialAttention(
                self.narrow, self.halve, self.dtype, name="spatial"
            )
            seen = pixels(features)
        maps = None
        if self.everybody != "none":
            maps = self._everybody(weighed if self.everybody == "after" else features)
        if not self.channel and not self.spatial:
            return Attended(features, maps)
        both = jnp.concatenate((seen, weighed), axis=-1)
        join = conv(
            features.shape[-1],
            1,
            dtype=self.dtype,
            use_bias=True,
            kernel_init=_first_half,
            name="join",
        )
        return Attended(join(both), maps)

    def _everybody(self, x: Array) -> Array:
        """Heatmaps of features [B, h, w, C]."""
        wide = np.promote_types(self.dtype, np.float32)
        head = Heatmaps(self.joints, self.kernel, wide, name="everybody_head")
        if not self.double:
            return head(x)
        # one pixel wide, it may as well come first, where there is less to enlarge
        return head(doubled(x)) if self.kernel > 1 else doubled(head(x))


def _first_half(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """A kernel [1, 1, 2 C, C] that gives the first half of its channels."""
    del key
    return jnp.eye(*shape[2:], dtype=dtype).reshape(shape)


# Names of DAG's code; see torch_names.py.
CHANNEL_NAMES = ((r"atn", "weigh", "linear"),)
SPATIAL_NAMES = (
    ("gamma", "gamma", "keep"),
    (r"(query|key|value)_conv", r"\1", "conv"),
)
ATTEND_NAMES = (
    *prefixed(CHANNEL_NAMES, "channel_att.", "channel"),
    ("concat_predict", "join", "conv"),
    ("parts_predictor", "everybody_head/conv", "conv"),
)
