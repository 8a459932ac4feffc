"""Targets on the feature map: Gaussians, part centres, offsets around the centres.

All coordinates here are map pixels (input pixels divided by the stride).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from occjax.types import Array, Labels

MIN_SIGMA = 0.5  # below it the far corner of a Gaussian's window underflows to zero


class People(NamedTuple):
    """Labelled persons of a batch on the feature map, padded to P persons, K parts."""

    joints: Array  # [B, P, J, 2]
    labelled: Array  # [B, P, J] bool
    centres: Array  # [B, P, K, 2]
    present: Array  # [B, P, K] bool, the part may be detected
    area: Array  # [B, P], in any one unit; decides overlaps and weights


class OffsetTargets(NamedTuple):
    """Offsets wanted at Q pixels of each of K parts, and whose they are."""

    offset: Array  # [B, K, Q, J, 2], pixel - joint
    weight: Array  # [B, K, Q, J], 1 / sqrt(area), 0 where nothing is wanted
    owner: Array  # [B, K, Q, J] int32, index of the person, -1 where nothing is wanted


def people_on_map(
    labels: Labels, parts: Sequence[Sequence[int]], stride: int, small_area: float
) -> People:
    """The labels in map pixels, without padding persons.

    Persons whose box has less than `small_area` input pixels^2 have no part centres,
    but they keep their joints, as in PINet's published code. Areas stay those of the
    box in input pixels^2.
    """
    wide = np.promote_types(labels.joints.dtype, np.float32)
    joints = labels.joints.astype(wide) / stride
    labelled = (labels.visibility > 0) & (labels.area > 0)[..., None]
    centres, present = part_centres(joints, labelled, parts)
    large = labels.area >= small_area
    return People(
        joints, labelled, centres, present & large[..., None], labels.area.astype(wide)
    )


def part_centres(
    joints: Array, labelled: Array, parts: Sequence[Sequence[int]]
) -> tuple[Array, Array]:
    """Mean of the labelled joints of each part, those outside the map included.

    The paper speaks of visible parts; its code takes any labelled joint (v = 1 or 2).

    Args:
        joints: [B, P, J, 2].
        labelled: [B, P, J] bool.
        parts: K tuples of joint indices.

    Returns:
        Centres [B, P, K, 2], and [B, P, K] bool, true where a joint was labelled.
    """
    centres, present = [], []
    for part in parts:
        index = jnp.asarray(tuple(part))
        known = labelled[:, :, index]  # [B, P, joints of the part]
        count = jnp.sum(known, axis=-1, dtype=joints.dtype)
        total = jnp.sum(joints[:, :, index], axis=-2, where=known[..., None])
        centres.append(total / jnp.maximum(count, 1)[..., None])
        present.append(count > 0)
    return jnp.stack(centres, axis=2), jnp.stack(present, axis=2)


def gaussians(
    points: Array, present: Array, size: tuple[int, int], sigma: float
) -> Array:
    """Largest of the persons' Gaussians at each pixel (spec: PINet, eq. 5).

    A Gaussian stands at the real-valued point and is cut to the columns
    floor(x - 3 sigma - 1) .. ceil(x + 3 sigma + 1), rows alike. Points outside
    [0, size) draw nothing. The result is positive exactly inside the windows.

    Args:
        points: [B, P, C, 2].
        present: [B, P, C] bool.
        size: height and width of the map.
        sigma: standard deviation in map pixels, at least MIN_SIGMA.

    Returns:
        [B, H, W, C] in 0..1.
    """
    drawn = present & inside(points, size)
    across = _bell(points[..., 0], size[1], sigma)  # [B, P, W, C]
    across = jnp.where(drawn[:, :, None], across, 0)
    down = _bell(points[..., 1], size[0], sigma)  # [B, P, H, C]
    return jnp.max(down[:, :, :, None] * across[:, :, None], axis=1)


def _bell(centre: Array, length: int, sigma: float) -> Array:
    """One axis of a windowed Gaussian: centres [B, P, C] -> [B, P, length, C]."""
    pixel = jnp.arange(length, dtype=centre.dtype).reshape(1, 1, length, 1)
    centre = centre[:, :, None]
    window = (pixel >= jnp.floor(centre - (3 * sigma + 1))) & (
        pixel < jnp.ceil(centre + (3 * sigma + 2))
    )
    bell = jnp.exp(-jnp.square(pixel - centre) / (2 * sigma**2))
    return jnp.where(window, bell, 0)


def inside(points: Array, size: tuple[int, int]) -> Array:
    """Whether points [..., 2] lie in 0 <= x < width, 0 <= y < height: bool [...]."""
    x, y = points[..., 0], points[..., 1]
    return (x >= 0) & (y >= 0) & (x < size[1]) & (y < size[0])


def map_weights(target: Array, background: float, ignore: Array) -> Array:
    """1 inside every Gaussian's window, `background` outside, 0 where ignored.

    The paper knows the first two only; its code masks what lies outside the image, and
    in COCO crowds and unlabelled persons.

    Args:
        target: [B, H, W, C] from `gaussians`.
        background: weight of the pixels that no Gaussian reaches.
        ignore: [B, H, W] bool.
    """
    weight = jnp.where(target > 0, 1.0, background).astype(target.dtype)
    return jnp.where(ignore[..., None], 0, weight)


def offset_targets(
    people: People, pixels: Array, size: tuple[int, int], radius: int
) -> OffsetTargets:
    """Offsets that the persons want at the given pixels of each part.

    Around a part centre c, truncated to integers, the pixels [c - radius, c + radius)
    regress the person's joints. Where persons meet, the smaller area is meant to win.
    The published code writes the persons one after another and slips twice; labels
    made by it, and hence its results, depend on both, so both are kept:

    - a cell that holds exactly (0, 0) counts as empty;
    - the area is remembered per pixel and not per joint, so that once a larger person
      fills an empty joint of a pixel, its later joints overwrite the smaller person's.

    Weights are 1 / sqrt(box area) as in the code; the paper's S_i is 1 / area.

    Each queried pixel replays that order by itself: no dense map is written, and the
    cost follows the number of pixels asked for.

    Args:
        people: the labels.
        pixels: [B, K, Q, 2] integers, x before y. Pixels off the map want nothing.
        size: height and width of the map.
        radius: half the side of the window.
    """
    where = pixels.astype(people.joints.dtype)
    return _targets_of(_owners(people, where, size, radius), people, where)


def _owners(people: People, where: Array, size: tuple[int, int], radius: int) -> Array:
    """Index of the person who writes each joint at a pixel: [B, K, Q, J], -1 nobody."""
    batch, parts, count, _ = where.shape
    joints = people.joints.shape[2]
    usable = people.labelled & inside(people.joints, size)  # [B, P, J]
    corner = jnp.trunc(people.centres)  # toward zero, as the code does
    present = people.present & inside(corner, size)
    on_map = inside(where, size)
    number = jnp.arange(joints, dtype=jnp.int32).reshape(1, 1, 1, joints)

    def write(state, person):
        owner, filled, smallest = state
        index, joint, usable, corner, present, area = person
        near = (where >= corner[:, :, None] - radius) & (
            where < corner[:, :, None] + radius
        )
        near = on_map & present[..., None] & jnp.all(near, axis=-1)  # [B, K, Q]
        wanted = near[..., None] & usable[:, None, None]  # [B, K, Q, J]
        area = area[:, None, None]
        kept = filled & (smallest < area)[..., None]
        # a free joint opens the pixel for the person's later joints as well
        first = jnp.min(jnp.where(wanted & ~kept, number, joints), -1, keepdims=True)
        written = wanted & (number >= first)
        at_joint = jnp.all(where[..., None, :] == joint[:, None, None], axis=-1)
        owner = jnp.where(written, index, owner)
        filled = jnp.where(written, ~at_joint, filled)
        smallest = jnp.where(jnp.any(written, axis=-1), area, smallest)
        return (owner, filled, smallest), None

    start = (
        jnp.full((batch, parts, count, joints), -1, jnp.int32),
        jnp.zeros((batch, parts, count, joints), bool),
        jnp.zeros((batch, parts, count), people.area.dtype),
    )
    persons = people.joints.shape[1]
    by_person = [
        jnp.moveaxis(x, 1, 0)
        for x in (people.joints, usable, corner, present, people.area)
    ]
    (owner, _, _), _ = jax.lax.scan(
        write, start, (jnp.arange(persons, dtype=jnp.int32), *by_person)
    )
    return owner


def _targets_of(owner: Array, people: People, where: Array) -> OffsetTargets:
    """Offsets and weights of the owners [B, K, Q, J] at pixels where [B, K, Q, 2]."""
    batch, _, _, joints = owner.shape
    index = jnp.maximum(owner, 0).reshape(batch, -1, joints)  # [B, KQ, J]
    truth = jnp.take_along_axis(people.joints, index[..., None], axis=1)
    # a box without extent would weigh infinitely
    weight = jax.lax.rsqrt(jnp.maximum(people.area, 1))
    weight = jnp.take_along_axis(weight[..., None], index, axis=1).reshape(owner.shape)
    offset = where[..., None, :] - truth.reshape(*owner.shape, 2)
    owned = owner >= 0
    return OffsetTargets(
        offset=jnp.where(owned[..., None], offset, 0),
        weight=jnp.where(owned, weight, 0),
        owner=owner,
    )


def offset_windows(people: People, radius: int) -> tuple[Array, Array]:
    """Pixels around the part centres of all persons, W = (2 radius)^2 for each.

    A window reaches from -radius to radius - 1: it is not centred (nor is it in the
    published code).

    Returns:
        Pixels [B, K, P * W, 2] int32, and the person [P * W] that each belongs to.
    """
    step = jnp.arange(-radius, radius, dtype=jnp.int32)
    window = jnp.stack(jnp.meshgrid(step, step), axis=-1).reshape(1, 1, 1, -1, 2)
    corner = jnp.trunc(people.centres).astype(jnp.int32)  # [B, P, K, 2]
    pixels = jnp.moveaxis(corner, 1, 2)[:, :, :, None] + window
    batch, parts, persons, count, _ = pixels.shape
    person = jnp.repeat(jnp.arange(persons, dtype=jnp.int32), count)
    return pixels.reshape(batch, parts, -1, 2), person
