"""Joints of one annotation scheme in the order of another."""

from collections.abc import Sequence

import numpy as np


def reorder(
    joints: np.ndarray, source: Sequence[str], target: Sequence[str]
) -> np.ndarray:
    """Picks joints by name.

    Args:
        joints: [..., J, 3] x, y, visibility in the order of `source`.
        source: J joint names, such as COCO.joints.
        target: K joint names, such as CROWDPOSE.joints.

    Returns:
        [..., K, 3]. What has no joint of that name becomes unlabelled (all zero):
        COCO knows neither the top of the head nor the neck of CrowdPose.

    Raises:
        ValueError: joints are not [..., len(source), 3].
    """
    if joints.shape[-2:] != (len(source), 3):
        raise ValueError(
            f"reorder needs joints [..., {len(source)}, 3]; got {joints.shape}."
        )
    result = np.zeros((*joints.shape[:-2], len(target), 3), joints.dtype)
    for index, name in enumerate(target):
        if name in source:
            result[..., index, :] = joints[..., source.index(name), :]
    return result
