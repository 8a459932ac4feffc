"""KS-net: how well each joint is located, told from its heatmap (OAKS, section 3.2)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn import backbone as build_backbone
from occjax.nn.dense import Perceptron
from occjax.types import Array


class KSNet(nn.Module):
    """A backbone that reads heatmaps as an image, then two hidden layers.

    The paper prefers ResNet-18 among two convolutions, AlexNet, VGG-19, GoogLeNet,
    ResNet-18 and ResNet-50 (Table 5). Parameters: `trunk` and `layers`.
    """

    joints: int
    backbone: Mapping[str, Any]  # name of a file of occjax/nn, and its fields
    hidden: int = 1024  # units of each hidden layer
    pool: bool = True  # mean of the last map instead of all of it
    dtype: Any = jnp.float32  # computation; the result is float32 or wider

    def setup(self) -> None:
        """Builds the backbone and the layers."""
        self.trunk = build_backbone(**self.backbone, dtype=self.dtype)
        self.layers = Perceptron(self.hidden, self.joints, self.dtype)

    def __call__(self, heatmaps: Array, *, train: bool) -> Array:
        """Maps heatmaps [B, h, w, J] with peaks near 1 to similarities [B, J], 0..1."""
        x = self.trunk(heatmaps, train=train)
        wide = np.promote_types(x.dtype, np.float32)
        if self.pool:
            x = jnp.mean(x.astype(wide), axis=(1, 2))
        return jax.nn.sigmoid(self.layers(x.reshape(x.shape[0], -1)))
