"""OA-HPE (Zhao et al., Information Sciences 2020): which joints would have a label.

A top-down network, by default the cascaded pyramid network (CPN, Chen et al., CVPR
2018) that the paper's baseline is, with a subnet on its deepest features that predicts
for each joint whether annotators would label it. What annotators leave out is what
cannot be seen or guessed, so a pose need not be scored by it: see ksnet.py.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from occjax.nn import crop_model, heatmap_net
from occjax.nn.crop_model import CropModel, Reading
from occjax.nn.heatmap_net import STRIDE, HeatmapNet
from occjax.ops import crop_maps, heatmap, joint_maps, losses
from occjax.types import UNLABELLED, VISIBLE, Array, Inputs, Labels, Poses

PUBLISHED, PRETRAINED = heatmap_net.PUBLISHED, heatmap_net.PRETRAINED
suppress = crop_maps.suppress
# Of the Gaussians that CPN's code draws, kernels of 23, 17, 13 and 9: OpenCV's rule
# 0.3 ((kernel - 1) / 2 - 1) + 0.8. The coarsest level has the widest, as was intended;
# the published training has them the other way round by mistake.
CPN_SIGMAS = (3.8, 2.9, 2.3, 1.7)


class Model(CropModel):
    """A `CropModel` with a `LabelHead`, by default as CPN's code has it."""

    labels: Mapping[str, Any] = FrozenDict()  # fields of `LabelHead`
    sigma: float = 1.7  # of the last stage's Gaussians, map pixels
    coarse_sigmas: tuple[float, ...] = CPN_SIGMAS  # of the stages before it
    hardest: int = 8  # joints of a person that the last stage learns, 0 for all
    decoder: str = "second"  # one of crop_maps.DECODERS
    confident: float = -1.0  # joints scored above it make the pose's score: all

    def network(self, **fields: Any) -> HeatmapNet:
        """The network with the visibility subnet."""
        return super().network(labels=self.labels, **fields)

    def __call__(self, inputs: Inputs, *, train: bool) -> Reading:
        """Reads the heatmaps and labels of crops [B, H, W, 3].

        Raises:
            ValueError: `coarse_sigmas` does not suit the network.
        """
        if not train:
            return self.read(inputs)
        found = self.learn(inputs)
        self._check_stages(len(found.maps) - 1)
        return found

    def _check_stages(self, coarse: int) -> None:
        if len(self.coarse_sigmas) != coarse:
            raise ValueError(
                f"coarse_sigmas: expected {coarse}, one for each stage of the network "
                f"but the last, got {tuple(self.coarse_sigmas)}."
            )


def loss_terms(
    model: Model, outputs: Reading, labels: Labels
) -> dict[str, tuple[Array, Array]]:
    """The losses of `crop_model` for the last stage, "coarse" and "labelled".

    "coarse" is that of the stages before, their mean: the squared error of maps that
    show visible joints alone and are empty for all others. "labelled" is the
    cross-entropy of equation 8, summed over the joints; a joint outside of the crop has
    no label. The paper adds its losses plainly, but its maps have peaks of 255: with
    peaks of 1, as here, "labelled" weighs 1 / 255^2, and "coarse" one half.
    """
    *coarse, refined = outputs.maps
    terms = crop_model.loss_terms(model, outputs._replace(maps=(refined,)), labels)
    if coarse:
        stages = zip(coarse, model.coarse_sigmas, strict=True)
        found = [_squares(maps, labels, sigma) for maps, sigma in stages]
        values, weights = crop_maps.added(found)
        terms["coarse"] = values / len(coarse), weights
    size = refined.shape[1] * model.stride, refined.shape[2] * model.stride
    terms["labelled"] = losses.binary(outputs.labelled, has_label(labels, size))
    return terms


def _squares(maps: Array, labels: Labels, sigma: float) -> tuple[Array, Array]:
    """Squared error of maps that are empty for whatever cannot be seen."""
    visible = labels.visibility[:, 0] == VISIBLE
    joints = labels.joints[:, 0]
    target, _ = joint_maps.targets(joints, visible, maps.shape[1:3], sigma, STRIDE)
    return losses.weighted_mse(maps, target, jnp.ones_like(target))


def has_label(labels: Labels, size: tuple[int, int]) -> Array:
    """[B, J] bool, which joints of each crop's person have a label within the crop."""
    inside = heatmap.inside(labels.joints[:, 0], size)
    return (labels.visibility[:, 0] > UNLABELLED) & inside


def decode(model: Model, outputs: Reading, inputs: Inputs) -> Poses:
    """One pose a crop with the probability that each joint has a label."""
    poses = crop_maps.decode(model, outputs, inputs)
    assert outputs.labelled is not None  # the network has a `LabelHead`
    return poses._replace(labelled=jax.nn.sigmoid(outputs.labelled)[:, None])
