"""OASNet (Zhou, Chen, Gao, Wang, Lu, ECCV 2020): occluded features, cleaned.

A head finds where joints are occluded; features are erased there and filled in from
around. In training every crop comes twice, with pasted patches and without, through the
same network as one batch, and the features of the first learn to be like those of the
second. A test has one branch, and no more than the network.

No code was ever released. Where the paper is silent, the places say what was chosen.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from occjax.nn import crop_model, heatmap_net, siamese
from occjax.nn.critic import Critic
from occjax.nn.crop_model import CropModel, Reading
from occjax.nn.erase_reconstruct import Repaired
from occjax.nn.heatmap_net import STRIDE, HeatmapNet
from occjax.ops import crop_maps, joint_maps, sampling
from occjax.types import Array, Inputs, Labels, Poses

PUBLISHED, PRETRAINED = heatmap_net.PUBLISHED, heatmap_net.PRETRAINED
suppress = crop_maps.suppress


class Outputs(NamedTuple):
    """What the network gives for B crops; in training with V views of each.

    Views take turns in the rows, the occluded one first: V is 2 where the inputs have
    a clean twin, else 1.
    """

    read: Reading  # of B crops, or B * V views
    critic: Mapping[str, Any] | None = None  # its parameters, in training

    @property
    def maps(self) -> tuple[Array, ...]:
        """Heatmaps, as every method of crops has them."""
        return self.read.maps


class Model(CropModel):
    """A `CropModel` that is repaired; also `critic` for optimal transport."""

    repair: Mapping[str, Any] = FrozenDict()  # fields of `EraseReconstruct`
    mimic: str = "transport"  # one of siamese.MIMICS
    transport: Mapping[str, Any] = FrozenDict()  # arguments of `sinkhorn.divergence`
    detach_clean: bool = False  # features of the clean view count as constant
    mask: str = "soft"  # of natural occlusion: "soft", "binary" or "none"

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            ValueError: naming the field, what was expected and what was found.
        """
        siamese.check(self)
        super().__post_init__()

    def network(self, **fields: Any) -> HeatmapNet:
        """The network with repaired features."""
        return super().network(repair=self.repair, **fields)

    def setup(self) -> None:
        """Builds the network and, if it is wanted, the critic."""
        super().setup()
        if self.mimic == "transport":
            self.critic = Critic(dtype=self.dtype)

    def __call__(self, inputs: Inputs, *, train: bool) -> Outputs:
        """Reads the heatmaps of crops [B, H, W, 3], in training of both views.

        Raises:
            ValueError: there is nothing to mimic.
        """
        if train:
            return self._views(inputs)
        return Outputs(self.read(inputs))

    def _views(self, inputs: Inputs) -> Outputs:
        """Both views as rows of one batch, a device having both of its crops."""
        needed = not self.is_initializing()
        found = self.learn(siamese.rows(inputs, self.mimic, needed=needed))
        critic = None
        if self.mimic == "transport":
            critic = siamese.learnt(self.critic, found.repaired[-1].features)
        return Outputs(found, critic)


def loss_terms(
    model: Model, outputs: Outputs, labels: Labels
) -> dict[str, tuple[Array, Array]]:
    """The losses of `crop_model`, "occlusion" and "mimic", as far as they are wanted.

    Both views teach, each by its own occlusion. "occlusion" is the squared error of the
    map, or the cross-entropy of the classes (equation 1). The factors that are meant
    are 0.5 for squared errors, and for "mimic" 0.001, or 100 with "kl".
    """
    views, found = siamese.labels_of_rows(labels), outputs.read
    terms = crop_model.loss_terms(model, found, views)
    size = found.repaired[-1].features.shape[1:3]
    sigma = model.sigma * model.stride / STRIDE
    hidden = joint_maps.occluded(views, size, sigma, STRIDE)
    told = [_occlusion(one, hidden, views) for one in found.repaired]
    told = [term for term in told if term is not None]
    if told:
        terms["occlusion"] = crop_maps.added(told)
    if model.mimic != "none":
        features = found.repaired[-1].features
        terms["mimic"] = siamese.distance(model, features, hidden, outputs.critic)
    return terms


def _occlusion(
    repaired: Repaired, hidden: Array, labels: Labels
) -> tuple[Array, Array] | None:
    """The loss of what a stage tells of occlusion, if it tells any."""
    if repaired.map is not None:
        values = jnp.mean(jnp.square(repaired.map - hidden), axis=(1, 2))
        return values, jnp.ones_like(values)
    if repaired.classes is not None:
        likely = jax.nn.log_softmax(repaired.classes)
        truth = jax.nn.one_hot(labels.visibility[:, 0], likely.shape[-1])
        values = -jnp.sum(truth.astype(likely.dtype) * likely, axis=(1, 2))
        return values, jnp.ones_like(values)
    return None


def decode(model: Model, outputs: Outputs, inputs: Inputs) -> Poses:
    """One pose a crop; a joint is visible as far as the map knows no occlusion there.

    The map learns to be 1 at occluded joints and 0 at others, so that its mean is a
    probability; the paper makes no such use of it.
    """
    poses = crop_maps.decode(model, outputs.read, inputs)
    if outputs.read.hidden is None:
        return poses
    to_map = sampling.inverse(inputs.to_source)
    points = sampling.affine(poses.joints[:, 0], to_map) / STRIDE
    hidden = sampling.bilinear(outputs.read.hidden[..., None], points)[..., 0]
    return poses._replace(visible=1 - jnp.clip(hidden, 0, 1)[:, None])
