"""The visibility subnet of OA-HPE (Zhao et al. 2020, section 3.1)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from occjax.nn.blocks import ConvBN
from occjax.nn.dense import Perceptron
from occjax.types import Array


class LabelHead(nn.Module):
    """Tells from the deepest features of a crop which joints would be labelled.

    A 1 x 1 convolution and two hidden layers; the paper gives neither its channels nor
    whether the map is flattened.
    """

    joints: int
    channels: int = 256  # of the 1 x 1 convolution
    hidden: int = 1024  # units of each hidden layer
    pool: bool = False  # mean of the map instead of all of it
    dtype: Any = jnp.float32  # computation; logits are float32 or wider

    @nn.compact
    def __call__(self, features: Array, *, train: bool) -> Array:
        """Maps features [B, h, w, C] to logits [B, joints]."""
        bring = ConvBN(self.channels, 1, dtype=self.dtype, name="bring")
        x = bring(features, train=train)
        if self.pool:
            x = jnp.mean(x, axis=(1, 2))
        x = x.reshape(x.shape[0], -1)
        return Perceptron(self.hidden, self.joints, self.dtype, name="layers")(x)
