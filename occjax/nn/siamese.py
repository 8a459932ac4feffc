"""A crop or image in two views, with occluders and without (OASNet, section 3.3).

Both views are rows of one batch, the occluded one of each pair first; the features of
the first learn to be like those of the second.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from occjax.nn.critic import Critic
from occjax.ops import mimicry, sinkhorn
from occjax.types import Array, Inputs, Labels

DISTANCES = {"l2": mimicry.l2, "cosine": mimicry.cosine, "kl": mimicry.kl}
MIMICS = ("transport", *DISTANCES, "none")
MASKS = ("soft", "binary", "none")


class Imitator(Protocol):
    """What a method's model says of its mimicry."""

    mimic: str  # one of MIMICS
    transport: Mapping[str, Any]  # arguments of `sinkhorn.divergence`
    detach_clean: bool  # features of the clean view count as constant
    mask: str  # of natural occlusion, one of MASKS
    dtype: Any


def check(model: Imitator) -> None:
    """Refuses settings that there are not.

    Raises:
        ValueError: naming the field, what was expected and what was found.
    """
    for field, known in (("mimic", MIMICS), ("mask", MASKS)):
        if getattr(model, field) not in known:
            raise ValueError(
                f"{field}: expected one of {', '.join(known)}, "
                f"got {getattr(model, field)!r}."
            )


def rows(inputs: Inputs, mimic: str, *, needed: bool = True) -> Inputs:
    """Inputs of both views, 2 B of them, or what came in if there is no clean twin.

    A device has both views of its images.

    Args:
        inputs: of B images.
        mimic: one of MIMICS.
        needed: whether missing twins are a mistake, if anything is to be mimicked.

    Raises:
        ValueError: they are missing.
    """
    if inputs.clean is not None:
        twice = _twice(inputs._replace(clean=None))
        return twice._replace(image=_in_turn(inputs.image, inputs.clean))
    if mimic != "none" and needed:
        raise ValueError(
            f"mimic: {mimic!r} needs clean twins of the images, which `paste_patches` "
            "of config.occlusion gives; without them it is 'none'."
        )
    return inputs


def labels_of_rows(labels: Labels) -> Labels:
    """Labels whose rows are those of `rows`, each with its own visibility."""
    if labels.clean_visibility is None:
        return labels
    seen = _in_turn(labels.visibility, labels.clean_visibility)
    return _twice(labels)._replace(visibility=seen)


def _twice(tree: Any) -> Any:
    """Arrays [B, ...] as [2 B, ...], each row twice."""
    return jax.tree.map(lambda x: jnp.repeat(x, 2, axis=0), tree)


def _in_turn(first: Array, second: Array) -> Array:
    """Rows [2 B, ...] of two arrays [B, ...] in turn."""
    both = jnp.stack((first, second), axis=1)
    return both.reshape(-1, *both.shape[2:])


def learnt(critic: Critic, features: Array) -> Mapping[str, Any]:
    """Parameters of a model's critic, which the loss applies: its mask needs labels.

    Args:
        critic: part of the model that is being run.
        features: like those that it will be applied to, [B, h, w, C].
    """
    if critic.is_initializing():
        critic(features)
    return critic.variables["params"]


def distance(
    model: Imitator, features: Array, hidden: Array, critic: Mapping[str, Any] | None
) -> tuple[Array, Array]:
    """How far the features of both views are apart, natural occlusion left out.

    Args:
        model: says by which distance.
        features: [2 B, h, w, C] of both views.
        hidden: [2 B, h, w] occlusion of the views.
        critic: parameters of a `Critic`, for optimal transport.

    Returns:
        Values and weights [B].
    """
    features = features.reshape(-1, 2, *features.shape[1:])
    occluded, clean = features[:, 0], features[:, 1]
    if model.detach_clean:
        clean = jax.lax.stop_gradient(clean)
    natural = hidden.reshape(-1, 2, *hidden.shape[1:])[:, 1]
    occluded, clean = (x * _kept(model, natural, x) for x in (occluded, clean))
    if critic is not None:
        apply, learnt = Critic(dtype=model.dtype).apply, {"params": critic}
        points = (mimicry.channels(apply(learnt, x)) for x in (occluded, clean))
        values = sinkhorn.divergence(*points, **model.transport)
    else:
        values = DISTANCES[model.mimic](occluded, clean)
    return values, jnp.ones_like(values)


def _kept(model: Imitator, natural: Array, like: Array) -> Array:
    """[B, h, w, 1] what is compared: where the clean view is not occluded."""
    if model.mask == "none":
        return jnp.ones((*natural.shape, 1), like.dtype)
    kept = 1 - natural if model.mask == "soft" else natural < 0.1
    return kept[..., None].astype(like.dtype)
