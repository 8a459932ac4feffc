"""OPEC-Net and CoupleGraph (Qiu et al., ECCV 2020): a heatmap pose, corrected.

A base network gives heatmaps of a person's crop. Their pose goes through a graph
network that sees the image where an integral pose tells it to look, and comes out
corrected: the twelve limb joints, which all datasets share. With `couple` a second
graph sees two entangled people at once. Coordinates inside run from -1 to 1.

The published code is followed, and the places say so. CoupleGraph was never released:
it is built here as its paper's few sentences can be read.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict

from occjax.nn import fastpose, heatmap_net, opec_head
from occjax.nn.heatmap_net import STRIDE, HeatmapNet
from occjax.nn.progressive_gcn import ProgressiveGCN
from occjax.nn.torch_names import prefixed
from occjax.ops import (
    couples,
    decoding,
    flip_test,
    frames,
    graph,
    joint_maps,
    losses,
    rescoring,
    sampling,
    suppression,
)
from occjax.ops.image import IMAGENET_MEAN, IMAGENET_STD, normalize
from occjax.ops.poses import located
from occjax.skeletons import OCPOSE, Skeleton
from occjax.types import Array, Inputs, Labels, Poses

LIMBS, BONES = OCPOSE.joints, OCPOSE.bones
FRAMES = ("crop", "box")
# Of a side of the box, added at each end. The released code then cuts boxes off at the
# image, which is not done here.
EXPANDED = 0.15


class Corrected(NamedTuple):
    """Poses of the graph network for N nodes, in a frame of -1 to 1."""

    poses: tuple[Array, ...]  # [B, N, 2] of each stage
    to_frame: Array  # [B, 2, 3], source pixels -> frame


class Couples(NamedTuple):
    """The same for each person and the partner, whose nodes come second."""

    corrected: Corrected  # of B * P rows
    partner: Array  # [B, P]
    paired: Array  # [B, P] bool


class Outputs(NamedTuple):
    """What base and graph give for B crops, or B * P with couples."""

    maps: tuple[Array]  # the heatmaps [B, h, w, J] of the base network
    joints: Array  # [B, J, 2] source pixels, decoded from them or given
    joint_score: Array  # [B, J]
    corrected: Corrected  # of the limbs
    start: Array | None  # [B, N, 2] the integral pose, in the frame of the crop
    to_source: Array  # [B, 2, 3] of the inputs
    couples: Couples | None = None


class Model(nn.Module):
    """The base network's parameters (`HeatmapNet`), `opec`, and with couples `couple`.

    Crops are [B, H, W, 3]; with `couple` those of everybody on an image,
    [B, P, H, W, 3].
    """

    skeleton: Skeleton  # of the dataset
    backbone: Mapping[str, Any]  # of the base network, with three maps on the way up
    deconv: tuple[int, ...] = ()
    base_joints: int = 0  # of its heatmaps; 0: the skeleton's
    channels: tuple[int, ...] = ()  # of the skeleton's joints among them; (): in order
    frozen_base: bool = True  # neither its weights nor its statistics learn
    head: Mapping[str, Any] = FrozenDict()  # fields of opec_head.OpecHead: Table 6
    initial: str = "base"  # pose to correct: the base's, or the "integral" one
    frame: str = "crop"  # "box": the released code's, which mixes two frames
    keep_above: float = 0.2  # base joints scored higher keep their place, as published
    least_joints: int = 6  # labelled limbs of a person to learn from
    least_oks: float = 0.3  # of the pose to be corrected, to learn from it
    couple: bool = False  # CoupleGraph as the last stage
    couple_iou: float = 0.1  # boxes of a couple overlap more
    across: bool = True  # edges between the two people of a couple
    mean: tuple[float, ...] = IMAGENET_MEAN  # RGB, of pixels in [0, 1]
    std: tuple[float, ...] = IMAGENET_STD
    sigma: float = 2.0  # of the base's Gaussians, map pixels
    flip_test: bool = True  # of the base alone
    shift_heatmap: bool = True
    confident: float = 0.2  # joints scored above it make the pose's score
    nms: float = 0.9  # OKS from above which the lower of an image's poses goes
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            ValueError: naming the field, what was expected and what was found.
        """
        for field, known in (("initial", ("base", "integral")), ("frame", FRAMES)):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"{field}: expected one of {', '.join(known)}, "
                    f"got {getattr(self, field)!r}."
                )
        missing = set(LIMBS) - set(self.skeleton.joints)
        if missing:
            raise ValueError(
                f"skeleton {self.skeleton.name}: it lacks {', '.join(sorted(missing))}."
            )
        super().__post_init__()

    @property
    def limbs(self) -> np.ndarray:
        """Index of each limb joint in the skeleton, [12]."""
        return np.array([self.skeleton.joints.index(name) for name in LIMBS])

    def setup(self) -> None:
        """Builds base, head and couple graph."""
        joints = self.base_joints or self.skeleton.num_joints
        self.net = HeatmapNet(joints, self.backbone, self.deconv, dtype=self.dtype)
        nn.share_scope(self, self.net)
        self.opec = opec_head.OpecHead(len(LIMBS), BONES, **self.head, dtype=self.dtype)
        if self.couple:
            pair = graph.couple(BONES, len(LIMBS))
            if not self.across:
                pair = pair[: 2 * len(BONES)]
            self.pair_graph = ProgressiveGCN(pair, dtype=self.dtype, name="couple")

    def __call__(self, inputs: Inputs, *, train: bool) -> Outputs:
        """Reads, corrects, and with `couple` corrects again.

        Raises:
            ValueError: the inputs have further scales.
        """
        if inputs.scaled:
            raise ValueError("scales: OPEC-Net corrects poses at scale 1 alone.")
        if not self.couple:
            return self._single(inputs, train=train)[0]
        people = _each(inputs)
        single = self._single(people, train=train, fixed=True)
        found, maps = jax.lax.stop_gradient(single)
        pairs = self._couples(inputs, found, maps, train=train)
        return found._replace(couples=pairs)

    def _single(
        self, inputs: Inputs, *, train: bool, fixed: bool = False
    ) -> tuple[Outputs, tuple[Array, ...]]:
        """What base and head give for crops [B, H, W, 3], and the maps they sample.

        With `fixed` batch norms stay as they are in training too.
        """
        fixed_base = fixed or self.frozen_base
        base = self._base(inputs, train=train, fixed=fixed_base)
        heatmaps, to_source = base.heatmaps[-1], inputs.to_source
        joints, score = decoding.quarter_offset(jax.lax.stop_gradient(heatmaps))
        joints = decoding.to_source(joints, to_source, STRIDE)
        if inputs.start_pose is not None:
            given = inputs.start_pose[:, 0]
            joints, score = sampling.affine(given[..., :2], to_source), given[..., 2]
        to_frame = self._frame(inputs)
        pose = None
        if self.initial == "base":
            places = sampling.affine(joints[:, self.limbs], to_frame)
            pose = jnp.concatenate((places, score[:, self.limbs, None]), axis=-1)
        learns = train and not fixed
        head = self.opec(base.features, heatmaps[..., self.limbs], pose, train=learns)
        corrected = Corrected(head.poses, to_frame)
        found = Outputs((heatmaps,), joints, score, corrected, head.start, to_source)
        return found, head.maps

    def _base(self, inputs: Inputs, *, train: bool, fixed: bool) -> heatmap_net.Maps:
        """The base network's maps; heatmaps of a test are the mean of orientations."""
        image = self.pixels(inputs)
        if train or not self.flip_test:
            found = self.net(image, train=train and not fixed)
            found = found._replace(heatmaps=(self._channels(found.heatmaps[-1]),))
            return jax.lax.stop_gradient(found) if fixed else found
        both = flip_test.orientations(image, 1)
        found = self.net(both.reshape(-1, *both.shape[2:]), train=False)
        maps = flip_test.average_rows(
            self._channels(found.heatmaps[-1]),
            self.skeleton.flip,
            shift=self.shift_heatmap,
        )
        upright = tuple(x.reshape(-1, 2, *x.shape[1:])[:, 0] for x in found.features)
        return found._replace(heatmaps=(maps,), features=upright)

    def pixels(self, inputs: Inputs) -> Array:
        """The normalised crops [B, H, W, 3] that the base network sees."""
        image = normalize(inputs.image, self.dtype, self.mean, self.std)
        if self.frame == "box":
            image = jnp.where(_inside(inputs), image, 0)
        return image

    def _channels(self, heatmaps: Array) -> Array:
        """The base's maps of the skeleton's joints."""
        return heatmaps[..., np.array(self.channels)] if self.channels else heatmaps

    def _frame(self, inputs: Inputs) -> Array:
        """[B, 2, 3], source pixels to where poses run from -1 to 1."""
        if self.frame == "box":
            return frames.of_box(inputs.box, EXPANDED)
        height, width = inputs.image.shape[1:3]
        size = jnp.broadcast_to(
            jnp.asarray((0, 0, width, height), jnp.float32), (inputs.image.shape[0], 4)
        )
        return frames.then(sampling.inverse(inputs.to_source), frames.of_box(size))

    def _couples(
        self, inputs: Inputs, found: Outputs, maps: tuple[Array, ...], *, train: bool
    ) -> Couples:
        """Corrects each person together with the partner, in the frame of both."""
        there = jnp.asarray(inputs.box_score) > 0
        partner, paired = couples.partners(inputs.box, there, self.couple_iou)
        frame = frames.of_box(couples.union(inputs.box, partner).reshape(-1, 4))
        limbs = _limbs_of(found.corrected)  # [B * P, N, 2] source pixels
        score = found.joint_score[:, self.limbs, None]
        places = sampling.affine(_both(limbs, partner), frame)
        pose = jnp.concatenate((places, _both(score, partner)), axis=-1)
        # every person's features come from the own crop, in which both were drawn
        inside = sampling.affine(limbs, sampling.inverse(found.to_source))
        stride = [inputs.image.shape[2] / x.shape[1] for x in maps]
        sampled = [
            _both(sampling.bilinear(x, inside / s), partner)
            for x, s in zip(maps, stride, strict=True)
        ]
        poses = self.pair_graph(pose, sampled, train=train, mask=paired.reshape(-1))
        return Couples(Corrected(poses, frame), partner, paired)


def _inside(inputs: Inputs) -> Array:
    """[B, H, W, 1]: pixels of the expanded box; the released code hides the others."""
    height, width = inputs.image.shape[1:3]
    rows, columns = jnp.mgrid[:height, :width]
    pixels = jnp.stack((columns, rows), axis=-1).astype(jnp.float32)
    pixels = jnp.broadcast_to(pixels[None], (inputs.image.shape[0], *pixels.shape))
    source = sampling.affine(pixels, inputs.to_source)
    away = jnp.abs(sampling.affine(source, frames.of_box(inputs.box, EXPANDED)))
    return jnp.all(away <= 1, axis=-1, keepdims=True)


def _each(inputs: Inputs) -> Inputs:
    """Inputs of B * P crops from those of B images with P people."""
    people = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs)
    if people.start_pose is not None:
        people = people._replace(start_pose=people.start_pose[:, None])
    # rows without a person hold zeros, which no map can be the inverse of
    there = jnp.asarray(people.box_score).reshape(-1, 1, 1) > 0
    plain = jnp.eye(2, 3, dtype=people.to_source.dtype)[None]
    return people._replace(to_source=jnp.where(there, people.to_source, plain))


def _both(values: Array, partner: Array) -> Array:
    """[B * P, N, ...] -> [B * P, 2 N, ...]: the partner's follow one's own."""
    own = values.reshape(*partner.shape, *values.shape[1:])
    index = partner.reshape(*partner.shape, *(1,) * (values.ndim - 1))
    other = jnp.take_along_axis(own, index, axis=1)
    return jnp.concatenate((own, other), axis=2).reshape(
        values.shape[0], -1, *values.shape[2:]
    )


def _limbs_of(corrected: Corrected) -> Array:
    """The last stage's pose [B, N, 2] in source pixels."""
    return sampling.affine(corrected.poses[-1], sampling.inverse(corrected.to_frame))


def loss_terms(
    model: Model, outputs: Outputs, labels: Labels
) -> dict[str, tuple[Array, Array]]:
    """The losses "pose1" to "pose3" of the stages, "start" of the integral pose.

    All are absolute errors in the frame from -1 to 1, over the coordinates of labelled
    limbs; who has too few of them, or comes with too bad a pose, teaches nothing. If
    the base learns as well, "heatmap" is its own. The published factors are 0.3, 0.5
    and 1, and 1 for the start.
    """
    truth = _Truth.of(model, outputs, labels)
    if outputs.couples is not None:
        _, partner, paired = outputs.couples
        known = _both(truth.known[..., None], partner)[..., 0]
        known &= jnp.all(_both(truth.learnt[:, None], partner), axis=1, keepdims=True)
        known &= paired.reshape(-1, 1)
        source = _both(truth.source, partner)
        return _pose_losses(outputs.couples.corrected, source, known)
    known = truth.known & truth.learnt[:, None]
    terms = _pose_losses(outputs.corrected, truth.source, known)
    if outputs.start is not None:
        target = sampling.affine(truth.source, outputs.corrected.to_frame)
        terms["start"] = _l1(outputs.start, target, known)
    if not model.frozen_base:
        size = outputs.maps[-1].shape[1:3]
        target, weight = joint_maps.targets_of_crops(labels, size, model.sigma, STRIDE)
        weight = jnp.broadcast_to(weight[:, None, None], target.shape)
        terms["heatmap"] = losses.weighted_mse(outputs.maps[-1], target, weight)
    return terms


class _Truth(NamedTuple):
    """Labels of the limbs of B people."""

    source: Array  # [B, N, 2] source pixels
    known: Array  # [B, N] bool, labelled
    learnt: Array  # [B] bool, who is fit to be learnt from

    @classmethod
    def of(cls, model: Model, outputs: Outputs, labels: Labels) -> "_Truth":
        """The persons of crops, or with couples everybody."""
        if outputs.couples is None:
            labels = Labels(*(None if x is None else x[:, :1] for x in labels))
        flat = [x.reshape(-1, *x.shape[2:]) for x in labels[:3]]
        joints, visibility = flat[0][:, model.limbs], flat[1][:, model.limbs]
        source = sampling.affine(joints, outputs.to_source)
        known = visibility > 0
        zoom = jnp.abs(sampling.determinant(outputs.to_source))
        alike = rescoring.best_oks(
            outputs.joints[:, None, model.limbs],
            labels._replace(
                joints=source[:, None],
                visibility=visibility[:, None],
                area=(flat[2] * zoom)[:, None],
            ),
            OCPOSE.sigmas,
        )[:, 0]
        enough = jnp.sum(known, axis=1) >= model.least_joints
        return cls(source, known, enough & (alike >= model.least_oks))


def _pose_losses(
    corrected: Corrected, source: Array, known: Array
) -> dict[str, tuple[Array, Array]]:
    """A loss for each stage, numbered so that the last is the third."""
    target = sampling.affine(source, corrected.to_frame)
    first = 4 - len(corrected.poses)
    return {
        f"pose{i}": _l1(pose, target, known)
        for i, pose in enumerate(corrected.poses, start=first)
    }


def _l1(pose: Array, target: Array, known: Array) -> tuple[Array, Array]:
    weight = jnp.broadcast_to(known[..., None], target.shape)
    return losses.weighted_l1(pose, target, weight)


def decode(model: Model, outputs: Outputs, inputs: Inputs) -> Poses:
    """One pose a person: limbs that the base is not sure of are the corrected ones.

    Scores stay the base network's.
    """
    limbs, score = _limbs_of(outputs.corrected), outputs.joint_score
    if outputs.couples is not None:
        together = _limbs_of(outputs.couples.corrected)[:, : len(LIMBS)]
        limbs = jnp.where(outputs.couples.paired.reshape(-1, 1, 1), together, limbs)
    sure = score[:, model.limbs] >= model.keep_above
    limbs = jnp.where(sure[..., None], outputs.joints[:, model.limbs], limbs)
    joints = outputs.joints.at[:, model.limbs].set(limbs)
    total = rescoring.confident_mean(score, model.confident)
    rows = (joints.shape[0], 1) if outputs.couples is None else inputs.image.shape[:2]
    joints, score = (x.reshape(*rows, *x.shape[1:]) for x in (joints, score))
    total = total.reshape(rows)
    if inputs.box_score is not None:
        box_score = inputs.box_score.reshape(rows)
        total = jnp.where(box_score > 0, total * box_score, -jnp.inf)
    return located(joints, score, total)


def suppress(model: Model, poses: Poses, area: Array) -> Array:
    """Scores [B, P] of the poses of whole images, -inf where a better one is alike."""
    return suppression.nms_of_crops(poses, model.skeleton.sigmas, area, model.nms)


# Names of OPEC-Net's end-to-end checkpoints, whose base is AlphaPose; see
# torch_names.py. Those of a frozen base hold the head alone.
PUBLISHED = {
    "fastpose": (
        *prefixed(fastpose.TORCH_NAMES, "generator.model.pyranet.", "trunk"),
        *prefixed(opec_head.TORCH_NAMES, "", "opec"),
    )
}
PRETRAINED = {
    **heatmap_net.PRETRAINED,
    "fastpose": prefixed(fastpose.TORCH_NAMES, "", "trunk"),
}
