"""Semantic graph convolution (Zhao et al., CVPR 2019) as OPEC-Net's code builds on it.

Nodes are joints, or the joints of two people: any graph that bones describe.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn.blocks import BatchNorm
from occjax.nn.dense import symmetric_uniform, torch_dense
from occjax.nn.torch_names import prefixed
from occjax.ops import graph
from occjax.types import Array

Bones = tuple[tuple[int, int], ...]
_XAVIER_GAIN = 1.414


def _kernel_init(channels: int, features: int) -> nn.initializers.Initializer:
    """Xavier's bound as torch reads it off a kernel [2, C, F].

    It takes the three axes for fan out, fan in and receptive field.
    """
    fans = channels * features + 2 * features
    return symmetric_uniform(_XAVIER_GAIN * (6 / fans) ** 0.5)


class SemGraphConv(nn.Module):
    """(A o I) H W0 + (A o (1 - I)) H W1 + b, A learnt (SemGCN, as in its code).

    Each node takes a weighted mean of itself and its neighbours. Row i of A is the
    softmax of one free logit for each of them, the same for every input and channel.
    All logits start at 1, so A starts uniform. Nothing else of the adjacency enters.

    Parameters `kernel` [2, C, features], for the node itself and for its neighbours;
    `logits` [E], row by row of A; `bias` [features].
    """

    features: int
    bones: Bones
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps node features [..., N, C] to [..., N, features]."""
        nodes, channels = x.shape[-2:]
        init = _kernel_init(channels, self.features)
        kernel = self.param("kernel", init, (2, channels, self.features))
        spread = symmetric_uniform(self.features**-0.5)
        bias = self.param("bias", spread, (self.features,)).astype(self.dtype)
        kernel, x = kernel.astype(self.dtype), x.astype(self.dtype)
        near = self._adjacency(nodes)
        own = jnp.diagonal(near)
        own, others = own.astype(self.dtype), (near - jnp.diag(own)).astype(self.dtype)
        y = jnp.einsum("n,...nc,cf->...nf", own, x, kernel[0])
        y += jnp.einsum("nm,...mc,cf->...nf", others, x, kernel[1])
        return y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)

    def _adjacency(self, nodes: int) -> Array:
        """A [N, N], float32 or wider."""
        senders, receivers = graph.edges(self.bones, nodes, loops=True)
        logits = self.param("logits", nn.initializers.ones, senders.shape)
        logits = logits.astype(np.promote_types(self.dtype, np.float32))
        apart = jnp.full((nodes, nodes), -jnp.inf, logits.dtype)
        return jax.nn.softmax(apart.at[receivers, senders].set(logits), axis=1)


class SemGraphLayer(nn.Module):
    """Semantic graph convolution, batch norm over batch and nodes, ReLU."""

    features: int
    bones: Bones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """Maps node features [..., N, C] to [..., N, features].

        Args:
            x: [..., N, C].
            train: normalise by this batch.
            mask: bool, broadcastable to [..., N]: rows that enter its statistics.
        """
        x = SemGraphConv(self.features, self.bones, self.dtype, name="conv")(x)
        norm = BatchNorm(dtype=self.dtype, name="bn")
        return nn.relu(norm(x, train=train, mask=mask))


class ResidualAttention(nn.Module):
    """Two graph convolutions around an identity, and a gate for each node.

    The identity is added before the last batch norm. The halved width and the gate
    follow OPEC-Net's code; its paper draws the block without sizes.
    """

    bones: Bones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, mask: Array | None = None) -> Array:
        """Maps node features [..., N, C] to [..., N, C]; as `SemGraphLayer`."""
        channels = x.shape[-1]
        first = SemGraphLayer(channels // 2, self.bones, self.dtype, name="layer1")
        second = SemGraphConv(channels, self.bones, self.dtype, name="conv2")
        y = x.astype(self.dtype) + second(first(x, train=train, mask=mask))
        norm = BatchNorm(dtype=self.dtype, name="bn")
        y = nn.relu(norm(y, train=train, mask=mask))
        return NodeGate(self.dtype, name="gate")(y)


class NodeGate(nn.Module):
    """Node attention: y (1 + g), one g in (0, 1) per node from the mean over nodes."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, y: Array) -> Array:
        """Scales the nodes of [..., N, C]."""
        nodes, channels = y.shape[-2:]
        squeezed = torch_dense(channels // 4, jnp.mean(y, -2), self.dtype, "fc1")
        gate = torch_dense(nodes, nn.relu(squeezed), self.dtype, "fc2")
        return y * (1 + nn.sigmoid(gate)[..., None])


# Names of OPEC-Net's code; see torch_names.py.
CONV_NAMES = (
    ("W", "kernel", "keep"),
    ("e", "logits", "keep"),
    ("bias", "bias", "keep"),
)
LAYER_NAMES = (*prefixed(CONV_NAMES, "gconv.", "conv"), ("bn", "bn", "norm"))
BLOCK_NAMES = (
    *prefixed(LAYER_NAMES, "gconv1.", "layer1"),
    *prefixed(CONV_NAMES, "gconv2.gconv.", "conv2"),
    ("bn", "bn", "norm"),
    (r"attention\.squeeze\.0", "gate/fc1", "linear"),
    (r"attention\.squeeze\.2", "gate/fc2", "linear"),
)
