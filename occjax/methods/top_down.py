"""Top-down heatmap regression: one person a crop, one heatmap a joint.

With HRNet as backbone it is HRNet's pose network (Sun et al., CVPR 2019), with a ResNet
and deconvolutions SimpleBaseline's (Xiao et al., ECCV 2018), with hourglasses Newell's
(ECCV 2016), whose stacks all predict. They learn by the mean squared error of Gaussians
and test with the mirrored crop and a quarter offset.
"""

from typing import NamedTuple

from occjax.nn import heatmap_net
from occjax.nn.crop_model import CropModel
from occjax.nn.heatmap_net import STRIDE
from occjax.ops import crop_maps
from occjax.types import Array, Inputs, Labels

PUBLISHED, PRETRAINED = heatmap_net.PUBLISHED, heatmap_net.PRETRAINED
decode, suppress = crop_maps.decode, crop_maps.suppress


class Outputs(NamedTuple):
    """Heatmaps; in a test the mean of both orientations, and of all scales."""

    maps: tuple[Array, ...]  # [B, h, w, J] of each stage of the network, last best
    canvas: Array | None = None  # [B, 2, 3] their pixel -> source, with several scales


class Model(CropModel):
    """A `CropModel` of the plain network."""

    def __call__(self, inputs: Inputs, *, train: bool) -> Outputs:
        """Reads the heatmaps of crops [B, H, W, 3]."""
        if train:
            return Outputs(self.net(self.pixels(inputs.image), train=True).heatmaps)
        found = self.read(inputs)
        return Outputs(found.maps, found.canvas)


def loss_terms(
    model: Model, outputs: Outputs, labels: Labels
) -> dict[str, tuple[Array, Array]]:
    """The losses of `crop_maps`, those of several stages added."""
    return crop_maps.loss_terms(
        outputs.maps,
        labels,
        sigma=model.sigma,
        stride=STRIDE,
        sharpness=model.sharpness,
        hardest=model.hardest,
    )
