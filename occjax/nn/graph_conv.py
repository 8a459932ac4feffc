"""Graph convolutions whose adjacency matrix is given by the caller."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from occjax.nn.blocks import BatchNorm
from occjax.nn.dense import symmetric_uniform
from occjax.types import Array

_XAVIER_GAIN = 1.414


class GraphConv(nn.Module):
    """relu(batch_norm(G (X W) + b)) (PINet, eq. 9, which leaves out b and the norm).

    Parameters `kernel` [C, features] and `bias` [features]; the adjacency G is not
    among them, so that layers can share one.
    """

    features: int
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(
        self, x: Array, adjacency: Array, *, train: bool, mask: Array | None = None
    ) -> Array:
        """Maps joint features [..., J, C] to [..., J, features].

        Args:
            x: [..., J, C].
            adjacency: [J, J], multiplied from the left, used as it is.
            train: normalise by this batch.
            mask: bool, broadcastable to [..., J]: rows that enter its statistics.
        """
        xavier = nn.initializers.variance_scaling(_XAVIER_GAIN**2, "fan_avg", "uniform")
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", xavier, shape).astype(self.dtype)
        spread = symmetric_uniform(self.features**-0.5)
        bias = self.param("bias", spread, (self.features,)).astype(self.dtype)
        x = jnp.einsum("...jc,cf->...jf", x.astype(self.dtype), kernel)
        x = jnp.einsum("ij,...jf->...if", adjacency.astype(self.dtype), x)
        x = x + bias.reshape((1,) * (x.ndim - 1) + bias.shape)
        x = BatchNorm(dtype=self.dtype, name="bn")(x, train=train, mask=mask)
        return nn.relu(x)


class GraphBlock(nn.Module):
    """Two graph convolutions and an identity, without ReLU after the sum."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, adjacency: Array, *, train: bool, mask: Array | None = None
    ) -> Array:
        """Maps joint features [..., J, C] to [..., J, C]; arguments of `GraphConv`."""
        y = x
        for name in ("conv1", "conv2"):
            layer = GraphConv(x.shape[-1], self.dtype, name=name)
            y = layer(y, adjacency, train=train, mask=mask)
        return x + y
