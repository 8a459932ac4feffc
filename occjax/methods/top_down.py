"""Top-down heatmap regression: one person a crop, one heatmap a joint.

With HRNet as backbone it is HRNet's pose network (Sun et al., CVPR 2019), with a ResNet
and deconvolutions SimpleBaseline's (Xiao et al., ECCV 2018), with hourglasses Newell's
(ECCV 2016), whose stacks all predict. They learn by the mean squared error of Gaussians
and test with the mirrored crop and a quarter offset.
"""

from occjax.nn import crop_model, heatmap_net
from occjax.nn.crop_model import CropModel, Reading
from occjax.ops import crop_maps
from occjax.types import Inputs

PUBLISHED, PRETRAINED = heatmap_net.PUBLISHED, heatmap_net.PRETRAINED
loss_terms = crop_model.loss_terms
decode, suppress = crop_maps.decode, crop_maps.suppress


class Model(CropModel):
    """A `CropModel` of the plain network."""

    def __call__(self, inputs: Inputs, *, train: bool) -> Reading:
        """Reads the heatmaps of crops [B, H, W, 3]."""
        return self.learn(inputs.image) if train else self.read(inputs)
