"""FastPose, the pose network of AlphaPose (Fang et al., PAMI 2022): SE-ResNet, DUC."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn import resnet
from occjax.nn.blocks import ConvBN
from occjax.nn.heads import Heatmaps
from occjax.nn.resize import pixel_shuffle
from occjax.nn.torch_names import prefixed
from occjax.types import Array


class Outputs(NamedTuple):
    """Heatmaps and the decoder's maps, which OPEC-Net samples."""

    heatmaps: Array  # [B, H / 4, W / 4, joints], float32 or wider
    maps: tuple[Array, Array, Array]  # F1, F2, F3: strides 16, 8 and 4


class FastPose(nn.Module):
    """SE-ResNet whose features are brought up by pixel shuffling.

    Its first batch norm forgets as all others do; OPEC-Net's copy gives it a momentum
    of 0.01, which matters in training only.
    """

    joints: int  # 33 in OPEC-Net's weights: 17 of COCO, then 16 of MPII
    depth: int = 50  # 50, 101 or 152
    width: int = 64  # of the ResNet
    duc: tuple[int, int] = (1024, 512)  # channels before each shuffle
    dtype: Any = jnp.float32  # computation only

    @nn.compact
    def __call__(self, image: Array, *, train: bool) -> Outputs:
        """Maps images [B, H, W, 3] to heatmaps and maps.

        The maps have 8 * width, duc[0] / 4 and duc[1] / 4 channels.

        Raises:
            ValueError: a side of the image is no multiple of 32, or the depth is not
                one of a ResNet with bottlenecks.
        """
        if image.shape[1] % 32 or image.shape[2] % 32:
            raise ValueError(
                f"image: sides must be multiples of 32, got {image.shape[1:3]}."
            )
        trunk = resnet.Backbone(
            self.depth, self.width, excite=True, dtype=self.dtype, name="trunk"
        )
        maps = [pixel_shuffle(trunk(image, train=train))]
        for i, features in enumerate(self.duc, start=1):
            # Dense upsampling convolution (Wang et al., WACV 2018).
            widen = ConvBN(features, dtype=self.dtype, name=f"duc{i}")
            maps.append(pixel_shuffle(widen(maps[-1], train=train)))
        wide = np.promote_types(self.dtype, np.float32)
        last = Heatmaps(self.joints, kernel=3, dtype=wide, name="final")
        return Outputs(last(maps[-1]), (maps[0], maps[1], maps[2]))


# Names of AlphaPose; see torch_names.py.
TORCH_NAMES = (
    *prefixed(resnet.TORCH_NAMES, "preact.", "trunk"),
    (r"duc(\d)\.conv", r"duc\1/conv", "conv"),
    (r"duc(\d)\.bn", r"duc\1/bn", "norm"),
    ("conv_out", "final/conv", "conv"),
)
