"""Poseur (Mao et al., ECCV 2022): a crop's pose regressed by a transformer, in its way.

A coarse pose from the mean of the coarsest features starts the queries of a decoder,
which looks at all levels of a backbone around each joint and moves it. There are no
heatmaps: every pose learns by residual log-likelihood estimation. DAG's attention and
graph can be had here too: the first on the finest level, the second on the last pose.

It is sized for small computers. The published network also encodes the levels with
deformable attention, gives each training pose noisy copies, and moves points after an
inverse sigmoid.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn import backbone as build_backbone
from occjax.nn import check_stride, crop_model, guided_refine, resnet
from occjax.nn.attention import Discriminate
from occjax.nn.guided_refine import GuidedRefine
from occjax.nn.heatmap_net import STRIDE
from occjax.nn.query_decoder import Guess, Laterals, QueryDecoder, guess
from occjax.nn.residual_flow import ResidualFlow
from occjax.nn.residual_flow import loss as residual_loss
from occjax.nn.torch_names import prefixed
from occjax.ops import crop_maps, flip_test, rescoring, sampling
from occjax.ops.image import IMAGENET_MEAN, IMAGENET_STD, normalize
from occjax.ops.poses import located
from occjax.skeletons import Skeleton
from occjax.types import Array, Inputs, Labels, Poses

PRETRAINED = {"resnet": prefixed(resnet.IMAGENET_NAMES, "", "trunk")}
suppress = crop_maps.suppress


class Outputs(NamedTuple):
    """The poses of B crops; in a test means of both orientations."""

    joints: Array  # [B, J, 2] input pixels, the last guess or that moved by the graph
    score: Array  # [B, J] in 0..1
    guesses: tuple[Guess, ...] = ()  # the start, and of each layer; in training
    everybody: Array | None = None  # [B, h, w, J] everybody's heatmaps, in training
    flow: Mapping[str, Any] | None = None  # parameters of both flows, in training


class Model(nn.Module):
    """Backbone, decoder and the flows that its losses need.

    Parameters: `trunk` (the backbone), `neck`, `attend`, `start`, `decoder`, `refiner`,
    and `flows_coarse` and `flows_regress`, which a test does not need.
    """

    skeleton: Skeleton  # of the dataset
    backbone: Mapping[str, Any]  # name of a file of occjax/nn, and its fields
    features: int = 96  # channels of every level and query
    layers: int = 3  # of the decoder
    heads: int = 4
    points: int = 4  # that a head looks at on a level
    attend: Mapping[str, Any] | None = None  # fields of `Discriminate`; DAG's
    refine: Mapping[str, Any] | None = None  # fields of `GuidedRefine`; DAG's. With
    # "hops" 0 there is none
    mean: tuple[float, ...] = IMAGENET_MEAN  # RGB, of pixels in [0, 1]
    std: tuple[float, ...] = IMAGENET_STD
    sigma: float = 2.0  # of everybody's Gaussians, map pixels
    flip_test: bool = True  # average with the mirrored crop
    confident: float = 0.2  # joints scored above it make the pose's score
    nms: float = 0.9  # OKS from above which the lower of an image's poses goes
    dtype: Any = jnp.float32  # computation of the network; poses are float32 or wider

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            ValueError: naming the field, what was expected and what was found.
        """
        for field in ("layers", "points", "sigma"):
            if getattr(self, field) <= 0:
                raise ValueError(
                    f"{field}: expected more than 0, got {getattr(self, field)}."
                )
        super().__post_init__()

    @property
    def refines(self) -> bool:
        """Whether a graph moves the last pose."""
        return guided_refine.wanted(self.refine)

    def setup(self) -> None:
        """Builds the network and the flows."""
        how: Any = {"dtype": self.dtype}
        self.trunk = build_backbone(**self.backbone, **how)
        self.neck = Laterals(self.features, **how)
        if self.attend is not None:
            self.attention = Discriminate(
                self.skeleton.num_joints, **self.attend, **how, name="attend"
            )
        self.start = Start(self.skeleton.num_joints, **how)
        self.decoder = QueryDecoder(self.layers, self.heads, self.points, **how)
        if self.refine is not None and self.refines:
            self.refiner = GuidedRefine(self.skeleton, **self.refine, **how)
        self.flows = {"coarse": ResidualFlow(), "regress": ResidualFlow()}

    def __call__(self, inputs: Inputs, *, train: bool) -> Outputs:
        """Reads the poses of crops [B, H, W, 3].

        Raises:
            ValueError: there are several scales, or the backbone does not give features
                of stride 4.
        """
        if inputs.scaled:
            raise ValueError("scales: Poseur reads crops of one scale alone.")
        image = normalize(inputs.image, self.dtype, self.mean, self.std)
        both = not train and self.flip_test
        if both:
            image = flip_test.orientations(image, 1)
            image = image.reshape(-1, *image.shape[2:])
        levels, everybody = self._levels(image, train=train)
        start = self.start(levels[0])
        found = (start, *self.decoder(levels, start.mean))
        size = image.shape[2:0:-1]
        joints = sampling.from_unit(found[-1].mean, (0, 0), size)
        score = jnp.clip(1 - jnp.mean(found[-1].spread, axis=-1), 0, 1)
        finest = levels[-1]
        if both:
            joints, score = self._upright(joints, score, size[0])
            finest = finest[::2]
        if self.refines:
            joints = self.refiner.of_crops(finest, joints, STRIDE, inputs, train=train)
        if not train:
            return Outputs(joints, score)
        return Outputs(joints, score, found, everybody, self._flows(start))

    def _levels(self, image: Array, *, train: bool) -> tuple[list[Array], Array | None]:
        """Levels, coarsest first, the finest attended, and everybody's heatmaps."""
        if isinstance(self.trunk, resnet.Backbone):
            found = self.trunk.stages(image, train=train)[::-1]
        else:
            found = self.trunk(image, train=train)
        levels = self.neck(
            found if isinstance(found, Sequence) else (found,), train=train
        )
        check_stride(levels[-1], image, STRIDE)
        if self.attend is None:
            return levels, None
        attended = self.attention(levels[-1])
        return [*levels[:-1], attended.features], attended.everybody

    def _upright(self, joints: Array, score: Array, width: int) -> tuple[Array, Array]:
        """Means over rows [2 B, J, ...] of both orientations in turn: [B, J, ...]."""
        flip = self.skeleton.flip
        poses = joints.reshape(-1, 2, 1, 1, *joints.shape[1:])
        mean = flip_test.mean_pose(poses, (0,), flip, width)[:, 0, 0]
        return mean, flip_test.average_vectors(score, flip)

    def _flows(self, start: Guess) -> Mapping[str, Any]:
        """Parameters of both flows: they see labels, so the loss applies them."""
        if self.is_initializing():
            for flow in self.flows.values():
                flow(start.mean)
        return {name: flow.variables["params"] for name, flow in self.flows.items()}


class Start(nn.Module):
    """A pose from the mean of features: Poseur's coarse proposal."""

    joints: int
    dtype: Any = jnp.float32  # computation of the mean

    @nn.compact
    def __call__(self, features: Array) -> Guess:
        """Maps features [B, h, w, C] to poses that start in the middle of the crop."""
        wide = np.promote_types(self.dtype, np.float32)
        middle = jnp.zeros((features.shape[0], self.joints, 2), wide)
        return guess(jnp.mean(features, axis=(1, 2)), middle, "move")


def loss_terms(
    model: Model, outputs: Outputs, labels: Labels
) -> dict[str, tuple[Array, Array]]:
    """The losses "coarse" and "regress", and "everybody" and "pose" of DAG's parts.

    "coarse" is the loss of residual log-likelihood estimation of the start, "regress"
    its mean over the layers, each kind with a flow of its own as in the published code.
    They can be below 0. "everybody" is that of `crop_model`, "pose" the absolute error
    of the pose that the graph moved, in a frame where the crop runs from -1 to 1. All
    but "everybody" leave out joints that are unlabelled or outside of the crop.

    Raises:
        ValueError: the labels leave out all people but the crop's own, whom the maps
            of everybody need.
    """
    size = tuple(STRIDE * side for side in labels.ignore.shape[:0:-1])  # W, H
    truth, weight = _truth(outputs.joints, labels, size)
    target = sampling.to_unit(truth, (0, 0), size)
    first, *others = (
        _likelihood(outputs, name, one, target)
        for name, one in zip(
            ("coarse", *("regress",) * model.layers), outputs.guesses, strict=True
        )
    )
    regress = jnp.mean(jnp.stack(others), axis=0)
    terms = {"coarse": (first, weight), "regress": (regress, weight)}
    if outputs.everybody is not None:
        terms["everybody"] = crop_model.everybody_term(
            outputs.everybody, labels, model.sigma, STRIDE
        )
    if model.refines:
        found = sampling.to_unit(outputs.joints, (0, 0), size)
        terms["pose"] = (jnp.mean(jnp.abs(found - target), axis=-1), weight)
    return terms


def _truth(joints: Array, labels: Labels, size: tuple[int, ...]) -> tuple[Array, Array]:
    """Where joints should be [B, J, 2], input pixels, and their weights [B, J].

    Joints without weight are said to be right where `joints` has them: labels may hold
    anything there.
    """
    truth = labels.joints[:, 0].astype(joints.dtype)
    ends = jnp.asarray(size, joints.dtype).reshape(1, 1, 2)
    within = jnp.all((truth >= 0) & (truth <= ends - 1), axis=-1)
    known = within & (labels.visibility[:, 0] > 0)
    truth = jnp.where(known[..., None], truth, jax.lax.stop_gradient(joints))
    return truth, known.astype(joints.dtype)


def _likelihood(outputs: Outputs, name: str, found: Guess, target: Array) -> Array:
    """The loss [B, J] of a pose by the flow `name`."""
    flow = ResidualFlow()

    def log_density(residual: Array) -> Array:
        assert outputs.flow is not None
        return flow.apply({"params": outputs.flow[name]}, residual)

    return residual_loss(log_density, found.mean, found.spread, target)


def decode(model: Model, outputs: Outputs, inputs: Inputs) -> Poses:
    """One pose a crop; a joint's score is 1 less the mean of its deviations.

    The score of the pose is that of its confident joints and the box's, as in other
    methods of crops; the published code adds mean, maximum and the box's score.
    """
    joints = sampling.affine(outputs.joints, inputs.to_source)
    score = rescoring.confident_mean(outputs.score, model.confident)
    if inputs.box_score is not None:
        score = score * inputs.box_score
    return located(joints[:, None], outputs.score[:, None], score[:, None])
