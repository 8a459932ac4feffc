"""What stands between a backbone and its heatmaps in top-down networks."""

from typing import Any

import jax.numpy as jnp
import numpy as np
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


class JointMLP(nn.Module):
    """Regresses a joint from its whole map by a network that all joints share.

    What OPEC-Net's quick start has in place of the soft-argmax. It knows one size of
    map, and nothing keeps its answer on the map.
    """

    features: tuple[int, ...] = (1024, 1024)  # hidden channels
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, maps: Array) -> Array:
        """Maps heatmaps [B, H, W, J] to x and y [B, J, 2], float32 or wider."""
        batch, height, width, joints = maps.shape
        x = jnp.moveaxis(maps, -1, 1).reshape(batch, joints, height * width)
        for i, features in enumerate(self.features, start=1):
            x = nn.relu(self._dense(features, self.dtype, f"fc{i}")(x))
        wide = np.promote_types(self.dtype, np.float32)
        return self._dense(2, wide, "out")(x)

    def _dense(self, features: int, dtype: Any, name: str) -> nn.Dense:
        kaiming = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        return nn.Dense(features, dtype=dtype, kernel_init=kaiming, name=name)


# Names of human-pose-estimation.pytorch, of HRNet's and of OPEC-Net's code; see
# torch_names.py.
DECONVOLUTION_NAMES = (
    (r"deconv_layers\.0", "deconv1", "conv"),
    (r"deconv_layers\.1", "bn1", "norm"),
    (r"deconv_layers\.3", "deconv2", "conv"),
    (r"deconv_layers\.4", "bn2", "norm"),
    (r"deconv_layers\.6", "deconv3", "conv"),
    (r"deconv_layers\.7", "bn3", "norm"),
)
HEATMAP_NAMES = (("final_layer", "conv", "conv"),)
JOINT_MLP_NAMES = (
    (r"0\.0", "fc1", "linear"),
    (r"1\.0", "fc2", "linear"),
    ("2", "out", "linear"),
)
