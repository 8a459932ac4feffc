"""OPEC-Net after its base network (Qiu et al., ECCV 2020), with the ablations."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn import feature_adaption, heads, progressive_gcn
from occjax.nn.sem_graph import Bones
from occjax.nn.torch_names import prefixed
from occjax.ops.decoding import soft_argmax
from occjax.ops.sampling import bilinear, from_unit, to_unit
from occjax.types import Array

STARTS = ("integral", "fc")
ADAPTIONS = ("cascaded", "separate", "none")
DESIGNS = ("progressive", "last_pose", "one_stage")


class Outputs(NamedTuple):
    """Poses in the frame of the pose given, and where the image was looked at."""

    poses: tuple[Array, ...]  # [B, J, 2] of each stage, float32 or wider
    maps: tuple[Array, ...]  # those sampled, [B, h, w, C] for each stage
    start: Array | None  # [B, J, 2], the integral pose; None: no image is looked at
    heatmaps: Array | None  # [B, H, W, J] that it comes from


class OpecHead(nn.Module):
    """Adapts the base network's maps, samples them at a first pose, corrects the pose.

    The fields from `image_guided` on are the rows of Table 6, none of which is in the
    released code. With "one_stage" all features enter at once; "last_pose" is the other
    reading of "no progressive design": three stages, of which only the last answers.
    """

    joints: int
    bones: Bones
    start: str = "integral"  # one of STARTS; "fc" stands in the released quick start
    exact: bool = False  # sample at the pose; False: published, up to a pixel short
    image_guided: bool = True  # (a)
    design: str = "progressive"  # one of DESIGNS (b)
    single_scale: bool = False  # the finest map for all stages (c)
    adaption: str = "cascaded"  # one of ADAPTIONS: "none" is (d), "separate" (e)
    widths: tuple[int, int, int] = (256, 128, 128)  # channels of the adapted maps
    features: int = 128  # channels of the graph before the first stage
    dtype: Any = jnp.float32  # computation only

    def __post_init__(self):
        """Refuses words that name no variant."""
        for field, known in (
            ("start", STARTS),
            ("adaption", ADAPTIONS),
            ("design", DESIGNS),
        ):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"{field}: expected one of {', '.join(known)}, "
                    f"got {getattr(self, field)!r}."
                )
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        maps: Sequence[Array],
        heatmaps: Array | None,
        pose: Array | None,
        *,
        train: bool,
        mask: Array | None = None,
    ) -> Outputs:
        """Corrects poses.

        Args:
            maps: three of the base network, the coarsest first, [B, H, W, C] and so on.
            heatmaps: of the base network, [B, H, W, J]; read only without adaption.
            pose: [B, J, 3], x and y in -1 .. 1 and score; None: the integral pose.
            train: normalise by this batch.
            mask: [B] bool, the poses that enter its statistics.
        """
        first: Any = None
        sampled: list[Any] = [None] * len(maps)
        if self.image_guided:
            maps, heatmaps = self._adapted(maps, heatmaps)
            first, score = self._start(heatmaps)
            if pose is None:
                pose = jnp.concatenate((first, score[..., None]), axis=-1)
            maps = (maps[-1],) * len(maps) if self.single_scale else maps
            found = [self._sampled(x, first) for x in maps]
            one = self.design == "one_stage"
            sampled = [jnp.concatenate(found, axis=-1)] if one else [*found]
        else:
            heatmaps = None
        if pose is None:
            raise ValueError("pose: without image guidance there is no integral one.")
        gcn = progressive_gcn.ProgressiveGCN(
            self.bones,
            self.features,
            every=self.design == "progressive",
            dtype=self.dtype,
            name="gcn",
        )
        poses = gcn(pose, sampled, train=train, mask=mask)
        return Outputs(poses, tuple(maps), first, heatmaps)

    def _adapted(
        self, maps: Sequence[Array], heatmaps: Array | None
    ) -> tuple[Sequence[Array], Array]:
        """Maps to sample, and heatmaps of the first pose."""
        if self.adaption == "none":
            if heatmaps is None:
                raise ValueError("heatmaps: expected the base network's, got None.")
            return maps, heatmaps
        return feature_adaption.FeatureAdaption(
            self.joints,
            self.widths,
            fusion=self.adaption == "cascaded",
            dtype=self.dtype,
            name="adaption",
        )(maps)

    def _start(self, heatmaps: Array) -> tuple[Array, Array]:
        """The pose at which maps are sampled, -1 .. 1, [B, J, 2], and its score."""
        pose, score = soft_argmax(heatmaps)
        if self.start == "fc":
            return heads.JointMLP(dtype=self.dtype, name="start_fc")(heatmaps), score
        return to_unit(pose, (0, 0), _size(heatmaps)), score

    def _sampled(self, features: Array, pose: Array) -> Array:
        """Features at the joints, [B, J, C]."""
        high = _size(features) if self.exact else _size(features) - 1
        return bilinear(features, from_unit(pose, (0, 0), high))


def _size(maps: Array) -> np.ndarray:
    """Width and height of maps."""
    return np.asarray((maps.shape[2], maps.shape[1]))


# Names of OPEC-Net's code; see torch_names.py.
TORCH_NAMES = (
    *prefixed(feature_adaption.TORCH_NAMES, "heat_map_generator.", "adaption"),
    *prefixed(progressive_gcn.TORCH_NAMES, "", "gcn"),
    *prefixed(heads.JOINT_MLP_NAMES, "FC.", "start_fc"),
)
