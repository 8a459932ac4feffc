"""The body as a graph: edges, matrices, hops and their normalisations, in NumPy.

Bones are pairs of joints without direction; one that is named twice counts once.
Matrices [J, J] have receivers as rows and senders as columns.
"""

from collections.abc import Sequence

import numpy as np

Bones = Sequence[tuple[int, int]]


def adjacency(bones: Bones, num_joints: int) -> np.ndarray:
    """1 where a bone links two joints, else 0, the diagonal included: [J, J].

    Raises:
        ValueError: a bone names a joint that does not exist, or the same one twice.
    """
    matrix = np.zeros((num_joints, num_joints))
    for bone in bones:
        if not all(0 <= joint < num_joints for joint in bone):
            raise ValueError(
                f"bones: expected joints in 0..{num_joints - 1}, got {tuple(bone)}."
            )
        if bone[0] == bone[1]:
            raise ValueError(f"bones: expected two joints, got {tuple(bone)}.")
        matrix[bone[0], bone[1]] = matrix[bone[1], bone[0]] = 1
    return matrix


def edges(
    bones: Bones, num_joints: int, *, loops: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Senders and receivers [E] of all edges, both directions of each bone.

    Sorted by receiver, then by sender: the entries of the matrix row by row.

    Args:
        bones: joint pairs.
        num_joints: J.
        loops: with an edge from each joint to itself.
    """
    matrix = adjacency(bones, num_joints) + loops * np.eye(num_joints)
    receivers, senders = np.nonzero(matrix)
    return senders, receivers


def couple(bones: Bones, num_joints: int) -> tuple[tuple[int, int], ...]:
    """Bones of two people's 2 J joints, each joint linked to the other's same joint.

    CoupleGraph (Qiu et al., ECCV 2020); joint j of the second is J + j.
    """
    second = ((a + num_joints, b + num_joints) for a, b in bones)
    across = ((joint, joint + num_joints) for joint in range(num_joints))
    return (*((a, b) for a, b in bones), *second, *across)


def hops(bones: Bones, num_joints: int, count: int) -> np.ndarray:
    """Which joints are exactly k bones apart, k = 0 .. count: [count + 1, J, J] 0, 1.

    The shortest way counts. Hop 0 is the joint itself, hop 1 the adjacency.
    """
    step = adjacency(bones, num_joints) + np.eye(num_joints)
    within = [np.eye(num_joints)]
    for _ in range(count):
        within.append(np.minimum(within[-1] @ step, 1))
    return np.diff(within, axis=0, prepend=0)


def by_degree(matrix: np.ndarray) -> np.ndarray:
    """D^(-1/2) A D^(-1/2), D the row sums of A (Kipf and Welling, ICLR 2017): [J, J].

    Joints without an edge keep their zeros.
    """
    scale = 1 / np.sqrt(_or_one(matrix.sum(axis=1)))
    return scale[:, None] * matrix * scale[None]


def by_row(matrix: np.ndarray) -> np.ndarray:
    """D^-1 A, the mean over neighbours: [J, J]; joints without any keep their zeros."""
    return matrix / _or_one(matrix.sum(axis=1))[:, None]


def neighbours_and_self(matrix: np.ndarray) -> np.ndarray:
    """Rows divided by their sums, then 1 on the diagonal: [J, J].

    DAG's code uses the mean of this and its transpose, after learnt offsets. Its text
    says symmetric normalisation without self-connections.
    """
    eye = np.eye(len(matrix))
    return by_row(matrix) * (1 - eye) + eye


def by_row_and_column(matrix: np.ndarray) -> np.ndarray:
    """The mean of D^-1 A and its transpose: [J, J]."""
    return (by_row(matrix) + by_row(matrix).T) / 2


def hop_adjacency(
    bones: Bones, num_joints: int, count: int, norm: str = "symmetric"
) -> np.ndarray:
    """Normalised matrices of the joints 1 to `count` bones apart: [count, J, J].

    Args:
        bones: joint pairs.
        num_joints: J.
        count: of hops.
        norm: "symmetric", as DAG's text has it, or "row_sym", as its code.

    Raises:
        ValueError: there is no such norm.
    """
    norms = {"symmetric": by_degree, "row_sym": by_row_and_column}
    if norm not in norms:
        raise ValueError(f"norm: expected one of {', '.join(norms)}, got {norm!r}.")
    far = hops(bones, num_joints, count)[1:]
    return np.stack([norms[norm](matrix) for matrix in far])


def normalized_adjacency(bones: Bones, num_joints: int) -> np.ndarray:
    """D^(-1/2) (A + I) D^(-1/2) of the skeleton, D the row sums of A + I: [J, J]."""
    return by_degree(adjacency(bones, num_joints) + np.eye(num_joints))


def _or_one(sums: np.ndarray) -> np.ndarray:
    """Sums to divide by."""
    return np.where(sums > 0, sums, 1)
