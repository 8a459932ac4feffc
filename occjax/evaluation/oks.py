"""Object keypoint similarity (OKS) of two poses, joint by joint, in NumPy.

The rule is that of COCO's evaluator. Shape letters: D detections, G annotated people,
M pairs of one with another, J joints.
"""

import numpy as np

from occjax.types import UNLABELLED


def joint_similarity(
    found: np.ndarray, joints: np.ndarray, area: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
    """exp(-d² / (2 area (2 sigma)²)) of each joint; 1 where it lies on the other.

    Args:
        found: [..., J, 2] pixels.
        joints: [..., J, 2] pixels; the shapes broadcast, so that [D, 1, J, 2] and
            [G, J, 2] give [D, G, J].
        area: [...] square pixels.
        sigmas: [J] of the skeleton.

    Returns:
        [..., J], from 0 to 1.
    """
    square = np.sum(np.square(found - joints), axis=-1)
    return _fall(square, area, sigmas)


def oks(
    found: np.ndarray,
    joints: np.ndarray,
    area: np.ndarray,
    boxes: np.ndarray,
    sigmas: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """OKS of pairs: the mean similarity over the labelled joints of the person.

    Whoever has no labelled joint is judged by how far the joints lie outside of the
    box, doubled in size, as COCO's evaluator does.

    Args:
        found: [M, J, 2] detected joints.
        joints: [M, J, 3] x, y and visibility of the annotated person.
        area: [M] of that person.
        boxes: [M, 4] of that person.
        sigmas: [J].

    Returns:
        OKS [M] and the similarity of each joint [M, J].
    """
    similarity = joint_similarity(found, joints[..., :2], area, sigmas)
    labelled = joints[..., 2] > UNLABELLED
    bare = np.logical_not(np.any(labelled, axis=-1))
    similarity[bare] = _box_similarity(found[bare], area[bare], boxes[bare], sigmas)
    counted = labelled | bare[:, None]
    total = np.sum(similarity, axis=-1, where=counted)
    return total / np.sum(counted, axis=-1), similarity


def matrix(
    found: np.ndarray,
    joints: np.ndarray,
    area: np.ndarray,
    boxes: np.ndarray,
    sigmas: np.ndarray,
) -> np.ndarray:
    """OKS [D, G] of the detections [D, J, 2] of an image with its people, as `oks`."""
    detections, people = len(found), len(joints)
    row = np.repeat(np.arange(detections), people)
    column = np.tile(np.arange(people), detections)
    values, _ = oks(found[row], joints[column], area[column], boxes[column], sigmas)
    return values.reshape(detections, people)


def _box_similarity(
    found: np.ndarray, area: np.ndarray, boxes: np.ndarray, sigmas: np.ndarray
) -> np.ndarray:
    """Similarity of joints [M, J, 2] to anywhere in the doubled boxes [M, 4]."""
    low = boxes[:, None, :2] - boxes[:, None, 2:]
    high = boxes[:, None, :2] + 2 * boxes[:, None, 2:]
    outside = np.maximum(low - found, 0) + np.maximum(found - high, 0)
    return _fall(np.sum(np.square(outside), axis=-1), area, sigmas)


def _fall(square: np.ndarray, area: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Similarity at squared distances [..., J]."""
    variance = np.square(2 * np.asarray(sigmas))
    # The smallest step at 1 keeps a person without area from dividing zero by zero.
    return np.exp(-square / variance / (area + np.spacing(1))[..., None] / 2)
