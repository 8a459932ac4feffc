"""Top-down heatmap regression: one person a crop, one heatmap a joint.

With HRNet as backbone it is HRNet's pose network (Sun et al., CVPR 2019), with a ResNet
and deconvolutions SimpleBaseline's (Xiao et al., ECCV 2018), with hourglasses Newell's
(ECCV 2016), whose stacks all predict. They learn by the mean squared error of Gaussians
and test with the mirrored crop and a quarter offset.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from occjax.nn import heatmap_net
from occjax.nn.heatmap_net import STRIDE, HeatmapNet
from occjax.ops import crop_maps
from occjax.ops.image import IMAGENET_MEAN, IMAGENET_STD, normalize
from occjax.skeletons import Skeleton
from occjax.types import Array, Inputs, Labels

PUBLISHED, PRETRAINED = heatmap_net.PUBLISHED, heatmap_net.PRETRAINED
decode, suppress = crop_maps.decode, crop_maps.suppress


class Outputs(NamedTuple):
    """Heatmaps; in a test the mean of both orientations, and of all scales."""

    maps: tuple[Array, ...]  # [B, h, w, J] of each stage of the network, last best
    canvas: Array | None = None  # [B, 2, 3] their pixel -> source, with several scales


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
    decoder: str = "quarter"  # one of crop_maps.DECODERS
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
        crop_maps.check(self.decoder)
        if self.sigma <= 0:
            raise ValueError(f"sigma: expected more than 0, got {self.sigma}.")
        super().__post_init__()

    def setup(self) -> None:
        """Builds the network, whose parameters are those of this model."""
        self.net = HeatmapNet(
            self.skeleton.num_joints, self.backbone, self.deconv, dtype=self.dtype
        )
        nn.share_scope(self, self.net)

    def __call__(self, inputs: Inputs, *, train: bool) -> Outputs:
        """Reads the heatmaps of crops [B, H, W, 3]."""
        if train:
            return Outputs(self.net(self.pixels(inputs.image), train=True).heatmaps)
        flip = self.skeleton.flip if self.flip_test else None
        shift = self.shift_heatmap
        found = heatmap_net.read(self.net, inputs, self.pixels, flip, shift=shift)
        return Outputs(found.maps, found.canvas)

    def pixels(self, image: Array) -> Array:
        """The normalised crops [B, H, W, 3] that the network sees."""
        return normalize(image, self.dtype, self.mean, self.std)


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
