"""Losses of part-based pose generation, as PINet and DEKR share them.

Reduced as sum(values * weights) / sum(weights) they are those of the published code.
"""

import jax.numpy as jnp

from occjax.ops import heatmap, losses, sampling
from occjax.ops.part_poses import Maps
from occjax.types import Array


def map_loss(
    maps: Maps,
    people: heatmap.People,
    ignore: Array,
    *,
    sigma: float,
    part_sigma: float,
    background: float,
) -> tuple[Array, Array]:
    """The loss of the keypoint and part maps, channels of both alike.

    Args:
        maps: the prediction.
        people: the labels.
        ignore: [B, h, w] bool, true where no loss may look.
        sigma: of keypoint Gaussians, map pixels.
        part_sigma: of part centre Gaussians, map pixels.
        background: weight of pixels that no Gaussian reaches.

    Raises:
        ValueError: `ignore` has another size than the maps.
    """
    size = maps.heatmap.shape[1:3]
    if ignore.shape[1:3] != size:
        raise ValueError(
            f"labels.ignore: expected maps of {size}, got {ignore.shape[1:3]}."
        )
    target = jnp.concatenate(
        (
            heatmap.gaussians(people.joints, people.labelled, size, sigma),
            heatmap.gaussians(people.centres, people.present, size, part_sigma),
        ),
        axis=-1,
    )
    pred = jnp.concatenate((maps.heatmap, maps.parts), axis=-1)
    weight = heatmap.map_weights(target, background, ignore)
    return losses.weighted_mse(pred, target, weight)


def offset_loss(
    offset: Array, people: heatmap.People, radius: int
) -> tuple[Array, Array]:
    """The dense loss, summed over the windows alone: elsewhere its weight is 0.

    A pixel in the windows of several persons counts once for each joint, in the window
    of the person who owns the joint there.

    Args:
        offset: [B, h, w, K, J, 2], pixel - joint.
        people: the labels.
        radius: half the side of the windows.
    """
    size = offset.shape[1:3]
    pixels, person = heatmap.offset_windows(people, radius)
    wanted = heatmap.offset_targets(people, pixels, size, radius)
    own = wanted.owner == person.reshape(1, 1, -1, 1)
    weight = jnp.where(own, wanted.weight, 0)
    return pose_loss(sampling.gather_each(offset, pixels), wanted.offset, weight)


def pose_loss(pred: Array, target: Array, weight: Array) -> tuple[Array, Array]:
    """Smooth L1 of offsets [..., J, 2] whose joints weigh [..., J]."""
    weight = jnp.broadcast_to(weight[..., None], pred.shape)
    return losses.weighted_smooth_l1(pred, target, weight)
