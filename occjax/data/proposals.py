"""Poses from a file as where training starts: each matched to whom it shows.

The rule is OPEC-Net's (spec of OPEC-Net, section 5.4): each labelled person, in the
order of the labels, takes the pose of highest OKS of those that nobody took before.
"""

import collections
from collections.abc import Sequence

import numpy as np

from occjax.data import people, records, results
from occjax.data.sources import Source
from occjax.errors import UserError
from occjax.skeletons import Skeleton


class Proposed(people.Detected):
    """Each pose of a file that shows a labelled person, image after image.

    Attributes:
        dropped: how many poses, people and images were left out, by reason.
    """

    def __init__(self, source: Source, path: str, oks: float = 0.3, joints: int = 5):
        """Reads a COCO result list, and the records of the images that it is about.

        Args:
            source: of the images.
            path: of the file.
            oks: that a pose must be above to show somebody.
            joints: people need more labelled ones than this.

        Raises:
            UserError: as `results.read`, or no pose shows anybody.
        """
        found, self.dropped = results.read(path, "data.proposals", source, poses=True)
        poses: dict[int, list[results.Result]] = {}
        for one in found:
            poses.setdefault(one.image, []).append(one)
        shown: list[results.Result] = []
        counts: list[int] = []
        left = collections.Counter({"images without poses": len(source) - len(poses)})
        for image in sorted(poses):
            record = source[image]
            labelled = np.sum(record["persons"]["joints"][:, :, 2] > 0, axis=1)
            whole, targets = labelled > joints, records.targets(record)
            rows = np.flatnonzero(targets & whole)
            pairs = match(record, rows, poses[image], source.skeleton, oks)
            shown += [poses[image][at]._replace(row=row) for row, at in pairs]
            counts += [int(labelled[row]) for row, _ in pairs]
            left["people with too few joints"] += int(np.sum(targets & ~whole))
            left["people without a pose"] += len(rows) - len(pairs)
            left["poses of nobody"] += len(poses[image]) - len(pairs)
        results.warn(path, left)
        self.dropped += left
        if not shown:
            raise UserError(
                f"data.proposals: {path}: expected poses of people with more than "
                f"{joints} labelled joints and OKS above {oks}, found none."
            )
        super().__init__(source, shown)
        self._counts = np.array(counts)

    @property
    def labelled_joints(self) -> np.ndarray:
        """How many joints of each person [N] are labelled."""
        return self._counts


def match(
    record: records.Record,
    rows: np.ndarray,
    poses: Sequence[results.Result],
    skeleton: Skeleton,
    least: float,
) -> list[tuple[int, int]]:
    """Whom poses show: pairs of a person's row and the index of a pose, by rows.

    Args:
        record: of the poses' image.
        rows: of its labelled people, in the order in which they choose.
        poses: of the image; of equal ones the first is taken.
        skeleton: J joints.
        least: OKS that a pair must be above.
    """
    similarity = _oks(record, rows, poses, skeleton)
    pairs = []
    for row, values in zip(rows.tolist(), similarity, strict=True):
        at = int(np.argmax(values))
        if values[at] > least:
            pairs.append((row, at))
            similarity[:, at] = -1.0  # nobody else's
    return pairs


def _oks(
    record: records.Record,
    rows: np.ndarray,
    poses: Sequence[results.Result],
    skeleton: Skeleton,
) -> np.ndarray:
    """OKS [p, K] of labelled people with poses, as COCO's evaluator has it."""
    persons = record["persons"]
    joints = np.asarray(persons["joints"], np.float64)[rows, None]  # [p, 1, J, 3]
    found = np.array([one.pose for one in poses])[..., :2]  # [K, J, 2]
    square = np.sum(np.square(joints[..., :2] - found), axis=-1)
    area = np.asarray(persons["area"], np.float64)[rows, None, None]
    spread = 2 * area * np.square(2 * np.asarray(skeleton.sigmas))
    labelled = joints[..., 2] > 0
    total = np.sum(np.exp(-square / spread), axis=-1, where=labelled)
    return total / np.sum(labelled, axis=-1)
