"""What stands between a backbone and its heatmaps in top-down networks."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from occjax.nn.blocks import BatchNorm, Deconv, conv
from occjax.types import Array


class Deconvolution(nn.Module):
    """SimpleBaseline's head (Xiao et al., ECCV 2018): transposed convolutions.

    Each doubles the size and is followed by batch norm and ReLU.
    """

    features: tuple[int, ...] = (256, 256, 256)  # channels of each
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> list[Array]:
        """Maps [B, H, W, C] to [B, 2 H, 2 W, features[0]] and on, coarsest first."""
        outputs = []
        for i, features in enumerate(self.features, start=1):
            x = Deconv(features, dtype=self.dtype, name=f"deconv{i}")(x)
            x = BatchNorm(dtype=self.dtype, name=f"bn{i}")(x, train=train)
            x = nn.relu(x)
            outputs.append(x)
        return outputs


class Heatmaps(nn.Module):
    """One linear map per joint, the last layer of SimpleBaseline and HRNet."""

    joints: int
    kernel: int = 1
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps features [B, H, W, C] to heatmaps [B, H, W, joints]."""
        last = conv(
            self.joints, self.kernel, use_bias=True, dtype=self.dtype, name="conv"
        )
        return last(x)


# Names of human-pose-estimation.pytorch, and of HRNet's code; see torch_names.py.
DECONVOLUTION_NAMES = (
    (r"deconv_layers\.0", "deconv1", "conv"),
    (r"deconv_layers\.1", "bn1", "norm"),
    (r"deconv_layers\.3", "deconv2", "conv"),
    (r"deconv_layers\.4", "bn2", "norm"),
    (r"deconv_layers\.6", "deconv3", "conv"),
    (r"deconv_layers\.7", "bn3", "norm"),
)
HEATMAP_NAMES = (("final_layer", "conv", "conv"),)
