"""Matrices of the body graph."""

from collections.abc import Sequence

import numpy as np


def normalized_adjacency(
    bones: Sequence[tuple[int, int]], num_joints: int
) -> np.ndarray:
    """D^(-1/2) (A + I) D^(-1/2) of the skeleton, D the row sums of A + I: [J, J].

    Raises:
        ValueError: a bone names a joint that does not exist.
    """
    adjacency = np.eye(num_joints)
    for bone in bones:
        if not all(0 <= joint < num_joints for joint in bone):
            raise ValueError(
                f"bones: expected joints in 0..{num_joints - 1}, got {tuple(bone)}."
            )
        adjacency[bone[0], bone[1]] = adjacency[bone[1], bone[0]] = 1
    scale = 1 / np.sqrt(adjacency.sum(axis=1))
    return scale[:, None] * adjacency * scale[None]
