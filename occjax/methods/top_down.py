"""Top-down heatmap regression: one person a crop, one heatmap a joint.

With HRNet as backbone it is HRNet's pose network (Sun et al., CVPR 2019), with a ResNet
and deconvolutions SimpleBaseline's (Xiao et al., ECCV 2018), with hourglasses Newell's
(ECCV 2016), whose stacks all predict. They learn by the mean squared error of Gaussians
and test with the mirrored crop and a quarter offset.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from occjax.nn import heatmap_net
from occjax.nn.heatmap_net import STRIDE, HeatmapNet
from occjax.ops import (
    decoding,
    flip_test,
    joint_maps,
    losses,
    rescoring,
    suppression,
)
from occjax.ops.image import IMAGENET_MEAN, IMAGENET_STD, normalize
from occjax.skeletons import Skeleton
from occjax.types import Array, Inputs, Labels, Poses

PUBLISHED, PRETRAINED = heatmap_net.PUBLISHED, heatmap_net.PRETRAINED
DECODERS = {
    "highest": decoding.highest_pixel,
    "quarter": decoding.quarter_offset,
    "dark": functools.partial(decoding.dark, kernel=11),  # for Gaussians of sigma 2
}


class Outputs(NamedTuple):
    """Heatmaps; in a test the mean of both orientations."""

    maps: tuple[Array, ...]  # [B, h, w, J] of each stage of the network, last best


class Model(nn.Module):
    """A `HeatmapNet`, and how it learns and is read."""

    skeleton: Skeleton  # of the dataset
    backbone: Mapping[str, Any]  # name of a file of occjax/nn, and its fields
    deconv: tuple[int, ...] = ()  # channels of doublings after it; SimpleBaseline's
    mean: tuple[float, ...] = IMAGENET_MEAN  # RGB, of pixels in [0, 1]
    std: tuple[float, ...] = IMAGENET_STD
    sigma: float = 2.0  # of the Gaussians, map pixels
    sharpness: float = 0.0  # of the loss "location"; 0 leaves it out
    hardest: int = 0  # joints of a person that the loss looks at, 0 for all
    decoder: str = "quarter"  # one of DECODERS
    flip_test: bool = True  # average with the mirrored crop
    shift_heatmap: bool = True  # its map moved right by a pixel, as published
    confident: float = 0.2  # joints scored above it make the pose's score
    nms: float = 0.9  # OKS from above which the lower of an image's poses goes
    dtype: Any = jnp.float32  # computation of the backbone

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            ValueError: naming the field, what was expected and what was found.
        """
        if self.decoder not in DECODERS:
            raise ValueError(
                f"decoder: expected one of {', '.join(DECODERS)}, got {self.decoder!r}."
            )
        if self.sigma <= 0:
            raise ValueError(f"sigma: expected more than 0, got {self.sigma}.")
        super().__post_init__()

    def setup(self) -> None:
        """Builds the network, whose parameters are those of this model."""
        self.net = HeatmapNet(
            self.skeleton.num_joints, self.backbone, self.deconv, self.dtype
        )
        nn.share_scope(self, self.net)

    def __call__(self, inputs: Inputs, *, train: bool) -> Outputs:
        """Reads the heatmaps of crops [B, H, W, 3]."""
        image = normalize(inputs.image, self.dtype, self.mean, self.std)
        if train or not self.flip_test:
            return Outputs(self.net(image, train=train).heatmaps)
        both = flip_test.orientations(image, 1)
        maps = self.net(both.reshape(-1, *both.shape[2:]), train=False).heatmaps
        average = functools.partial(
            flip_test.average_rows, order=self.skeleton.flip, shift=self.shift_heatmap
        )
        return Outputs(tuple(map(average, maps)))


def loss_terms(
    model: Model, outputs: Outputs, labels: Labels
) -> dict[str, tuple[Array, Array]]:
    """The loss "heatmap", and "location" if the model has a `sharpness`.

    "heatmap" is the squared error of each joint's map, 0 for unlabelled joints. The
    published code takes half of the mean over all joints, unlabelled ones included: a
    factor of 0.5 on this term. "location" is the cross-entropy of where labelled joints
    are, for trainings from scratch: the squared error of small Gaussians stays close to
    that of empty maps for long. Several stages are added.
    """
    size = outputs.maps[-1].shape[1:3]
    target, weight = joint_maps.targets_of_crops(labels, size, model.sigma, STRIDE)
    spread = jnp.broadcast_to(weight[:, None, None], target.shape)
    squares = [losses.weighted_mse(maps, target, spread) for maps in outputs.maps]
    if model.hardest:
        squares = [losses.hardest(*term, model.hardest) for term in squares]
    terms = {"heatmap": _added(squares)}
    if model.sharpness:
        terms["location"] = _added(
            [
                losses.location(model.sharpness * maps, target, weight)
                for maps in outputs.maps
            ]
        )
    return terms


def _added(terms: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """The sum of terms of the same weights."""
    return functools.reduce(jnp.add, [values for values, _ in terms]), terms[0][1]


def decode(model: Model, outputs: Outputs, inputs: Inputs) -> Poses:
    """One pose a crop, scored by its confident joints and the box's score."""
    joints, joint_score = DECODERS[model.decoder](outputs.maps[-1])
    joints = decoding.to_source(joints, inputs.to_source, STRIDE)
    score = rescoring.confident_mean(joint_score, model.confident)
    if inputs.box_score is not None:
        score = score * inputs.box_score
    return Poses(
        joints=joints[:, None],
        joint_score=joint_score[:, None],
        visible=jnp.full_like(joint_score[:, None], jnp.nan),
        score=score[:, None],
    )


def suppress(model: Model, poses: Poses, area: Array) -> Array:
    """Scores [B, P] of the poses of whole images, -inf where a better one is alike.

    Args:
        model: its `nms` decides.
        poses: of P crops of each image.
        area: [B, P] of the crops, source pixels^2, the scale of OKS as in HRNet's code.
    """
    return suppression.nms_of_crops(poses, model.skeleton.sigmas, area, model.nms)
