"""What the models of top-down methods share: how crops are learnt from and read."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from occjax.nn import heatmap_net
from occjax.ops import crop_maps
from occjax.ops.image import IMAGENET_MEAN, IMAGENET_STD, normalize
from occjax.skeletons import Skeleton
from occjax.types import Array, Inputs


class CropModel(nn.Module):
    """A `HeatmapNet` of a method, and how it learns and is read.

    A method's model builds the network in `network`; its parameters are the model's.
    """

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

    def network(self, **fields: Any) -> heatmap_net.HeatmapNet:
        """The network of these fields and of those that a method adds."""
        joints = self.skeleton.num_joints
        return heatmap_net.HeatmapNet(
            joints, self.backbone, self.deconv, dtype=self.dtype, **fields
        )

    def setup(self) -> None:
        """Builds the network, whose parameters are those of this model."""
        self.net = self.network()
        nn.share_scope(self, self.net)

    def pixels(self, image: Array) -> Array:
        """The normalised crops [B, H, W, 3] that the network sees."""
        return normalize(image, self.dtype, self.mean, self.std)

    def read(self, inputs: Inputs) -> heatmap_net.Reading:
        """What the network gives for crops in a test."""
        flip = self.skeleton.flip if self.flip_test else None
        shift = self.shift_heatmap
        return heatmap_net.read(self.net, inputs, self.pixels, flip, shift=shift)
