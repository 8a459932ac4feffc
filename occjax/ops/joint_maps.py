"""Heatmaps of one person as top-down methods learn them: a Gaussian for each joint."""

import jax.numpy as jnp
import numpy as np

from occjax.types import OCCLUDED, Array, Labels

_REACH = 3  # a Gaussian ends so many sigmas from its pixel, in both axes


def targets(
    joints: Array, labelled: Array, size: tuple[int, int], sigma: float, stride: int
) -> tuple[Array, Array]:
    """Gaussians on the pixels nearest to the joints (HRNet, SimpleBaseline).

    The published code truncates x / stride + 1 / 2 toward zero, so joints up to one and
    a half map pixels before the border count as if they stood on its first pixel.

    Args:
        joints: [B, J, 2] input pixels.
        labelled: [B, J] bool.
        size: height and width of the maps.
        sigma: of the Gaussian, map pixels.
        stride: input pixels per map pixel.

    Returns:
        Maps [B, H, W, J] with peaks of 1, and weights [B, J]: 1 for labelled joints
        whose window reaches the map, else 0 with an empty map.
    """
    wide = np.promote_types(joints.dtype, np.float32)
    pixel = jnp.trunc(joints.astype(wide) / stride + 0.5)  # [B, J, 2]
    reach = int(_REACH * sigma)
    ends = jnp.asarray(size[::-1], wide).reshape(1, 1, 2)
    # the end of a window is exclusive, and one that ends before pixel 0 still counts
    touches = (pixel - reach < ends) & (pixel + reach + 1 >= 0)
    weight = (labelled & jnp.all(touches, axis=-1)).astype(wide)
    across = _bell(pixel[..., 0], size[1], sigma, reach)  # [B, J, W]
    down = _bell(pixel[..., 1], size[0], sigma, reach)
    maps = jnp.einsum("bj,bjh,bjw->bhwj", weight, down, across)
    return maps, weight


def targets_of_crops(
    labels: Labels, size: tuple[int, int], sigma: float, stride: int
) -> tuple[Array, Array]:
    """`targets` of the person whom each crop is of."""
    joints, labelled = labels.joints[:, 0], labels.visibility[:, 0] > 0
    return targets(joints, labelled, size, sigma, stride)


def everybody(
    labels: Labels, size: tuple[int, int], sigma: float, stride: int
) -> tuple[Array, Array]:
    """`targets` of everybody in a crop, other people's at half height (DAG's code).

    Returns:
        Maps [B, H, W, J], the larger value where people meet; weights [B, J] of joints
        that are labelled for anybody in the crop.
    """
    batch, persons, joints = labels.visibility.shape
    rows = labels.joints.reshape(batch * persons, joints, 2)
    seen = labels.visibility.reshape(batch * persons, joints) > 0
    maps, weight = targets(rows, seen, size, sigma, stride)
    first = (jnp.arange(persons) == 0).reshape(1, -1, 1, 1, 1)
    maps = maps.reshape(batch, persons, *maps.shape[1:])
    maps = jnp.max(jnp.where(first, maps, 0.5 * maps), axis=1)
    return maps, jnp.max(weight.reshape(batch, persons, joints), axis=1)


def occluded(
    labels: Labels,
    size: tuple[int, int],
    sigma: float,
    stride: int,
    *,
    of_all: bool = False,
) -> Array:
    """Where joints of the person of each crop are occluded (OASNet, section 3.1).

    Args:
        labels: of crops, or with `of_all` of any images.
        size: height and width of the maps.
        sigma: of the Gaussians, map pixels.
        stride: input pixels per map pixel.
        of_all: all people's joints, not the first's alone.

    Returns:
        [B, H, W] in 0..1: the sum of the Gaussians of the occluded joints, cut at 1.
    """
    people = labels.joints.shape[1] if of_all else 1
    joints, seen = labels.joints[:, :people], labels.visibility[:, :people]
    rows = joints.reshape(-1, *joints.shape[2:])
    hidden = (seen == OCCLUDED).reshape(-1, seen.shape[-1])
    maps, _ = targets(rows, hidden, size, sigma, stride)
    maps = jnp.sum(maps, axis=-1).reshape(-1, people, *size)
    return jnp.minimum(jnp.sum(maps, axis=1), 1)


def _bell(centre: Array, length: int, sigma: float, reach: int) -> Array:
    """[B, J] -> [B, J, length]: a Gaussian that ends `reach` pixels from its centre."""
    away = jnp.arange(length, dtype=centre.dtype).reshape(1, 1, -1) - centre[..., None]
    bell = jnp.exp(-jnp.square(away) / (2 * sigma**2))
    return jnp.where(jnp.abs(away) <= reach, bell, 0)
