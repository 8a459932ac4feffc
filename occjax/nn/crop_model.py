"""What the models of top-down methods share: how crops are learnt from and read."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from occjax.nn import guided_refine
from occjax.nn.erase_reconstruct import Repaired
from occjax.nn.guided_refine import GuidedRefine
from occjax.nn.heatmap_net import STRIDE, HeatmapNet
from occjax.ops import (
    crop_maps,
    decoding,
    flip_test,
    joint_maps,
    losses,
    multi_scale,
    sampling,
)
from occjax.ops.image import IMAGENET_MEAN, IMAGENET_STD, normalize
from occjax.skeletons import Skeleton
from occjax.types import Array, Inputs, Labels


class Reading(NamedTuple):
    """What the network gives for crops.

    In a test all but `pose` are means of both orientations, `maps` of all scales too.
    """

    maps: tuple[Array, ...]  # [B, h, w, J] of each stage, last best
    canvas: Array | None = None  # [B, 2, 3] pixel -> source, where scales were averaged
    hidden: Array | None = None  # [B, h, w] where joints are occluded, in a test
    labelled: Array | None = None  # [B, J] logits of having a label
    pose: Array | None = None  # [B, J, 2] input pixels, the maps' moved by the graph
    everybody: Array | None = None  # [B, h, w, J] everybody's heatmaps, in training
    repaired: tuple[Repaired, ...] = ()  # of each repaired stage, in training


class Guides(NamedTuple):
    """What the graph may look at."""

    features: Array  # [B, h, w, C] of stride 4
    maps: Array  # [B, h, w, J] heatmaps


class CropModel(nn.Module):
    """A `HeatmapNet` of a method, and how it learns and is read.

    A method's model builds the network in `network`; its parameters are the model's,
    besides `refiner` (a `GuidedRefine`).
    """

    skeleton: Skeleton  # of the dataset
    backbone: Mapping[str, Any]  # name of a file of occjax/nn, and its fields
    deconv: tuple[int, ...] = ()  # channels of doublings after it; SimpleBaseline's
    attend: Mapping[str, Any] | None = None  # fields of `Discriminate`; DAG's
    refine: Mapping[str, Any] | None = None  # fields of `GuidedRefine`; DAG's. With
    # "hops" 0 there is none
    double: bool = False  # maps of stride 2 instead of 4; DAG's
    mean: tuple[float, ...] = IMAGENET_MEAN  # RGB, of pixels in [0, 1]
    std: tuple[float, ...] = IMAGENET_STD
    sigma: float = 2.0  # of the Gaussians, map pixels
    sharpness: float = 0.0  # of the loss "location"; 0 leaves it out
    hardest: int = 0  # joints of a person that the loss looks at, 0 for all
    decoder: str = "quarter"  # one of crop_maps.DECODERS
    flip_test: bool = True  # average with the mirrored crop
    shift_heatmap: bool = True  # its map moved right by a pixel, as published
    confident: float = 0.2  # joints scored above it make the pose's score
    nms: float = 0.9  # OKS from above which the lower of an image's poses goes
    dtype: Any = jnp.float32  # computation of the network

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            ValueError: naming the field, what was expected and what was found.
        """
        crop_maps.check(self.decoder)
        if self.sigma <= 0:
            raise ValueError(f"sigma: expected more than 0, got {self.sigma}.")
        super().__post_init__()

    @property
    def stride(self) -> int:
        """Input pixels per map pixel."""
        return STRIDE // 2 if self.double else STRIDE

    @property
    def refines(self) -> bool:
        """Whether a graph moves the pose of the maps."""
        return guided_refine.wanted(self.refine)

    def network(self, **fields: Any) -> HeatmapNet:
        """The network of these fields and of those that a method adds."""
        return HeatmapNet(
            self.skeleton.num_joints,
            self.backbone,
            self.deconv,
            attend=self.attend,
            double=self.double,
            dtype=self.dtype,
            **fields,
        )

    def setup(self) -> None:
        """Builds the network, whose parameters are those of this model."""
        self.net = self.network()
        nn.share_scope(self, self.net)
        if self.refine is not None and self.refines:
            self.refiner = GuidedRefine(self.skeleton, **self.refine, dtype=self.dtype)

    def pixels(self, image: Array) -> Array:
        """The normalised crops [B, H, W, 3] that the network sees."""
        return normalize(image, self.dtype, self.mean, self.std)

    def __call__(self, inputs: Inputs, *, train: bool) -> Reading:
        """Reads the heatmaps of crops [B, H, W, 3]."""
        return self.learn(inputs) if train else self.read(inputs)

    def learn(self, inputs: Inputs) -> Reading:
        """What the network gives for crops [B, H, W, 3] in training.

        The pose that the graph moves is that of the highest pixels.
        """
        found = self.net(self.pixels(inputs.image), train=True)
        reading = Reading(
            found.heatmaps,
            labelled=found.labelled,
            everybody=found.everybody,
            repaired=found.repaired,
        )
        if not self.refines:
            return reading
        maps = found.heatmaps[-1]
        start, _ = decoding.highest_pixel(maps)
        guides = Guides(found.features[-1], maps)
        pose = self._moved(self.stride * start, guides, inputs, train=True)
        return reading._replace(pose=pose)

    def read(self, inputs: Inputs) -> Reading:
        """What the network gives for crops in a test, with all the scales they have.

        The graph is guided by the upright crop at scale 1.
        """
        found, guides = self._test(inputs.image)
        if inputs.scaled:
            others = (self._test(image)[0].maps[-1] for image in inputs.scaled)
            every = [found.maps[-1], *others]
            maps, canvas = multi_scale.of_crops(every, inputs, self.stride)
            found = found._replace(maps=maps, canvas=canvas)
        if not self.refines:
            return found
        start, _ = crop_maps.joints(self, found, inputs)
        start = sampling.affine(start, sampling.inverse(inputs.to_source))
        pose = self._moved(start, guides, inputs, train=False)
        return found._replace(pose=pose)

    def _moved(
        self, start: Array, guides: Guides, inputs: Inputs, *, train: bool
    ) -> Array:
        """The pose [B, J, 2] that the graph makes of another one, input pixels."""
        guide, stride = guides.features, STRIDE
        if self.refiner.seek:
            guide, stride = guides.maps, self.stride
        return self.refiner.of_crops(guide, start, stride, inputs, train=train)

    def _test(self, image: Array) -> tuple[Reading, Guides]:
        """One scale, and what the upright crops have for the graph."""
        image = self.pixels(image)
        if self.flip_test:
            both = flip_test.orientations(image, 1)
            image = both.reshape(-1, *both.shape[2:])
        found = self.net(image, train=False)
        maps, hidden, labelled = found.heatmaps, None, found.labelled
        guides = Guides(found.features[-1], maps[-1])
        if found.repaired and found.repaired[-1].map is not None:
            hidden = found.repaired[-1].map[..., None]
        if self.flip_test:
            flip, shift = self.skeleton.flip, self.shift_heatmap
            mean = functools.partial(flip_test.average_rows, shift=shift)
            maps = tuple(mean(one, flip) for one in maps)
            hidden = None if hidden is None else mean(hidden, (0,))
            if labelled is not None:
                labelled = flip_test.average_vectors(labelled, flip)
            guides = Guides(*(x[::2] for x in guides))
        hidden = None if hidden is None else hidden[..., 0]
        return Reading(maps, hidden=hidden, labelled=labelled), guides


def loss_terms(
    model: CropModel, outputs: Reading, labels: Labels
) -> dict[str, tuple[Array, Array]]:
    """The losses of `crop_maps`, and "everybody" and "pose" if the model has them.

    "everybody" is the squared error of everybody's heatmaps, "pose" the absolute error
    of the moved joints in a frame where the crop runs from -1 to 1 (DAG, equation 4).

    Raises:
        ValueError: the labels leave out all people but the crop's own, whom the maps
            of everybody need.
    """
    terms = crop_maps.loss_terms(
        outputs.maps,
        labels,
        sigma=model.sigma,
        stride=model.stride,
        sharpness=model.sharpness,
        hardest=model.hardest,
    )
    size = outputs.maps[-1].shape[1:3]
    if outputs.everybody is not None:
        terms["everybody"] = everybody_term(
            outputs.everybody, labels, model.sigma, model.stride
        )
    if outputs.pose is not None:
        terms["pose"] = _pose(outputs.pose, labels, size, model)
    return terms


def everybody_term(
    maps: Array, labels: Labels, sigma: float, stride: int
) -> tuple[Array, Array]:
    """Squared error of everybody's heatmaps [B, h, w, J].

    Raises:
        ValueError: the labels leave out all people but the crop's own.
    """
    if labels.joints.shape[1] == 1:
        raise ValueError("attend.everybody: it needs a data.max_persons above 1.")
    size = (maps.shape[1], maps.shape[2])
    target, weight = joint_maps.everybody(labels, size, sigma, stride)
    spread = jnp.broadcast_to(weight[:, None, None], target.shape)
    return losses.weighted_mse(maps, target, spread)


def _pose(
    pose: Array, labels: Labels, size: tuple[int, int], model: CropModel
) -> tuple[Array, Array]:
    """Absolute error of joints [B, J, 2]; those without a heatmap count as 0."""
    _, weight = joint_maps.targets_of_crops(labels, size, model.sigma, model.stride)
    reach = model.stride * jnp.asarray(size[::-1], pose.dtype).reshape(1, 1, 2)
    truth = labels.joints[:, 0].astype(pose.dtype)
    known = jnp.broadcast_to((weight > 0)[..., None], pose.shape)
    error = jnp.where(known, jnp.abs(pose - jnp.where(known, truth, pose)), 0)
    values = jnp.mean(error * 2 / reach, axis=-1)
    return values, jnp.ones_like(values)
