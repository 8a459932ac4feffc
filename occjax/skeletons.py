"""Joints, bones, flip pairs, OKS sigmas and body parts of each dataset."""

import dataclasses


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


def _shift(groups: tuple, by: int) -> tuple:
    return tuple(tuple(joint + by for joint in group) for group in groups)


def _partitions(head: tuple[int, ...], limbs: int) -> dict:
    """PINet's partitions (Table 1b) for a head and twelve limb joints from `limbs`.

    "center", "part-large" and "head" follow the released code and the paper's text;
    "part-small" and "keypoint" are our reading, as Figure 3 names no joints.
    """
    torso, left_arm, right_arm = (0, 1, 6, 7), (0, 2, 4), (1, 3, 5)
    left_leg, right_leg = (6, 8, 10), (7, 9, 11)
    everything = tuple(sorted((*head, *range(limbs, limbs + 12))))
    partitions = {
        "center": (everything,),
        "part-large": _shift((torso, (6, 7, 8, 9, 10, 11)), limbs),
        "part-small": _shift((torso, left_arm, right_arm, left_leg, right_leg), limbs),
        "keypoint": tuple((joint,) for joint in range(limbs, limbs + 12)),
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
    flip_pairs=((1, 2), (3, 4), *_shift(_LIMB_PAIRS, 5)),
    sigmas=(0.026, 0.025, 0.025, 0.035, 0.035, *_LIMB_SIGMAS),
    parts=_partitions(head=(0, 1, 2, 3, 4), limbs=5),
)

CROWDPOSE = Skeleton(
    name="crowdpose",
    joints=(*_LIMBS, "head", "neck"),
    bones=(
        *((12, 13), (13, 0), (13, 1), (0, 1), (0, 6), (1, 7), (6, 7)),
        *((0, 2), (2, 4), (1, 3), (3, 5), (6, 8), (8, 10), (7, 9), (9, 11)),
    ),
    flip_pairs=_LIMB_PAIRS,
    sigmas=(*_LIMB_SIGMAS, 0.079, 0.079),
    parts=_partitions(head=(12, 13), limbs=0),
)

OCPOSE = Skeleton(
    name="ocpose",
    joints=_LIMBS,
    bones=(
        *((0, 1), (0, 6), (1, 7), (6, 7), (0, 2), (2, 4), (1, 3), (3, 5)),
        *((6, 8), (8, 10), (7, 9), (9, 11)),
    ),
    flip_pairs=_LIMB_PAIRS,
    sigmas=_LIMB_SIGMAS,
    parts=_partitions(head=(), limbs=0),
)

BY_NAME = {skeleton.name: skeleton for skeleton in (COCO, CROWDPOSE, OCPOSE)}
