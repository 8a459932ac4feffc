"""OASNet's erasing and reconstruction of occluded features (Zhou et al., ECCV 2020)."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn.blocks import ConvBN, conv
from occjax.types import Array

TOLD = ("map", "classes", "nothing")
CLASSES = 3  # of a joint: not labelled, occluded, visible
_RATES = (2, 4)  # dilations of the reconstruction


class Repaired(NamedTuple):
    """Features with what hides the person erased and filled in."""

    features: Array  # [B, H, W, C], F_R of the paper
    map: Array | None  # [B, H, W] where occluded joints are, not cut to 0..1
    classes: Array | None  # [B, J, 3] logits in place of a map


class EraseReconstruct(nn.Module):
    """Finds what is occluded, erases it there, and fills in from around it.

    HRNet's four branches are read twice, once for the poses and once for the occlusion:
    that meets the parameters that the paper counts. Hourglasses have features of the
    right width already.

    Every switch is an ablation: `erase` off leaves the features as they are, `told`
    says what is predicted of occlusion (classes of each joint teach the features, but
    erase nothing).
    """

    joints: int  # J
    read: int = 256  # channels of the features; 0: those that come are taken
    own: bool = True  # the occlusion is read by a convolution of its own
    inner: int = 128  # channels of the reconstruction
    told: str = "map"  # one of TOLD
    erase: bool = True
    reconstruct: bool = True
    skip: bool = True  # the reconstruction is added to what was left
    dtype: Any = jnp.float32  # computation; maps and logits are float32 or wider

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Repaired:
        """Maps features [B, H, W, F] to repaired ones [B, H, W, C].

        Raises:
            ValueError: `told` is unknown, or there is no map to erase by.
        """
        if self.told not in TOLD:
            raise ValueError(
                f"told: expected one of {', '.join(TOLD)}, got {self.told!r}."
            )
        if self.erase and self.told != "map":
            raise ValueError(f"erase: it needs told='map', got {self.told!r}.")
        features = guide = x
        if self.read:
            features = self._conv(self.read, 1, "read")(x, train=train)
            guide = features
            if self.own and self.told != "nothing":
                guide = self._conv(self.read, 1, "guide")(x, train=train)
        hidden = self._map(guide) if self.told == "map" else None
        classes = self._classes(guide) if self.told == "classes" else None
        if self.erase and hidden is not None:
            kept = 1 - jnp.clip(hidden, 0, 1)  # equation 5
            features = features * kept[..., None].astype(features.dtype)
        if self.reconstruct:
            filled = self._filled(features, train=train)
            features = features + filled if self.skip else filled
        return Repaired(features, hidden, classes)

    def _map(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, H, W]."""
        wide = np.promote_types(self.dtype, np.float32)
        return conv(1, 1, use_bias=True, dtype=wide, name="map")(x)[..., 0]

    def _classes(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, J, 3], from the mean of all places."""
        wide = np.promote_types(self.dtype, np.float32)
        logits = nn.Dense(CLASSES * self.joints, dtype=wide, name="classes")
        return logits(jnp.mean(x.astype(wide), axis=(1, 2))).reshape(
            -1, self.joints, CLASSES
        )

    def _filled(self, x: Array, *, train: bool) -> Array:
        """Two dilated convolutions, which see 13 x 13 pixels, in a bottleneck.

        The paper names the dilations; 256 channels would cost more than all it reports.
        """
        y = self._conv(self.inner, 1, "narrow")(x, train=train)
        for rate in _RATES:
            y = self._conv(self.inner, 3, f"dilated{rate}", rate)(y, train=train)
        return self._conv(x.shape[-1], 1, "widen")(y, train=train)

    def _conv(self, features: int, kernel: int, name: str, rate: int = 1) -> ConvBN:
        return ConvBN(features, kernel, dilation=rate, dtype=self.dtype, name=name)
