"""DEKR's rescoring net (Geng et al., CVPR 2021, section 3.4)."""

from flax import linen as nn

from occjax.ops.rescoring import limb_features
from occjax.types import Array

# The limbs that the published nets look at. Those with numbers 9 and 11 measure the
# person: the sides of the torso for COCO, for CrowdPose a thigh and a shin.
LINKS = {
    "coco": (
        *((0, 1), (0, 2), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 6), (5, 7)),
        *((5, 11), (6, 8), (6, 12), (7, 9), (8, 10), (11, 12), (11, 13), (12, 14)),
        *((13, 15), (14, 16)),
    ),
    "crowdpose": (
        *((12, 13), (13, 0), (13, 1), (0, 2), (1, 3), (2, 4), (3, 5), (0, 6)),
        *((1, 7), (6, 8), (7, 9), (8, 10), (9, 11), (6, 7), (0, 1)),
    ),
}
_START = nn.initializers.variance_scaling(1, "fan_in", "uniform")  # Kaiming, a = 1


class Rescorer(nn.Module):
    """Expects the OKS of a pose from the shape of its limbs and its joint scores.

    Two hidden layers of 256 with ReLU; parameters `layer1` to `layer3`.
    """

    links: tuple[tuple[int, int], ...]  # one of LINKS

    @nn.compact
    def __call__(self, joints: Array, joint_score: Array) -> Array:
        """Maps joints [B, N, J, 2], source pixels, and scores [B, N, J] to [B, N]."""
        x = limb_features(joints, joint_score, self.links)
        for i in (1, 2):
            x = nn.relu(nn.Dense(256, kernel_init=_START, name=f"layer{i}")(x))
        return nn.Dense(1, kernel_init=_START, name="layer3")(x)[..., 0]


# Names of the official code; see torch_names.py.
TORCH_NAMES = ((r"l(\d)", r"layer\1", "linear"),)
