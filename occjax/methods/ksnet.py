"""KS-net and the OAKS score (Zhao et al., Information Sciences 2020).

Two frozen networks and one that learns: the base, any method that reads heatmaps of one
person a crop; one that tells which joints would have a label, the base itself if it is
OA-HPE; and KS-net, which tells from the base's heatmaps how well each joint is located.
The base's poses stay as they are. Only their scores change: the mean of the expected
similarities, each joint counted as far as it probably has a label.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict

from occjax import methods
from occjax.nn.ks_net import KSNet
from occjax.ops import rescoring, sampling
from occjax.skeletons import Skeleton
from occjax.types import UNLABELLED, Array, Inputs, Labels, Poses

SCORES = ("oaks", "heatmap")


class Outputs(NamedTuple):
    """What the networks give; only `quality` learns."""

    base: Any  # the base's outputs
    quality: Array  # [B, J] expected similarity of each joint with the truth
    labelled: Array | None  # [B, J] probability of having a label, in a test
    joints: Array | None  # [B, J, 2] the base's joints in input pixels, in training


class Model(nn.Module):
    """Parameters are those of the base, `quality`, and `labels` of a model of its own.

    `base` and `labels` hold the name of a `method` and the fields of its model.
    """

    skeleton: Skeleton  # of the dataset
    base: Mapping[str, Any]
    labels: Mapping[str, Any] = FrozenDict()  # empty: the base tells of labels itself
    net: Mapping[str, Any] = FrozenDict()  # fields of `KSNet`
    score: str = "oaks"  # one of SCORES; "heatmap" is the base's own
    flip_test: bool = True  # both frozen networks average with the mirrored crop
    dtype: Any = jnp.float32  # computation

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            ValueError: naming the field, what was expected and what was found.
        """
        if self.score not in SCORES:
            raise ValueError(
                f"score: expected one of {', '.join(SCORES)}, got {self.score!r}."
            )
        for name in ("base", "labels"):
            fields = getattr(self, name)
            if fields and fields.get("method", "ksnet") == "ksnet":
                raise ValueError(
                    f"{name}.method: expected a method that reads heatmaps, "
                    f"got {fields.get('method')!r}."
                )
        super().__post_init__()

    def frozen(self, which: str, **place: Any) -> tuple[Any, nn.Module]:
        """The method and the model, unbound unless `place` says, of "base" or "labels".

        Args:
            which: of the two.
            place: linen's `parent` and `name`.
        """
        fields = {k: v for k, v in getattr(self, which).items() if k != "method"}
        method = methods.load(getattr(self, which)["method"])
        fields |= {"flip_test": self.flip_test, "dtype": self.dtype}
        fields |= place or {"parent": None}
        return method, method.Model(skeleton=self.skeleton, **fields)

    def setup(self) -> None:
        """Builds the networks."""
        self.read = self.frozen("base")[1]
        nn.share_scope(self, self.read)
        if self.labels:
            self.tell = self.frozen("labels", parent=self, name="labels")[1]
        self.quality = KSNet(self.skeleton.num_joints, **self.net, dtype=self.dtype)

    def __call__(self, inputs: Inputs, *, train: bool) -> Outputs:
        """Reads crops [B, H, W, 3], the frozen networks as in a test.

        Raises:
            ValueError: the base reads no heatmaps of single crops, nobody tells which
                joints have a label, or there are several scales.
        """
        if inputs.scaled:
            raise ValueError("scales: KS-net reads heatmaps of one scale alone.")
        found = jax.lax.stop_gradient(self.read(inputs, train=False))
        maps = getattr(found, "maps", None)
        single = hasattr(self.frozen("base")[0], "suppress") and inputs.image.ndim == 4
        if maps is None or not single:
            raise ValueError(
                f"base.method: {self.base['method']} reads no heatmaps of one crop."
            )
        quality = self.quality(maps[-1], train=train)
        if not train or self.is_initializing():
            return Outputs(found, quality, self._labelled(found, inputs), None)
        return Outputs(found, quality, None, self._joints(found, inputs))

    def _joints(self, found: Any, inputs: Inputs) -> Array:
        """The base's joints [B, J, 2] in input pixels."""
        method, model = self.frozen("base")
        joints = method.decode(model, found, inputs).joints[:, 0]
        return sampling.affine(joints, sampling.inverse(inputs.to_source))

    def _labelled(self, found: Any, inputs: Inputs) -> Array:
        """[B, J] probability that each joint has a label."""
        if self.labels:
            found = self.tell(inputs, train=False)
        logits = getattr(found, "labelled", None)
        if logits is None:
            raise ValueError(
                f"labels: {(self.labels or self.base)['method']} does not tell which "
                "joints have a label; give a run of OA-HPE."
            )
        return jax.nn.sigmoid(logits)


def loss_terms(
    model: Model, outputs: Outputs, labels: Labels
) -> dict[str, tuple[Array, Array]]:
    """The loss "similarity": the error of all labelled joints (equation 9).

    The truth is the similarity of the base's joints with the labels (equation 2), by
    the annotation's area, as in OKS.

    Raises:
        ValueError: the labels lack that area.
    """
    if outputs.joints is None or labels.oks_area is None:
        raise ValueError("oks_area: KS-net learns from the areas of annotations.")
    truth = rescoring.similarity(
        outputs.joints,
        labels.joints[:, 0].astype(outputs.joints.dtype),
        labels.oks_area[:, 0].astype(outputs.joints.dtype),
        model.skeleton.sigmas,
    )
    known = labels.visibility[:, 0] > UNLABELLED
    error = jnp.abs(outputs.quality - truth)
    values = jnp.sum(jnp.where(known, error, 0), axis=-1)
    return {"similarity": (values, jnp.ones_like(values))}


def decode(model: Model, outputs: Outputs, inputs: Inputs) -> Poses:
    """The base's poses, by OAKS with joint scores that are expected similarities."""
    method, base = model.frozen("base")
    poses: Poses = method.decode(base, outputs.base, inputs)
    assert outputs.labelled is not None  # a test
    labelled = outputs.labelled[:, None]
    poses = poses._replace(labelled=labelled)
    if model.score == "heatmap":
        return poses
    quality = outputs.quality[:, None].astype(np.promote_types(labelled.dtype, "f4"))
    score = rescoring.oaks(labelled, quality)
    if inputs.box_score is not None:
        score = score * inputs.box_score[:, None]
    return poses._replace(joint_score=quality, score=score)


def suppress(model: Model, poses: Poses, area: Array) -> Array:
    """The base's."""
    method, base = model.frozen("base")
    return method.suppress(base, poses, area)
