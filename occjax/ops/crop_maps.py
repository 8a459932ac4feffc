"""Heatmaps of one person a crop: what they learn from and how they are read."""

import functools
from collections.abc import Sequence
from typing import Protocol

import jax.numpy as jnp

from occjax.ops import (
    decoding,
    joint_maps,
    losses,
    rescoring,
    sampling,
    suppression,
)
from occjax.ops.poses import located
from occjax.skeletons import Skeleton
from occjax.types import Array, Inputs, Labels, Poses

DECODERS = {
    "highest": decoding.highest_pixel,
    "quarter": decoding.quarter_offset,
    "second": decoding.toward_second,  # for maps that are wide beside its blur of 21
    "dark": functools.partial(decoding.dark, kernel=11),  # for Gaussians of sigma 2
}


class Reader(Protocol):
    """What a method's model says of how its maps are read."""

    skeleton: Skeleton
    decoder: str  # one of DECODERS
    confident: float  # joints scored above it make the pose's score
    nms: float  # OKS from above which the lower of an image's poses goes


class Maps(Protocol):
    """What a method's outputs have at least."""

    @property
    def maps(self) -> Sequence[Array]:
        """[B, h, w, J] of each stage of the network, last best."""
        ...

    @property
    def canvas(self) -> Array | None:
        """[B, 2, 3] map pixel -> source pixel, if the maps are means over scales."""
        ...

    @property
    def pose(self) -> Array | None:
        """[B, J, 2] joints in input pixels that are to be taken instead."""
        ...


def check(decoder: str) -> None:
    """Refuses a decoder that there is not.

    Raises:
        ValueError: naming those that there are.
    """
    if decoder not in DECODERS:
        raise ValueError(
            f"decoder: expected one of {', '.join(DECODERS)}, got {decoder!r}."
        )


def loss_terms(
    maps: Sequence[Array],
    labels: Labels,
    *,
    sigma: float,
    stride: int,
    sharpness: float = 0.0,
    hardest: int = 0,
) -> dict[str, tuple[Array, Array]]:
    """The loss "heatmap", and "location" with a `sharpness`.

    "heatmap" is the squared error of each joint's map, 0 for unlabelled joints. The
    published code takes half of the mean over all joints, unlabelled ones included: a
    factor of 0.5 on this term. "location" is the cross-entropy of where labelled joints
    are, for trainings from scratch: the squared error of small Gaussians stays close to
    that of empty maps for long. Several stages are added.

    Args:
        maps: [B, h, w, J] of each stage.
        labels: of the crops.
        sigma: of the Gaussians, map pixels.
        stride: input pixels per map pixel.
        sharpness: factor that makes maps the logits of "location".
        hardest: joints of a person that "heatmap" looks at, 0 for all.
    """
    size = maps[-1].shape[1:3]
    target, weight = joint_maps.targets_of_crops(labels, size, sigma, stride)
    spread = jnp.broadcast_to(weight[:, None, None], target.shape)
    squares = [losses.weighted_mse(one, target, spread) for one in maps]
    if hardest:
        squares = [losses.hardest(*term, hardest) for term in squares]
    terms = {"heatmap": added(squares)}
    if sharpness:
        terms["location"] = added(
            [losses.location(sharpness * one, target, weight) for one in maps]
        )
    return terms


def added(terms: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """The sum of terms of the same weights."""
    return functools.reduce(jnp.add, [values for values, _ in terms]), terms[0][1]


def joints(model: Reader, outputs: Maps, inputs: Inputs) -> tuple[Array, Array]:
    """Where the maps are highest: source pixels [B, J, 2], and their values [B, J].

    Of means over several scales the highest pixels are taken, as published.
    """
    maps, matrix, stride = outputs.maps[-1], outputs.canvas, 1
    read = decoding.highest_pixel
    if matrix is None:
        matrix, stride = inputs.to_source, inputs.image.shape[1] // maps.shape[1]
        read = DECODERS[model.decoder]
    found, value = read(maps)
    return decoding.to_source(found, matrix, stride), value


def decode(model: Reader, outputs: Maps, inputs: Inputs) -> Poses:
    """One pose a crop, scored by its confident joints and the box's score.

    A pose that the model has moved itself is taken as it is; its scores are the maps'.
    """
    found, value = joints(model, outputs, inputs)
    if outputs.pose is not None:
        found = sampling.affine(outputs.pose, inputs.to_source)
    score = rescoring.confident_mean(value, model.confident)
    if inputs.box_score is not None:
        score = score * inputs.box_score
    return located(found[:, None], value[:, None], score[:, None])


def suppress(model: Reader, poses: Poses, area: Array) -> Array:
    """Scores [B, P] of the poses of whole images, -inf where a better one is alike.

    Args:
        model: its `nms` decides.
        poses: of P crops of each image.
        area: [B, P] of the crops, source pixels^2, the scale of OKS as in HRNet's code.
    """
    return suppression.nms_of_crops(poses, model.skeleton.sigmas, area, model.nms)
