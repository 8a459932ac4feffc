"""DEKR (Geng et al., CVPR 2021): a pose per centre, each joint regressed on its own.

The centre of a person regresses all joints, as in SPM, but each joint has features of
its own, which adaptive convolutions gather from around it. Nearby poses of one person
are suppressed by the joints they share; a small network may rescore the rest.

The published code is followed, and the places say so. Coordinates inside are map
pixels, a quarter of input pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn import adaptive_conv, check_stride, hrnet, rescorer
from occjax.nn import backbone as build_backbone
from occjax.nn.blocks import BasicBlock, ConvBN, conv
from occjax.nn.torch_names import prefixed
from occjax.ops import flip_test, heatmap, part_losses, rescoring, sampling, suppression
from occjax.ops.image import normalize
from occjax.ops.part_poses import (
    Candidates,
    Maps,
    Scored,
    candidates,
    persons,
    scored,
)
from occjax.ops.poses import located
from occjax.skeletons import Skeleton
from occjax.types import Array, Inputs, Labels, Poses

STRIDE = 4  # input pixels per map pixel


class Outputs(NamedTuple):
    """Maps of the upright image, and in a test the poses at the peaks."""

    maps: Maps  # the centre is the one part
    to_source: Array  # [B, 2, 3] of the inputs: areas are those of source pixels
    candidates: tuple[Candidates, ...] = ()  # one for each scale
    expected: Array | None = None  # [B, N] OKS that the rescoring net expects of them


class Model(nn.Module):
    """DEKR. Parameters: `trunk` (the backbone), two branches, `rescorer`."""

    skeleton: Skeleton  # of the dataset
    backbone: Mapping[str, Any]  # name of a file of occjax/nn, and its fields
    heatmap_features: int = 32  # channels of the heatmap branch
    joint_features: int = 15  # channels of each joint in the offset branch
    adaptive_blocks: int = 2  # of each joint
    sigma: float = 2.0  # of keypoint Gaussians, map pixels
    centre_sigma: float = 4.0  # of centre Gaussians; 2 CrowdPose, by an index slip
    offset_radius: int = 4  # pixels around a centre that regress the pose
    background: float = 0.1  # weight of pixels that no Gaussian reaches
    small_area: float = 1024.0  # source pixels^2; smaller boxes get no centre
    extent_from_origin: bool = True  # of areas; False: of the labelled joints alone
    peaks: int = 30  # test poses per scale
    threshold: float = 0.01  # strict lower bound of a peak's value
    near: float = 0.05  # two joints are one below this share of the pose's diagonal
    shared: int = 8  # two poses are one above this many joints; 7 CrowdPose
    fuse: bool = False  # PINet's pose fusion for DEKR's suppression
    nms: float = 0.7  # of pose fusion: strict lower bound of the OKS
    rescore: bool = False  # multiply scores by the OKS that a small network expects
    flip_test: bool = True  # average with the mirrored image
    scale_decrease: float = 0.9  # factor on scores of further scales; 0.8 CrowdPose
    max_poses: int = 30  # best poses to give
    dtype: Any = jnp.float32  # computation of backbone and branches

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            ValueError: naming the field, what was expected and what was found.
        """
        _check(self)
        super().__post_init__()

    def setup(self) -> None:
        """Builds the backbone and the branches."""
        joints = self.skeleton.num_joints
        wide = np.promote_types(self.dtype, np.float32)
        self.trunk = build_backbone(**self.backbone, dtype=self.dtype)
        self.heatmap_in = ConvBN(self.heatmap_features, 1, dtype=self.dtype)
        self.heatmap_block = BasicBlock(self.heatmap_features, dtype=self.dtype)
        self.heatmap_head = conv(joints + 1, 1, dtype=wide, use_bias=True)
        self.offset_in = ConvBN(joints * self.joint_features, 1, dtype=self.dtype)
        self.adapt = [
            adaptive_conv.AdaptiveBlock(self.dtype) for _ in range(self.adaptive_blocks)
        ]
        self.offset_head = adaptive_conv.JointConv(2, dtype=wide)
        if self.rescore:
            self.rescorer = rescorer.Rescorer(rescorer.LINKS[self.skeleton.name])

    def __call__(self, inputs: Inputs, *, train: bool) -> Outputs:
        """Reads maps, and in a test poses.

        Args:
            inputs: image [B, H, W, 3]; in a test also `scaled`.
            train: maps of this image alone. With `rescore` the poses of a test as well,
                which teach the rescoring net and nothing else.
        """
        found = []
        if not train or self.rescore:
            found = [self._test(image) for image in (inputs.image, *inputs.scaled)]
        if train:
            maps = self._maps(normalize(inputs.image, self.dtype), train=True)
        else:
            maps = found[0][0]
        outputs = Outputs(maps, inputs.to_source, tuple(poses for _, poses in found))
        if not self.rescore:
            return outputs
        poses = _scored(self, outputs.candidates, inputs.image.shape[1:3])
        joints = sampling.affine(poses.joints, inputs.to_source)
        return outputs._replace(expected=self.rescorer(joints, poses.joint_score))

    def _maps(self, image: Array, *, train: bool) -> Maps:
        """Maps of normalised images [B, H, W, 3]."""
        joints = self.skeleton.num_joints
        features = self.trunk(image, train=train)
        check_stride(features, image, STRIDE)
        x = self.heatmap_in(features, train=train)
        heat = self.heatmap_head(self.heatmap_block(x, train=train))
        x = self.offset_in(features, train=train)
        x = jnp.moveaxis(x.reshape(*x.shape[:3], joints, -1), 3, 0)  # [J, B, h, w, C]
        for block in self.adapt:
            x = block(x, train=train)
        offset = jnp.moveaxis(self.offset_head(x), 0, 3)  # [B, h, w, J, 2]
        return Maps(heat[..., :joints], heat[..., joints:], offset[:, :, :, None])

    def _test(self, image: Array) -> tuple[Maps, Candidates]:
        """One scale: maps of the upright image, poses of the mean of orientations."""
        image = normalize(image, self.dtype)
        both = image[:, None]
        if self.flip_test:
            both = flip_test.orientations(image, STRIDE, keep_edge=True)
        # orientations lie beside one another, so a sharded batch stays where it is
        maps = self._maps(both.reshape(-1, *both.shape[2:]), train=False)
        maps = Maps(*(x.reshape(*both.shape[:2], *x.shape[1:]) for x in maps))
        maps = jax.lax.stop_gradient(maps)  # the rescoring net does not teach them
        found = candidates(
            maps,
            joint_order=self.skeleton.flip,
            part_order=(0,),
            peaks=self.peaks,
            threshold=self.threshold,
        )
        return Maps(*(x[:, 0] for x in maps)), found


def _check(model: Model) -> None:
    """Raises ValueError for the first field that makes no sense."""
    smallest = {
        "sigma": heatmap.MIN_SIGMA,
        "centre_sigma": heatmap.MIN_SIGMA,
        "offset_radius": 1,
        "heatmap_features": 1,
        "joint_features": 1,
        "adaptive_blocks": 0,
        "peaks": 1,
        "max_poses": 1,
    }
    for name, least in smallest.items():
        value = getattr(model, name)
        if value < least:
            raise ValueError(f"{name}: expected {least} or more, got {value}.")
    if model.rescore and model.skeleton.name not in rescorer.LINKS:
        raise ValueError(
            f"rescore: expected joints of {' or '.join(rescorer.LINKS)}, "
            f"got those of {model.skeleton.name}."
        )


def people_on_map(model: Model, labels: Labels, to_source: Array) -> heatmap.People:
    """The labels in map pixels, with the centre as the one part of each person.

    The area, which decides overlaps and weights, is width^2 + height^2 of the joints in
    the source image. The published code takes the extent of an array where unlabelled
    joints, and the centre that is yet to come, are (0, 0): people far from the corner
    of the image weigh less. `extent_from_origin=False` leaves the corner out.

    The published code asks the segment's area who is small; labels have the box's.
    """
    people = heatmap.people_on_map(
        labels, model.skeleton.parts["center"], STRIDE, small_area=0
    )
    zoom = 1 / jnp.abs(sampling.determinant(to_source)).astype(people.area.dtype)
    joints = sampling.affine(labels.joints.astype(people.area.dtype), to_source)
    start = 0.0 if model.extent_from_origin else jnp.inf
    known = people.labelled[..., None]
    high = jnp.max(joints, axis=2, where=known, initial=-start)
    low = jnp.min(joints, axis=2, where=known, initial=start)
    large = people.area >= model.small_area * zoom[:, None]
    return people._replace(
        present=people.present & large[..., None],
        area=jnp.sum(jnp.square(high - low), axis=-1) * zoom[:, None],
    )


def loss_terms(
    model: Model, outputs: Outputs, labels: Labels
) -> dict[str, tuple[Array, Array]]:
    """The losses "heatmap" and "offset", and "rescore" if the model rescores.

    Reduced as sum(values * weights) / sum(weights) they are those of the published
    code, whose factors are 1 and 0.03.
    """
    people = people_on_map(model, labels, outputs.to_source)
    terms = {
        "heatmap": part_losses.map_loss(
            outputs.maps,
            people,
            labels.ignore,
            sigma=model.sigma,
            part_sigma=model.centre_sigma,
            background=model.background,
        ),
        "offset": part_losses.offset_loss(
            outputs.maps.offset, people, model.offset_radius
        ),
    }
    if outputs.expected is not None:
        size = tuple(STRIDE * side for side in labels.ignore.shape[1:3])
        poses = _scored(model, outputs.candidates, size)
        wanted = rescoring.best_oks(poses.joints, labels, model.skeleton.sigmas)
        error = jnp.square(outputs.expected - wanted)
        real = poses.score > -jnp.inf
        terms["rescore"] = jnp.where(real, error, 0), real.astype(error.dtype)
    return terms


def _scored(model: Model, found: Sequence[Candidates], size: tuple[int, int]) -> Scored:
    return scored(found, size, model.scale_decrease, sampling.floor_response)


def decode(model: Model, outputs: Outputs, inputs: Inputs) -> Poses:
    """Candidates of all scales -> one pose per person, best first, in source pixels.

    The score of a joint is the centre's score times the keypoint map at the joint (mean
    over the scales), that of a pose their mean, times the expected OKS with `rescore`.
    """
    found = _scored(model, outputs.candidates, inputs.image.shape[1:3])
    score = found.score
    if outputs.expected is not None:
        score = jnp.where(score > -jnp.inf, score * outputs.expected, score)
    joints = sampling.affine(found.joints, inputs.to_source)
    if not model.fuse:
        return _suppressed(model, found, joints, score, outputs.candidates)
    return persons(
        joints,
        found.joint_score,
        score,
        sigmas=model.skeleton.sigmas,
        nms=model.nms,
        fuse=True,
        max_poses=model.max_poses,
    )


def _suppressed(
    model: Model,
    found: Scored,
    joints: Array,
    score: Array,
    by_scale: Sequence[Candidates],
) -> Poses:
    """DEKR's suppression, which keeps poses by their mean keypoint map value.

    Of more than `max_poses` those of the highest such value stay. The order of the
    poses matters: those of larger scales come first.
    """
    number = np.split(
        np.arange(joints.shape[1]), np.cumsum([x.score.shape[1] for x in by_scale])[:-1]
    )
    larger = sorted(range(len(by_scale)), key=lambda i: -by_scale[i].heatmap.shape[2])
    order = jnp.asarray(np.concatenate([number[i] for i in larger]))
    heat = jnp.where(score > -jnp.inf, jnp.mean(found.response, axis=-1), -jnp.inf)
    stays = suppression.distance_nms(
        joints[:, order], heat[:, order], model.near, model.shared
    )
    value, index = jax.lax.top_k(stays, min(model.max_poses, stays.shape[1]))
    index = order[index]  # [B, P]
    score = jnp.take_along_axis(score, index, axis=1)
    score = jnp.where(value > -jnp.inf, score, -jnp.inf)
    best = jnp.argsort(-score, axis=1, stable=True)
    index = jnp.take_along_axis(index, best, axis=1)
    joint_score = jnp.take_along_axis(found.joint_score, index[..., None], axis=1)
    joints = jnp.take_along_axis(joints, index[..., None, None], axis=1)
    return located(joints, joint_score, jnp.take_along_axis(score, best, axis=1))


# Names of the published checkpoints; see torch_names.py. DEKR with HRNet only. The
# rescoring net has a file of its own: `occjax.convert --torch MODEL.pth,RESCORE.pth`.
TORCH_NAMES = (
    *prefixed(hrnet.TORCH_NAMES, "", "trunk"),
    (r"transition_heatmap\.0", "heatmap_in/conv", "conv"),
    (r"transition_heatmap\.1", "heatmap_in/bn", "norm"),
    (r"transition_offset\.0", "offset_in/conv", "conv"),
    (r"transition_offset\.1", "offset_in/bn", "norm"),
    (r"head_heatmap\.0\.0\.conv(\d)", r"heatmap_block/conv\1/conv", "conv"),
    (r"head_heatmap\.0\.0\.bn(\d)", r"heatmap_block/conv\1/bn", "norm"),
    (r"head_heatmap\.1", "heatmap_head", "conv"),
    *(
        (r"offset_feature_layers\." + pattern, target, kind)
        for pattern, target, kind in adaptive_conv.TORCH_NAMES
    ),
    (r"offset_final_layer\.(\d+)", r"offset_head/joint\1", "conv"),
    *prefixed(rescorer.TORCH_NAMES, "", "rescorer"),
)
PUBLISHED = {"hrnet": TORCH_NAMES}
PRETRAINED = {"hrnet": prefixed(hrnet.IMAGENET_NAMES, "", "trunk")}
