"""The five papers in one network: whole poses from parts, taught by occlusion.

PINet finds and fuses whole poses (see pinet.py). DAG's attention and graph are settings
of it, its occluders and OASNet's of `config.occlusion`. Here come OASNet's mimicry,
every image in two views whose features learn to be alike, and scores in the manner of
OA-HPE and KS-net: a joint counts as far as it probably has a label, and by how well it
is expected to be located. Such scores also say which joints a fused pose takes.

No paper has this; `python -m studies.combination` measures what it is worth.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from occjax.methods import pinet
from occjax.nn import siamese
from occjax.nn.critic import Critic
from occjax.nn.joint_scores import JointScores, Told
from occjax.ops import joint_maps, losses, rescoring, sampling
from occjax.ops.part_poses import persons, scored
from occjax.types import Array, Inputs, Labels, Poses

PUBLISHED, PRETRAINED = pinet.PUBLISHED, pinet.PRETRAINED
SCORES = ("oaks", "heatmap")


class Outputs(NamedTuple):
    """What the network gives; in training of both views of each image, in turn."""

    whole: pinet.Outputs
    told: Told | None = None  # of the proposals, or of all scales' candidates
    critic: Mapping[str, Any] | None = None  # its parameters, in training


class Model(pinet.Model):
    """PINet's model with `tell` (`JointScores`) and, for mimicry, `critic`."""

    score: str = "oaks"  # one of SCORES; "heatmap" is PINet's own
    scores: Mapping[str, Any] = FrozenDict()  # fields of `JointScores`
    mimic: str = "transport"  # one of siamese.MIMICS
    transport: Mapping[str, Any] = FrozenDict()  # arguments of `sinkhorn.divergence`
    detach_clean: bool = False  # features of the clean view count as constant
    mask: str = "soft"  # of natural occlusion, one of siamese.MASKS

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            ValueError: naming the field, what was expected and what was found.
        """
        siamese.check(self)
        if self.score not in SCORES:
            raise ValueError(
                f"score: expected one of {', '.join(SCORES)}, got {self.score!r}."
            )
        if self.score == "oaks" and self.refine == "none":
            raise ValueError("score: 'oaks' judges refined poses, refine is 'none'.")
        super().__post_init__()

    def setup(self) -> None:
        """Builds PINet, what tells of joints, and the critic."""
        super().setup()
        if self.refine != "none":
            self.tell = JointScores(**self.scores, dtype=self.dtype)
        if self.mimic == "transport":
            self.critic = Critic(dtype=self.dtype)

    def __call__(
        self,
        inputs: Inputs,
        *,
        train: bool,
        proposals: pinet.Proposals | None = None,
    ) -> Outputs:
        """Reads maps and poses, see `pinet.Model`; in training of both views.

        Raises:
            ValueError: training lacks proposals, or there is nothing to mimic.
        """
        if not train:
            whole = super().__call__(inputs, train=False)
            return Outputs(whole, self._told_of_candidates(whole, inputs))
        started = not self.is_initializing()
        rows = siamese.rows(inputs, self.mimic, needed=started)
        whole = super().__call__(rows, train=True, proposals=proposals)
        critic = None
        if self.mimic == "transport":
            critic = siamese.learnt(self.critic, whole.features)
        return Outputs(whole, self._told_of_proposals(whole), critic)

    def _told_of_proposals(self, whole: pinet.Outputs) -> Told | None:
        if whole.proposals is None:
            return None
        pixels = whole.proposals.pixels
        centres = pixels.reshape(len(pixels), -1, 2).astype(jnp.float32)
        return self.tell(whole.features, whole.maps.heatmap, joints_of(whole), centres)

    def _told_of_candidates(self, whole: pinet.Outputs, inputs: Inputs) -> Told | None:
        """Of the candidates of all scales, read at the first."""
        if self.refine == "none":
            return None
        width, first = inputs.image.shape[2], whole.candidates[0]
        sides = [width / x.heatmap.shape[2] for x in whole.candidates]
        found = list(zip(whole.candidates, sides, strict=True))
        joints = [x.joints * side / pinet.STRIDE for x, side in found]
        centres = [x.pixels * side / pinet.STRIDE for x, side in found]
        return self.tell(
            whole.features,
            first.heatmap,
            jnp.concatenate(joints, axis=1),
            jnp.concatenate(centres, axis=1),
        )


def joints_of(whole: pinet.Outputs) -> Array:
    """Refined poses of the proposals: [B, N, J, 2] map pixels."""
    assert whole.proposals is not None
    assert whole.refined is not None
    joints = whole.proposals.pixels[..., None, :].astype(whole.refined.dtype)
    joints = joints - whole.refined
    return joints.reshape(len(joints), -1, *joints.shape[3:])


def proposals(model: Model, labels: Labels) -> pinet.Proposals:
    """PINet's, of both views."""
    return pinet.proposals(model, siamese.labels_of_rows(labels))


def loss_terms(
    model: Model, outputs: Outputs, labels: Labels
) -> dict[str, tuple[Array, Array]]:
    """PINet's losses of both views, "mimic", and of what is told of refined poses.

    "labelled" is the cross-entropy of OAKS' equation 8, "similarity" the error of its
    equation 9, of each proposal beside the person whom its pose resembles most.
    """
    rows, whole = siamese.labels_of_rows(labels), outputs.whole
    terms = pinet.loss_terms(model, whole, rows)
    if model.mimic != "none":
        size = whole.maps.heatmap.shape[1:3]
        hidden = joint_maps.occluded(rows, size, model.sigma, pinet.STRIDE, of_all=True)
        terms["mimic"] = siamese.distance(model, whole.features, hidden, outputs.critic)
    if outputs.told is None or whole.proposals is None:
        return terms
    poses = jax.lax.stop_gradient(joints_of(whole)) * pinet.STRIDE
    alike, labelled = rescoring.of_nearest(poses, rows, model.skeleton.sigmas)
    valid = whole.proposals.valid.reshape(len(poses), -1)
    known = valid[..., None] & labelled
    values, weights = losses.binary(outputs.told.labelled, labelled)
    terms["labelled"] = values, weights * valid.astype(weights.dtype)
    error = jnp.abs(outputs.told.quality - alike)
    terms["similarity"] = jnp.where(known, error, 0), known.astype(error.dtype)
    return terms


def decode(model: Model, outputs: Outputs, inputs: Inputs) -> Poses:
    """PINet's decoding; with OAKS, joints are scored and fused by what is told of them.

    The value of the part's map, how sure it is that somebody is there, stands for the
    score of a detector's box.
    """
    if outputs.told is None or model.score == "heatmap":
        return pinet.decode(model, outputs.whole, inputs)
    size = inputs.image.shape[1:3]
    found = scored(
        outputs.whole.candidates, size, model.scale_decrease, sampling.response
    )
    there = found.score > -jnp.inf
    labelled = jax.nn.sigmoid(outputs.told.labelled)
    joint_score = found.part_score[..., None] * outputs.told.quality
    score = jnp.where(there, rescoring.oaks(labelled, joint_score), -jnp.inf)
    return persons(
        sampling.affine(found.joints, inputs.to_source),
        joint_score,
        score,
        sigmas=model.skeleton.sigmas,
        nms=model.nms,
        fuse=model.fuse,
        max_poses=model.max_poses,
        labelled=labelled,
    )
