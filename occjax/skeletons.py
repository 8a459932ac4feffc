"""Joints, bones, flip pairs, OKS sigmas and body parts of each dataset."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """The joints of one annotation scheme. Indices are zero-based.

    Attributes:
        bones: joint pairs that are linked in the body graph.
        flip_pairs: left and right joint of each symmetric pair.
        sigmas: OKS standard deviation of each joint, relative to sqrt(area).
        parts: name of a partition -> one tuple of joints for each body part. Every
            part is closed under left-right mirroring unless the name says otherwise.
    """

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    parts: dict[str, tuple[tuple[int, ...], ...]] = dataclasses.field(hash=False)

    @property
    def num_joints(self) -> int:
        """How many joints J the scheme has."""
        return len(self.joints)

    @property
    def flip(self) -> tuple[int, ...]:
        """Joint order after mirroring the image."""
        order = list(range(self.num_joints))
        for left, right in self.flip_pairs:
            order[left], order[right] = right, left
        return tuple(order)


_LIMBS = (
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
_LIMB_PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11))
_LIMB_SIGMAS = (
    *(0.079, 0.079, 0.072, 0.072, 0.062, 0.062),
    *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)


# The top of the head and the neck: CrowdPose's evaluator has the only published ones.
_HEAD_SIGMAS = (0.079, 0.079)


def _at(groups: tuple, places: Sequence[int]) -> tuple:
    """Groups of joints, each joint replaced by its place in another order."""
    return tuple(tuple(places[joint] for joint in group) for group in groups)


def _sorted_by(values: tuple, places: Sequence[int]) -> tuple:
    """Values in the order of their places."""
    return tuple(value for _, value in sorted(zip(places, values, strict=True)))


def _partitions(
    head: tuple[int, ...], limbs: Sequence[int], middle: tuple[int, ...] = ()
) -> dict:
    """PINet's partitions (Table 1b) for a head and twelve limb joints at `limbs`.

    "center", "part-large" and "head" follow the released code and the paper's text;
    "part-small" and "keypoint" are our reading, as Figure 3 names no joints. Joints in
    the `middle` of the body, which PINet's datasets do not have, go with the torso.
    """
    torso, left_arm, right_arm = (0, 1, 6, 7), (0, 2, 4), (1, 3, 5)
    left_leg, right_leg = (6, 8, 10), (7, 9, 11)
    (trunk,) = _at((torso,), limbs)
    trunk = (*trunk, *middle)
    partitions = {
        "center": (tuple(sorted((*head, *limbs, *middle))),),
        "part-large": (trunk, *_at(((6, 7, 8, 9, 10, 11),), limbs)),
        "part-small": (
            trunk,
            *_at((left_arm, right_arm, left_leg, right_leg), limbs),
        ),
        "keypoint": tuple((joint,) for joint in (*limbs, *middle)),
    }
    if head:
        partitions = {
            name: groups if name == "center" else (head, *groups)
            for name, groups in partitions.items()
        }
        partitions["head"] = (head,)
    return partitions


COCO = Skeleton(
    name="coco",
    joints=("nose", "left_eye", "right_eye", "left_ear", "right_ear", *_LIMBS),
    bones=(
        *((0, 1), (1, 2), (0, 2), (1, 3), (2, 4)),
        *((5, 6), (5, 11), (6, 12), (11, 12)),
        *((5, 7), (7, 9), (6, 8), (8, 10)),
        *((11, 13), (13, 15), (12, 14), (14, 16)),
    ),
    flip_pairs=((1, 2), (3, 4), *_at(_LIMB_PAIRS, range(5, 17))),
    sigmas=(0.026, 0.025, 0.025, 0.035, 0.035, *_LIMB_SIGMAS),
    parts=_partitions(head=(0, 1, 2, 3, 4), limbs=range(5, 17)),
)

CROWDPOSE = Skeleton(
    name="crowdpose",
    joints=(*_LIMBS, "head", "neck"),
    bones=(
        *((12, 13), (13, 0), (13, 1), (0, 1), (0, 6), (1, 7), (6, 7)),
        *((0, 2), (2, 4), (1, 3), (3, 5), (6, 8), (8, 10), (7, 9), (9, 11)),
    ),
    flip_pairs=_LIMB_PAIRS,
    sigmas=(*_LIMB_SIGMAS, *_HEAD_SIGMAS),
    parts=_partitions(head=(12, 13), limbs=range(12)),
)

_LIMB_BONES = (
    *((0, 1), (0, 6), (1, 7), (6, 7), (0, 2), (2, 4), (1, 3), (3, 5)),
    *((6, 8), (8, 10), (7, 9), (9, 11)),
)

OCPOSE = Skeleton(
    name="ocpose",
    joints=_LIMBS,
    bones=_LIMB_BONES,
    flip_pairs=_LIMB_PAIRS,
    sigmas=_LIMB_SIGMAS,
    parts=_partitions(head=(), limbs=range(12)),
)

# The orders below are those of the datasets' own files. Where each has its twelve limb
# joints, in the order of _LIMBS:
_OCHUMAN_LIMBS = (3, 0, 4, 1, 5, 2, 9, 6, 10, 7, 11, 8)
_MPII_LIMBS = (13, 12, 14, 11, 15, 10, 3, 2, 4, 1, 5, 0)
_LSP_LIMBS = (9, 8, 10, 7, 11, 6, 3, 2, 4, 1, 5, 0)

# OCHuman is scored on COCO's 17 joints; these 19 are what its own file labels. "head"
# is the top of the head. Its sigmas are COCO's, and CrowdPose's for head and neck.
OCHUMAN = Skeleton(
    name="ochuman19",
    joints=(
        *("right_shoulder", "right_elbow", "right_wrist"),
        *("left_shoulder", "left_elbow", "left_wrist"),
        *("right_hip", "right_knee", "right_ankle"),
        *("left_hip", "left_knee", "left_ankle", "head", "neck"),
        *("right_ear", "left_ear", "nose", "right_eye", "left_eye"),
    ),
    bones=(
        *((12, 13), (13, 3), (13, 0), *_at(_LIMB_BONES, _OCHUMAN_LIMBS)),
        *((16, 18), (18, 17), (16, 17), (18, 15), (17, 14)),
    ),
    flip_pairs=(*_at(_LIMB_PAIRS, _OCHUMAN_LIMBS), (15, 14), (18, 17)),
    sigmas=(
        *_sorted_by(_LIMB_SIGMAS, _OCHUMAN_LIMBS),
        *(*_HEAD_SIGMAS, 0.035, 0.035, 0.026, 0.025, 0.025),
    ),
    parts=_partitions(head=(12, 13, 14, 15, 16, 17, 18), limbs=_OCHUMAN_LIMBS),
)

# MPII and LSP are scored by PCK, without sigmas. For OKS we take COCO's for the limbs,
# the hips' for the pelvis, the shoulders' for the thorax, CrowdPose's for the head.
MPII = Skeleton(
    name="mpii",
    joints=(
        *("right_ankle", "right_knee", "right_hip"),
        *("left_hip", "left_knee", "left_ankle"),
        *("pelvis", "thorax", "upper_neck", "head_top"),
        *("right_wrist", "right_elbow", "right_shoulder"),
        *("left_shoulder", "left_elbow", "left_wrist"),
    ),
    bones=(
        *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9)),
        *((10, 11), (11, 12), (12, 7), (7, 13), (13, 14), (14, 15)),
    ),
    flip_pairs=_at(_LIMB_PAIRS, _MPII_LIMBS),
    sigmas=_sorted_by(
        (*_LIMB_SIGMAS, 0.107, 0.079, *_HEAD_SIGMAS), (*_MPII_LIMBS, 6, 7, 8, 9)
    ),
    parts=_partitions(head=(8, 9), limbs=_MPII_LIMBS, middle=(6, 7)),
)

LSP = Skeleton(
    name="lsp",
    joints=(
        *("right_ankle", "right_knee", "right_hip"),
        *("left_hip", "left_knee", "left_ankle"),
        *("right_wrist", "right_elbow", "right_shoulder"),
        *("left_shoulder", "left_elbow", "left_wrist", "neck", "head_top"),
    ),
    bones=((13, 12), (12, 9), (12, 8), *_at(_LIMB_BONES, _LSP_LIMBS)),
    flip_pairs=_at(_LIMB_PAIRS, _LSP_LIMBS),
    sigmas=(*_sorted_by(_LIMB_SIGMAS, _LSP_LIMBS), *_HEAD_SIGMAS),
    parts=_partitions(head=(12, 13), limbs=_LSP_LIMBS),
)

BY_NAME = {
    skeleton.name: skeleton
    for skeleton in (COCO, CROWDPOSE, OCPOSE, OCHUMAN, MPII, LSP)
}
