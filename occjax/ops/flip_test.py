"""The flip test: reading an image together with its mirror image.

Maps and poses have an axis O of orientations: upright, and mirrored if O is 2.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from occjax.types import Array


def part_order(parts: Sequence[Sequence[int]], flip: Sequence[int]) -> tuple[int, ...]:
    """Order of the parts after mirroring.

    PINet's published partitions mirror into themselves. In others, such as a left and a
    right arm, the two exchange maps and offsets.

    Args:
        parts: joint indices of each part.
        flip: joint order after mirroring.

    Raises:
        ValueError: the mirror image of a part is no part.
    """
    sets = [frozenset(part) for part in parts]
    mirrored = [frozenset(flip[joint] for joint in part) for part in parts]
    if not set(mirrored) <= set(sets):
        raise ValueError(
            "parts: the flip test needs the mirror image of every part to be a part, "
            f"got {tuple(parts)}."
        )
    return tuple(sets.index(part) for part in mirrored)


def orientations(image: Array, stride: int, *, keep_edge: bool = False) -> Array:
    """Images [B, H, W, C] and their mirror images: [B, 2, H, W, C].

    Map pixel u sits at input pixel stride * u, so mirroring the map (u -> w - 1 - u) is
    mirroring the image and shifting it left by stride - 1 pixels. The columns that come
    free are 0: the mean colour, if the image is normalised. A stride of 1 only mirrors,
    which is what most top-down methods do.

    Args:
        image: [B, H, W, C].
        stride: input pixels per map pixel.
        keep_edge: leave in the free columns what the mirrored image has there, as
            DEKR's published code does.
    """
    shift, mirrored = stride - 1, image[:, :, ::-1]
    free = mirrored[:, :, mirrored.shape[2] - shift :]
    free = free if keep_edge else jnp.zeros_like(free)
    mirrored = jnp.concatenate((mirrored[:, :, shift:], free), axis=2)
    return jnp.stack((image, mirrored), axis=1)


def average(maps: Array, order: Sequence[int], *, shift: bool = False) -> Array:
    """Mean over the orientations of maps [B, O, H, W, C]: [B, H, W, C].

    Args:
        maps: O is 1 or 2.
        order: channel order after mirroring.
        shift: move what the mirror image gave right by one column, its first column
            staying (SHIFT_HEATMAP of HRNet and SimpleBaseline). Their images are
            mirrored without a shift, which puts it three quarters of a map pixel left.
    """
    if maps.shape[1] == 1:
        return maps[:, 0]
    mirrored = maps[:, 1, :, ::-1][..., jnp.asarray(tuple(order))]
    if shift:
        mirrored = jnp.concatenate((mirrored[:, :, :1], mirrored[:, :, :-1]), axis=2)
    return (maps[:, 0] + mirrored) / 2


def average_rows(maps: Array, order: Sequence[int], *, shift: bool = False) -> Array:
    """`average` of maps [2 B, H, W, C] whose rows are both orientations in turn."""
    return average(maps.reshape(-1, 2, *maps.shape[1:]), order, shift=shift)


def average_vectors(values: Array, order: Sequence[int]) -> Array:
    """Mean of values [2 B, J], whose rows are both orientations in turn: [B, J]."""
    both = values.reshape(-1, 2, values.shape[-1])
    return (both[:, 0] + both[:, 1, jnp.asarray(tuple(order))]) / 2


def pixels_in_each(pixels: Array, parts: Sequence[int], width: int) -> Array:
    """Where pixels [B, K, N, 2] of the upright maps are: [B, 2, K, N, 2].

    Args:
        pixels: x before y.
        parts: order of the K parts after mirroring.
        width: of the maps.
    """
    mirrored = pixels.at[..., 0].set(width - 1 - pixels[..., 0])
    return jnp.stack((pixels, mirrored[:, jnp.asarray(tuple(parts))]), axis=1)


def mean_pose(
    joints: Array, parts: Sequence[int], order: Sequence[int], width: int
) -> Array:
    """Mean over the orientations of poses [B, O, K, N, J, 2]: [B, K, N, J, 2].

    Args:
        joints: map pixels, each orientation in its own map; O is 1 or 2.
        parts: order of the K parts after mirroring.
        order: order of the J joints after mirroring.
        width: of the maps.
    """
    if joints.shape[1] == 1:
        return joints[:, 0]
    mirrored = joints[:, 1][:, jnp.asarray(tuple(parts))]
    mirrored = mirrored[..., jnp.asarray(tuple(order)), :]
    mirrored = mirrored.at[..., 0].set(width - 1 - mirrored[..., 0])
    return (joints[:, 0] + mirrored) / 2
