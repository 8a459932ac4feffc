"""PCK and PCKh: the share of joints found within a part of a body length.

MPII: error / (0.6 x head box diagonal) <= 0.5 (Andriluka et al., CVPR 2014, as HRNet's
and the dataset's own code have it). LSP: error / torso <= 0.2 with the torso from left
shoulder to right hip. A joint on the threshold is found. All shares are fractions, -1
where nobody has the joint. Letters: N people, J joints, T thresholds.
"""

import dataclasses
import importlib.metadata
from collections.abc import Sequence
from typing import Any

import numpy as np

from occjax import skeletons
from occjax.evaluation.coco import UNDEFINED
from occjax.skeletons import Skeleton
from occjax.types import OCCLUDED, UNLABELLED, VISIBLE

HEAD = 0.6  # PCKh's unit: this part of the diagonal of the head box
LEAST_TORSO = 5.0  # pixels; below it a torso is no measure of the body

_SIDES = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What makes PCK of a dataset.

    Attributes:
        name: key of `BY_NAME`.
        measure: PCKh or PCK.
        skeleton: the J joints.
        threshold: of the figure that papers quote, in units.
        unit: what the unit is, in words.
        uncounted: joints that enter no mean.
        head: joints whose mean is the column "head".
    """

    name: str
    measure: str
    skeleton: Skeleton
    threshold: float
    unit: str
    uncounted: tuple[str, ...]
    head: tuple[str, ...]

    @property
    def counted(self) -> np.ndarray:
        """Which joints enter the means, [J]."""
        return ~np.isin(self.skeleton.joints, self.uncounted)

    @property
    def limbs(self) -> dict[str, tuple[str, ...]]:
        """Column of a paper's table -> the joints that it is the plain mean of."""
        pairs = {side: (f"right_{side}", f"left_{side}") for side in _SIDES}
        return {"head": self.head} | pairs

    def unit_of(self, joints: np.ndarray, head: np.ndarray) -> np.ndarray:
        """The unit of each person, [N] pixels; 0 where one cannot be judged.

        Args:
            joints: [N, J, 3], pixels and visibility.
            head: [N], pixels, the diagonal of the head box, 0 unknown.
        """
        if self.measure == "PCKh":
            return HEAD * np.asarray(head, float)
        return torso(joints, self.skeleton)

    def stamp(self) -> dict[str, Any]:
        """What has to agree for two results to be comparable."""
        return {
            "protocol": self.name,
            "evaluator": f"numpy {importlib.metadata.version('numpy')}",
            "measure": f"{self.measure}@{self.threshold}, <=",
            "joints": int(self.counted.sum()),
            "unit": self.unit,
        }


MPII = Protocol(
    **{"name": "mpii", "measure": "PCKh", "skeleton": skeletons.MPII},
    **{"threshold": 0.5, "unit": "0.6 x head box diagonal"},
    **{"uncounted": ("pelvis", "thorax"), "head": ("head_top",)},
)
LSP = Protocol(
    **{"name": "lsp", "measure": "PCK", "skeleton": skeletons.LSP},
    **{"threshold": 0.2, "unit": "left shoulder to right hip"},
    **{"uncounted": (), "head": ("neck", "head_top")},
)
BY_NAME = {protocol.name: protocol for protocol in (MPII, LSP)}


def torso(joints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """PCK's unit: from left shoulder to right hip.

    Args:
        joints: [N, J, 2 or 3], pixels; the third number is above 0 where labelled.
        skeleton: the J joints.

    Returns:
        [N] pixels; 0, so that nobody can be judged by it, where a shoulder or hip is
        not labelled or the torso is not above `LEAST_TORSO`.
    """
    names = ("left_shoulder", "right_hip", "right_shoulder", "left_hip")
    places = [skeleton.joints.index(name) for name in names]
    length = np.linalg.norm(
        joints[:, places[0], :2] - joints[:, places[1], :2], axis=-1
    )
    usable = length > LEAST_TORSO
    if joints.shape[-1] == 3:
        usable &= np.all(joints[:, places, 2] > UNLABELLED, axis=-1)
    return np.where(usable, length, 0.0)


def errors(joints: np.ndarray, found: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Distance of each found joint from the labelled one, in units.

    Args:
        joints: [N, J, 2], pixels.
        found: [N, J, 2], pixels.
        unit: [N], pixels; 0 where a person cannot be judged.

    Returns:
        [N, J]; NaN for people without a unit.

    Raises:
        ValueError: the shapes disagree, or something is not finite or negative.
    """
    people = len(joints)
    if np.ndim(joints) != 3 or np.shape(joints)[2] != 2:
        raise ValueError(f"joints {np.shape(joints)}; expected [N, J, 2].")
    if np.shape(found) != np.shape(joints) or np.shape(unit) != (people,):
        raise ValueError(
            f"found {np.shape(found)} and unit {np.shape(unit)}; "
            f"expected {np.shape(joints)} and {(people,)}."
        )
    for name, values in (("joints", joints), ("found", found), ("unit", unit)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: expected finite numbers.")
    if np.any(np.less(unit, 0)):
        raise ValueError(f"unit {np.min(unit)}; expected 0 or more.")
    away = np.asarray(found, float) - np.asarray(joints, float)
    distance = np.linalg.norm(away, axis=-1)  # [N, J]
    known = np.where(np.greater(unit, 0), unit, np.nan)[:, None]
    return distance / known


def shares(
    protocol: Protocol, error: np.ndarray, used: np.ndarray, threshold: float
) -> dict[str, Any]:
    """Share of the used joints with an error of at most a threshold.

    Args:
        protocol: whose joints enter the means.
        error: [N, J], from `errors`; people without a unit are left out.
        used: [N, J] bool, such as where a joint is labelled.
        threshold: in units.

    Returns:
        `mean`: of all counted joints of all people, so that joints weigh by how often
        they are there; `mean_of_joints`: plain mean of the shares of those joints;
        `head`, `shoulder`, ..., `ankle`: of `Protocol.limbs`; `joints`: each joint's
        share by name; `count`: how many joints `mean` is of.

    Raises:
        ValueError: error and used are not [N, J].
    """
    *each, mean = curve(protocol, error, used, [threshold])[0].tolist()
    names, counted = protocol.skeleton.joints, protocol.counted
    joints = dict(zip(names, each, strict=True))
    limbs = {
        limb: _plain_mean([joints[name] for name in members])
        for limb, members in protocol.limbs.items()
    }
    there = np.asarray(used, bool) & ~np.isnan(error)
    return {
        "mean": mean,
        "mean_of_joints": _plain_mean(np.asarray(each)[counted]),
        **limbs,
        "joints": joints,
        "count": int(there[:, counted].sum()),
    }


def curve(
    protocol: Protocol,
    error: np.ndarray,
    used: np.ndarray,
    thresholds: Sequence[float] | np.ndarray,
) -> np.ndarray:
    """Share of each joint, and of all counted ones together, at each threshold.

    Args:
        protocol: whose joints are counted.
        error: [N, J], as for `shares`.
        used: [N, J] bool, as for `shares`.
        thresholds: [T], in units. The area under the curve is the mean over them.

    Returns:
        [T, J + 1]; the last column is `mean`.

    Raises:
        ValueError: error and used are not [N, J].
    """
    expected = (len(error), protocol.skeleton.num_joints)
    if np.shape(error) != expected or np.shape(used) != expected:
        raise ValueError(
            f"error {np.shape(error)} and used {np.shape(used)}; expected {expected}."
        )
    used, counted = np.asarray(used, bool) & ~np.isnan(error), protocol.counted
    there = used.sum(axis=0)  # [J]
    right = np.stack([(used & (error <= t)).sum(axis=0) for t in thresholds])
    right = np.concatenate([right, right[:, counted].sum(1, keepdims=True)], axis=1)
    there = np.append(there, there[counted].sum())
    undefined = np.full(right.shape, UNDEFINED)
    return np.divide(right, there, out=undefined, where=there > 0)


def evaluate(
    protocol: Protocol,
    joints: np.ndarray,
    visibility: np.ndarray,
    found: np.ndarray,
    unit: np.ndarray,
) -> dict[str, Any]:
    """The figures of a dataset: all labelled joints, and the occluded ones apart.

    Args:
        protocol: of the dataset.
        joints: [N, J, 2], pixels.
        visibility: [N, J]: 0 unlabelled, 1 occluded, 2 visible.
        found: [N, J, 2], pixels.
        unit: [N], pixels; 0 where a person cannot be judged.

    Returns:
        The entries of `shares` at the protocol's threshold for all labelled joints;
        `occluded` and `visible`: the same for those; `curve`: `thresholds`, from 0 to
        the protocol's in 50 steps, `mean` at each and `auc`, their mean.

    Raises:
        ValueError: the shapes disagree, or something is not finite.
    """
    error = errors(joints, found, unit)
    labelled = np.asarray(visibility) > UNLABELLED
    split = {"occluded": visibility == OCCLUDED, "visible": visibility == VISIBLE}
    thresholds = np.linspace(0, protocol.threshold, 51)
    mean = curve(protocol, error, labelled, thresholds)[:, -1]
    return {
        **shares(protocol, error, labelled, protocol.threshold),
        **{n: shares(protocol, error, u, protocol.threshold) for n, u in split.items()},
        "curve": {
            "thresholds": thresholds.tolist(),
            "mean": mean.tolist(),
            "auc": float(mean.mean()),  # -1 if nobody is there
        },
    }


def _plain_mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the shares that are defined."""
    defined = np.asarray(values)[np.asarray(values) > UNDEFINED]
    return float(np.mean(defined)) if defined.size else UNDEFINED
