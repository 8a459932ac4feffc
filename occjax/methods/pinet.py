"""PINet (Wang, Zhang, Hua, NeurIPS 2021): whole poses from the parts that can be seen.

Each visible part of a person detects that person and regresses all joints (part-based
pose generation); a graph network corrects them (pose refinement); poses of one person
are merged joint by joint (pose fusion). With parts="center", refine="none" and
fuse=False it is SPM's centre regression.

Where the published code and the paper differ, the code is followed, and the place says
so. Coordinates inside are map pixels, a quarter of input pixels.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from occjax.nn import backbone as build_backbone
from occjax.nn import check_stride, hrnet, pose_refine
from occjax.nn.attention import SpatialAttention
from occjax.nn.blocks import conv
from occjax.nn.guided_refine import GuidedRefine
from occjax.nn.torch_names import prefixed
from occjax.ops import flip_test, grouping, heatmap, part_losses, sampling
from occjax.ops.image import normalize
from occjax.ops.part_poses import Candidates, Maps, candidates, persons, scored
from occjax.skeletons import Skeleton
from occjax.types import Array, Inputs, Labels, Poses

STRIDE = 4  # input pixels per map pixel
LEAST_EXTENT = 2.0  # map pixels; poses that have hardly begun to be learnt are points
REFINE = (*pose_refine.GRAPHS, "multi_hop", "none")


class Proposals(NamedTuple):
    """Where training asks for poses: n pixels for each of K parts."""

    pixels: Array  # [B, K, n, 2] int32, map pixels, x before y
    valid: Array  # [B, K, n] bool; the others neither learn nor enter statistics


class Outputs(NamedTuple):
    """Maps of the upright image, and poses at the proposals or at the peaks."""

    maps: Maps
    proposals: Proposals | None = None  # training with refinement
    refined: Array | None = None  # [B, K, n, J, 2] refined offsets there
    candidates: tuple[Candidates, ...] = ()  # test: one for each scale
    features: Array | None = None  # [B, h, w, C] that all was read from, upright


class Model(nn.Module):
    """PINet. Parameters: `trunk` (the backbone), `attend`, three heads, `refiner`."""

    skeleton: Skeleton  # of the dataset
    backbone: Mapping[str, Any]  # name of a file of occjax/nn, and its fields
    parts: str | Sequence[Sequence[int]] = "part-large"  # or tuples of joint indices
    sigma: float = 2.0  # of keypoint Gaussians, map pixels
    part_sigma: float = 2.0  # of part centre Gaussians, map pixels
    offset_radius: int = 2  # pixels around a centre that regress the pose
    background: float = 0.1  # weight of pixels that no Gaussian reaches
    small_area: float = 1024.0  # input pixels^2; smaller boxes get no part centre
    attend: Mapping[str, Any] | None = None  # fields of `SpatialAttention`; DAG's
    weigh_channels: bool = False  # of a pose's joints by its part's feature; DAG's
    refine: str = "dynamic"  # one of REFINE (Table 1c); "multi_hop" is DAG's
    refine_layers: int = 3  # residual graph blocks; 2 in the COCO config
    refine_features: int | None = None  # hidden channels; None: the backbone's
    aligned_sampling: bool = False  # False: the grid that published weights expect
    max_proposals: int = 120  # training poses per image, shared evenly by the parts
    batch_cut: bool = False  # cut proposals as the published code does; `proposals`
    peaks: int = 30  # test poses per part
    threshold: float = 0.01  # strict lower bound of a peak's value
    nms: float = 0.7  # strict lower bound of the OKS within one person's poses
    fuse: bool = True  # pose fusion; False keeps the best pose of each person
    flip_test: bool = True  # average with the mirrored image
    scale_decrease: float = 0.9  # factor on scores of further scales; 0.8 CrowdPose
    max_poses: int | None = None  # best poses to give; None: as many as candidates
    dtype: Any = jnp.float32  # computation of backbone and refinement

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            ValueError: naming the field, what was expected and what was found.
        """
        _check(self)
        super().__post_init__()

    def setup(self) -> None:
        """Builds the backbone, the heads and the refinement."""
        joints, parts = self.skeleton.num_joints, len(part_joints(self))
        wide = np.promote_types(self.dtype, np.float32)
        self.trunk = build_backbone(**self.backbone, dtype=self.dtype)
        self.heatmap_head = conv(joints, 1, dtype=wide, use_bias=True)
        self.part_head = conv(parts, 1, dtype=wide, use_bias=True)
        self.offset_head = conv(2 * joints * parts, 1, dtype=wide, use_bias=True)
        if self.attend is not None:
            self.attention = SpatialAttention(
                **self.attend, dtype=self.dtype, name="attend"
            )
        if self.refine == "multi_hop":
            self.by_hops = GuidedRefine(
                self.skeleton,
                hidden=self.refine_features or 128,
                blocks=self.refine_layers,
                dtype=self.dtype,
                name="refiner",
            )
        elif self.refine != "none":
            self.refiner = pose_refine.PoseRefine(
                num_joints=joints,
                bones=self.skeleton.bones,
                layers=self.refine_layers,
                features=self.refine_features,
                graph=self.refine,
                aligned=self.aligned_sampling,
                weigh=self.weigh_channels,
                dtype=self.dtype,
            )

    def __call__(
        self, inputs: Inputs, *, train: bool, proposals: Proposals | None = None
    ) -> Outputs:
        """Reads maps and poses.

        Args:
            inputs: image [B, H, W, 3]; in a test also `scaled`.
            train: read poses at the proposals; otherwise at the peaks of the maps,
                of every scale and, with `flip_test`, of the mirrored image as well.
            proposals: from `proposals`; needed in training unless refine is "none".

        Raises:
            ValueError: training with refinement lacks proposals.
        """
        if train:
            return self._train(inputs.image, proposals)
        first, *others = (self._test(x) for x in (inputs.image, *inputs.scaled))
        more = (poses for other in others for poses in other.candidates)
        return first._replace(candidates=(*first.candidates, *more))

    def _maps(self, image: Array, *, train: bool) -> tuple[Array, Maps]:
        """Normalised images [B, H, W, 3] -> features [B, h, w, C] and maps."""
        features = self.trunk(image, train=train)
        size = features.shape[:3]
        check_stride(features, image, STRIDE)
        if self.attend is not None:
            features = self.attention(features)
        offset = self.offset_head(features)
        # channels of the published head: part, joint, then x and y
        offset = offset.reshape(*size, -1, self.skeleton.num_joints, 2)
        return features, Maps(
            self.heatmap_head(features), self.part_head(features), offset
        )

    def _train(self, image: Array, proposals: Proposals | None) -> Outputs:
        features, maps = self._maps(normalize(image, self.dtype), train=True)
        if self.refine == "none":
            return Outputs(maps, features=features)
        if proposals is None and self.is_initializing():
            proposals = _anywhere(image.shape[0], len(part_joints(self)))
        if proposals is None:
            raise ValueError(
                "proposals: expected those of `proposals(model, labels)` as refine is "
                f"{self.refine!r}, got None."
            )
        # coarse poses are given to the refinement, which does not teach their head
        coarse = jax.lax.stop_gradient(
            sampling.gather_each(maps.offset, proposals.pixels)
        )
        refined = self._refined(
            features, proposals.pixels, coarse, train=True, mask=proposals.valid
        )
        return Outputs(maps, proposals, refined, features=features)

    def _test(self, image: Array) -> Outputs:
        """One scale: maps of the upright image, poses of the mean of orientations."""
        image = normalize(image, self.dtype)
        both = image[:, None]
        if self.flip_test:
            both = flip_test.orientations(image, STRIDE)
        # orientations lie beside one another, so a sharded batch stays where it is
        features, maps = self._maps(both.reshape(-1, *both.shape[2:]), train=False)
        refine = functools.partial(self._refined, features, train=False)
        maps = Maps(*(x.reshape(*both.shape[:2], *x.shape[1:]) for x in maps))
        found = candidates(
            maps,
            None if self.refine == "none" else refine,
            joint_order=self.skeleton.flip,
            part_order=_part_order(self),
            peaks=self.peaks,
            threshold=self.threshold,
        )
        upright = Maps(*(x[:, 0] for x in maps))
        features = features[:: both.shape[1]]
        return Outputs(upright, candidates=(found,), features=features)

    def _refined(
        self,
        features: Array,
        pixels: Array,
        coarse: Array,
        *,
        train: bool,
        mask: Array | None = None,
    ) -> Array:
        """Coarse offsets [B, K, n, J, 2] at pixels [B, K, n, 2], corrected.

        The code adds to the offset, which is to subtract from the joints.
        """
        batch, parts, count = pixels.shape[:3]
        joints = pixels[..., None, :].astype(coarse.dtype) - coarse
        joints = joints.reshape(batch, parts * count, -1, 2)
        pixels = pixels.reshape(batch, parts * count, 2)
        mask = None if mask is None else mask.reshape(batch, parts * count)
        if self.refine == "multi_hop":
            correction = self._by_hops(features, pixels, joints, train, mask)
        else:
            correction = self.refiner(features, pixels, joints, train=train, mask=mask)
        return coarse + correction.reshape(coarse.shape).astype(coarse.dtype)

    def _by_hops(
        self,
        features: Array,
        pixels: Array,
        joints: Array,
        train: bool,
        mask: Array | None,
    ) -> Array:
        """Corrections by DAG's graph, whose frame is the extent of each pose."""
        low = jnp.min(joints, axis=2, keepdims=True)
        high = jnp.maximum(jnp.max(joints, axis=2, keepdims=True), low + LEAST_EXTENT)
        centre = sampling.gather(features, pixels) if self.weigh_channels else None
        moved = self.by_hops(
            features, joints, low, high, train=train, mask=mask, centre=centre
        )
        return joints - moved


def part_joints(model: Model) -> tuple[tuple[int, ...], ...]:
    """The joints of each of the model's K parts."""
    if isinstance(model.parts, str):
        return model.skeleton.parts[model.parts]
    return tuple(tuple(part) for part in model.parts)


def _part_order(model: Model) -> tuple[int, ...]:
    """Order of the parts after mirroring; nothing without the flip test."""
    if not model.flip_test:
        return ()
    return flip_test.part_order(part_joints(model), model.skeleton.flip)


def _check(model: Model) -> None:
    """Raises ValueError for the first field that makes no sense."""
    skeleton = model.skeleton
    if isinstance(model.parts, str) and model.parts not in skeleton.parts:
        names = ", ".join(sorted(skeleton.parts))
        raise ValueError(f"parts: expected one of {names}, got {model.parts!r}.")
    parts = part_joints(model)
    known = set(range(skeleton.num_joints))
    if not parts or not all(part and set(part) <= known for part in parts):
        raise ValueError(
            f"parts: expected joint indices below {skeleton.num_joints}, got {parts}."
        )
    _part_order(model)
    if model.refine not in REFINE:
        raise ValueError(
            f"refine: expected one of {', '.join(REFINE)}, got {model.refine!r}."
        )
    if model.weigh_channels and model.refine == "none":
        raise ValueError("weigh_channels: without refinement no joints are read.")
    smallest = {
        "sigma": heatmap.MIN_SIGMA,
        "part_sigma": heatmap.MIN_SIGMA,
        "offset_radius": 1,
        "refine_layers": 0,
        "max_proposals": len(parts),
        "peaks": 1,
        "max_poses": 1,
    }
    for name, least in smallest.items():
        value = getattr(model, name)
        if value is not None and value < least:
            raise ValueError(f"{name}: expected {least} or more, got {value}.")


def _anywhere(batch: int, parts: int) -> Proposals:
    """One proposal per part, to create the parameters of the refinement."""
    return Proposals(
        jnp.zeros((batch, parts, 1, 2), jnp.int32), jnp.ones((batch, parts, 1), bool)
    )


def _people(model: Model, labels: Labels) -> heatmap.People:
    return heatmap.people_on_map(labels, part_joints(model), STRIDE, model.small_area)


def proposals(model: Model, labels: Labels) -> Proposals:
    """The pixels where training refines poses: the best around each part's centres.

    Pixels are ranked by part Gaussian / sqrt(area), inside the offset windows only, so
    those nearest to the centres of small persons come first. Parts share
    `max_proposals` evenly (the paper's 40 is this upper bound).

    By default every image keeps its own ranked pixels. With `batch_cut` all images keep
    as many as the one that has fewest; if one has none, all keep the upper bound, and
    pixels without rank enter the batch statistics, as in the published code.
    """
    size = labels.ignore.shape[1:3]
    people = _people(model, labels)
    pixels, _ = heatmap.offset_windows(people, model.offset_radius)
    wanted = heatmap.offset_targets(people, pixels, size, model.offset_radius)
    gaussian = heatmap.gaussians(people.centres, people.present, size, model.part_sigma)
    rank = gaussian * sampling.scatter_each(
        jnp.max(wanted.weight, axis=-1), pixels, size
    )
    count = min(model.max_proposals // len(part_joints(model)), size[0] * size[1])
    return Proposals(*grouping.ranked(rank, count, batch_cut=model.batch_cut))


def loss_terms(
    model: Model, outputs: Outputs, labels: Labels
) -> dict[str, tuple[Array, Array]]:
    """The losses "heatmap", "offset" and, if the model refines, "refine".

    Reduced as sum(values * weights) / sum(weights) they are those of the published
    code; the paper's factors are 1, 0.03 and 0.03.
    """
    maps, size = outputs.maps, outputs.maps.heatmap.shape[1:3]
    people = _people(model, labels)
    terms = {
        "heatmap": part_losses.map_loss(
            maps,
            people,
            labels.ignore,
            sigma=model.sigma,
            part_sigma=model.part_sigma,
            background=model.background,
        ),
        "offset": part_losses.offset_loss(maps.offset, people, model.offset_radius),
    }
    if outputs.refined is not None and outputs.proposals is not None:
        at = outputs.proposals
        wanted = heatmap.offset_targets(people, at.pixels, size, model.offset_radius)
        weight = jnp.where(at.valid[..., None], wanted.weight, 0)
        terms["refine"] = part_losses.pose_loss(outputs.refined, wanted.offset, weight)
    return terms


def decode(model: Model, outputs: Outputs, inputs: Inputs) -> Poses:
    """Candidates of all scales -> one pose per person, best first, in source pixels.

    The score of a joint is the part's score times the keypoint map at the joint (mean
    over the scales). Grouping and fusion work in source pixels.
    """
    found = scored(
        outputs.candidates,
        inputs.image.shape[1:3],
        model.scale_decrease,
        sampling.response,
    )
    return persons(
        sampling.affine(found.joints, inputs.to_source),
        found.joint_score,
        found.score,
        sigmas=model.skeleton.sigmas,
        nms=model.nms,
        fuse=model.fuse,
        max_poses=model.max_poses,
    )


# Names of the published checkpoints; see torch_names.py. PINet with HRNet only.
TORCH_NAMES = (
    *prefixed(hrnet.TORCH_NAMES, "backbone.", "trunk"),
    (r"ppg\.heatmap_head", "heatmap_head", "conv"),
    (r"ppg\.detkptmap_head", "part_head", "conv"),
    (r"ppg\.offset_head", "offset_head", "conv"),
    *prefixed(pose_refine.TORCH_NAMES, "pr.", "refiner"),
)
PUBLISHED = {"hrnet": TORCH_NAMES}
PRETRAINED = {"hrnet": prefixed(hrnet.IMAGENET_NAMES, "", "trunk")}
