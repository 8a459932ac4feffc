"""Joints of one annotation scheme in the order of another."""

from collections.abc import Sequence

import numpy as np

# Joints that go by another name elsewhere, or are the mean of two. CrowdPose and
# OCHuman call the top of the head "head"; MPII's upper neck is where the others' neck
# is. The means are how LSP is trained together with MPII (spec of OASNet, 8.2).
STAND_INS = {
    "head": ("head_top",),
    "head_top": ("head",),
    "neck": ("upper_neck",),
    "upper_neck": ("neck",),
    "pelvis": ("left_hip", "right_hip"),
    "thorax": ("left_shoulder", "right_shoulder"),
}


def mapping(source: Sequence[str], target: Sequence[str]) -> list[tuple[int, ...]]:
    """For each target joint the source joints whose mean it is; none: no counterpart.

    Args:
        source: J joint names, such as COCO.joints.
        target: K joint names, such as CROWDPOSE.joints.
    """
    places = {name: index for index, name in enumerate(source)}
    result = []
    for name in target:
        names = (name,) if name in places else STAND_INS.get(name, ())
        known = all(one in places for one in names)
        result.append(tuple(places[one] for one in names) if known else ())
    return result


def reorder(
    joints: np.ndarray, source: Sequence[str], target: Sequence[str]
) -> np.ndarray:
    """Joints in the order of another scheme, as `mapping` says.

    Args:
        joints: [..., J, 3] x, y, visibility in the order of `source`.
        source: J joint names.
        target: K joint names.

    Returns:
        [..., K, 3]. What has no counterpart is unlabelled (all zero): COCO knows
        neither the top of the head nor the neck of CrowdPose. A mean is labelled where
        all its joints are, and visible where all are visible.

    Raises:
        ValueError: joints are not [..., len(source), 3].
    """
    if joints.shape[-2:] != (len(source), 3):
        raise ValueError(
            f"reorder needs joints [..., {len(source)}, 3]; got {joints.shape}."
        )
    result = np.zeros((*joints.shape[:-2], len(target), 3), joints.dtype)
    for index, places in enumerate(mapping(source, target)):
        if len(places) == 1:
            result[..., index, :] = joints[..., places[0], :]
        elif places:
            chosen = joints[..., places, :]
            seen = chosen[..., 2].min(axis=-1)
            at = chosen[..., :2].mean(axis=-2) * (seen > 0)[..., None]
            result[..., index, :2], result[..., index, 2] = at, seen
    return result
