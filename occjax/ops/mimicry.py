"""How far features of an occluded image are from those of its clean twin (OASNet).

Every distance takes [B, H, W, C] of both and gives [B] in float32 or wider. The
optimal transport between the channels is `sinkhorn.divergence` of `channels`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from occjax.ops import sinkhorn
from occjax.types import Array


def l2(occluded: Array, clean: Array) -> Array:
    """Squared distance of the feature vectors, mean over the places.

    Equation 8 sums over places too, for which its weight is meaningless.
    """
    x, y = _wide(occluded, clean)
    return jnp.mean(jnp.sum(jnp.square(x - y), axis=-1), axis=(1, 2))


def cosine(occluded: Array, clean: Array) -> Array:
    """1 - cos of the feature vectors, mean over the places.

    Where both are 0, as under a mask, they agree.
    """
    x, y = map(sinkhorn.unit, _wide(occluded, clean))
    alive = jnp.any((x != 0) | (y != 0), axis=-1)
    far = jnp.where(alive, 1 - jnp.sum(x * y, axis=-1), 0)
    return jnp.mean(far, axis=(1, 2))


def kl(occluded: Array, clean: Array) -> Array:
    """KL(clean || occluded) of where each channel is high, mean over the channels.

    A channel is read as a distribution over its places by a softmax. The sum over the
    places is divided by their number, as torch's KL loss does by default: so the
    paper's weight of 100, beside 0.001 of the others, is one that a network bears.
    """
    x, y = (
        jax.nn.log_softmax(z.reshape(len(z), -1, z.shape[-1]), axis=1)
        for z in _wide(occluded, clean)
    )
    return jnp.mean(jnp.exp(y) * (y - x), axis=(1, 2))


def channels(features: Array) -> Array:
    """[B, H, W, C] -> [B, C, H W]: each channel is a point, its places coordinates."""
    return jnp.swapaxes(features.reshape(len(features), -1, features.shape[-1]), 1, 2)


def _wide(*arrays: Array) -> list[Array]:
    return [x.astype(np.promote_types(x.dtype, np.float32)) for x in arrays]
