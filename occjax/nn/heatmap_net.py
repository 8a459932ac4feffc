"""From a crop to heatmaps: the network that all top-down methods start from."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn import backbone as build_backbone
from occjax.nn import check_stride, cpn, fastpose, heads, hourglass, hrnet, resnet
from occjax.nn.attention import Discriminate
from occjax.nn.erase_reconstruct import EraseReconstruct, Repaired
from occjax.nn.label_head import LabelHead
from occjax.nn.resize import doubled
from occjax.nn.torch_names import prefixed
from occjax.types import Array

STRIDE = 4  # input pixels per pixel of the finest features


class Maps(NamedTuple):
    """Heatmaps, and what they were made of."""

    heatmaps: tuple[Array, ...]  # [B, h, w, J] of each stage, last best
    features: tuple[Array, ...]  # [B, h, w, C] on the way up, finest last
    deepest: Array  # [B, h, w, C] the coarsest that there is, at most features[0]
    repaired: tuple[Repaired, ...] = ()  # the last stage's last
    labelled: Array | None = None  # [B, J] logits of having a label
    everybody: Array | None = None  # [B, h, w, J] heatmaps of everybody in the crop


class HeatmapNet(nn.Module):
    """A backbone with a linear map for each joint, or one that has heads of its own.

    Parameters: `trunk` (the backbone), `upsample` (with `deconv`), `repair`, `attend`,
    `head` and `label_head`.
    The features that the head reads have stride 4. A backbone with heads of its own
    repairs its features itself and has neither attention nor doubled maps.
    """

    joints: int
    backbone: Mapping[str, Any]  # name of a file of occjax/nn, and its fields
    deconv: tuple[int, ...] = ()  # channels of doublings after it; SimpleBaseline's
    repair: Mapping[str, Any] | None = None  # fields of `EraseReconstruct`; OASNet's
    attend: Mapping[str, Any] | None = None  # fields of `Discriminate`; DAG's
    labels: Mapping[str, Any] | None = None  # fields of `LabelHead`; OA-HPE's
    double: bool = False  # maps of stride 2 instead of 4; DAG's
    dtype: Any = jnp.float32  # computation; heatmaps are float32 or wider

    def setup(self) -> None:
        """Builds the backbone, and heads where it has none.

        Raises:
            ValueError: a field does not suit a backbone with heads of its own.
        """
        if self.labels is not None:
            self.tell = LabelHead(
                self.joints, **self.labels, dtype=self.dtype, name="label_head"
            )
        build = _WITH_HEADS.get(self.backbone["name"])
        if build is not None:
            for field in ("attend", "double"):
                if getattr(self, field) not in (None, False):
                    raise ValueError(
                        f"{field}: {self.backbone['name']} has heads of its own, "
                        "which it does not reach."
                    )
            fields = {k: v for k, v in self.backbone.items() if k != "name"}
            if self.repair is not None:
                fields["repair"] = self.repair
            self.trunk = build(self.joints, **fields, dtype=self.dtype)
            return
        self.trunk = build_backbone(**self.backbone, dtype=self.dtype)
        if self.deconv:
            self.upsample = heads.Deconvolution(tuple(self.deconv), dtype=self.dtype)
        if self.repair is not None:
            self.mend = EraseReconstruct(
                self.joints, **self.repair, dtype=self.dtype, name="repair"
            )
        if self.attend is not None:
            self.attention = Discriminate(
                self.joints,
                double=self.double,
                **self.attend,
                dtype=self.dtype,
                name="attend",
            )
        wide = np.promote_types(self.dtype, np.float32)
        self.head = heads.Heatmaps(self.joints, dtype=wide)

    def __call__(self, image: Array, *, train: bool) -> Maps:
        """Maps normalised images [B, H, W, 3] to heatmaps.

        Raises:
            ValueError: the backbone does not give features of stride 4, or refuses the
                size of the image.
        """
        maps = self._maps(image, train=train)
        if self.labels is None:
            return maps
        return maps._replace(labelled=self.tell(maps.deepest, train=train))

    def _maps(self, image: Array, *, train: bool) -> Maps:
        found = self.trunk(image, train=train)
        if isinstance(found, fastpose.Outputs):
            return Maps((found.heatmaps,), found.maps, found.maps[0])
        if isinstance(found, cpn.Outputs):
            maps = (*found.coarse, found.refined)
            return Maps(maps, tuple(found.levels), found.deepest)
        if isinstance(found, list):
            pairs = [(x.heatmaps, x.features) for x in found]
            repaired = tuple(x.repaired for x in found if x.repaired is not None)
            maps, features = (tuple(x) for x in zip(*pairs, strict=True))
            return Maps(maps, features, features[-1], repaired)
        features = found if isinstance(found, tuple) else (found,)
        deepest = features[0]
        if self.deconv:
            features = tuple(self.upsample(found, train=train))
        check_stride(features[-1], image, STRIDE)
        finest, repaired, everybody = features[-1], (), None
        if self.repair is not None:
            repaired = (self.mend(finest, train=train),)
            finest = repaired[0].features
        if self.attend is not None:
            early = features[-2] if len(features) > 1 else None
            finest, everybody = self.attention(finest, early)
        # a linear map of enlarged features, as in DAG's code, is the enlarged map
        maps = self.head(finest)
        maps = (doubled(maps) if self.double else maps,)
        features = (*features[:-1], finest)
        return Maps(maps, features, deepest, repaired, everybody=everybody)


_WITH_HEADS = {
    "cpn": cpn.CPN,
    "fastpose": fastpose.FastPose,
    "hourglass": hourglass.Hourglass,
}

# Names of published files by backbone; see torch_names.py. HRNet's are those of
# deep-high-resolution-net.pytorch, ResNet's of human-pose-estimation.pytorch, those of
# hourglasses of pytorch-pose and princeton-vl's code, which share none, CPN's those of
# pytorch-cpn.
_HEAD_NAMES = prefixed(heads.HEATMAP_NAMES, "", "head")
PUBLISHED = {
    "hrnet": (*_HEAD_NAMES, *prefixed(hrnet.TORCH_NAMES, "", "trunk")),
    "resnet": (
        *_HEAD_NAMES,
        *prefixed(heads.DECONVOLUTION_NAMES, "", "upsample"),
        *prefixed(resnet.TORCH_NAMES, "", "trunk"),
    ),
    "hourglass": (
        *prefixed(hourglass.TORCH_NAMES, "", "trunk"),
        *prefixed(hourglass.PRINCETON_NAMES, "", "trunk"),
    ),
    "fastpose": prefixed(fastpose.TORCH_NAMES, "", "trunk"),
    "cpn": prefixed(cpn.TORCH_NAMES, "", "trunk"),
}
PRETRAINED = {
    "hrnet": prefixed(hrnet.IMAGENET_NAMES, "", "trunk"),
    "resnet": prefixed(resnet.IMAGENET_NAMES, "", "trunk"),
    "cpn": prefixed(resnet.IMAGENET_NAMES, "", "trunk/trunk"),
}
