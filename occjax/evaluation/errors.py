"""Why a joint is wrong: jitter, inversion, swap or miss.

After Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose
Estimation" (ICCV 2017), whose public tool is coco-analyze. Shape letters: D detections,
Q of them found somebody, M pairs, J joints.
"""

from typing import NamedTuple

import numpy as np

from occjax.evaluation import matching, oks
from occjax.evaluation.pairs import Pairs

LOCATED = 0.1  # least OKS at which a detection is somebody's
NEAR, GOOD = 0.5, 0.85  # similarity of a joint that is at its place, and well
KINDS = ("good", "jitter", "inversion", "swap", "miss")
_GOOD, _JITTER, _INVERSION, _SWAP, _MISS = range(len(KINDS))
UNJUDGED = -1


class Diagnosis(NamedTuple):
    """What became of each joint of the detections that found somebody."""

    detection: np.ndarray  # [Q] rows of detections
    person: np.ndarray  # [Q] rows of the people whom they found
    kind: np.ndarray  # [Q, J] index into KINDS, -1 where the joint has no label
    best: np.ndarray  # [Q, J] similarity to the place that the joint is nearest to


def diagnose(pairs: Pairs) -> Diagnosis:
    """Judges each labelled joint by the annotated place that it is most similar to.

    A detection is somebody's if COCO's matching at OKS 0.1 gives it a person that
    counts. The places are: the same joint of that person (good from 0.85 up, else
    jitter), the mirrored joint of that person (inversion), the same or the mirrored
    joint of anybody else in the image (swap). Below 0.5 everywhere it is a miss.
    """
    detection, person = located(pairs)
    rows = np.isin(pairs.detection, detection)
    same, mirrored = _places(pairs, rows)
    owner = np.full(len(pairs.found.score), -1)
    owner[detection] = person
    own = pairs.person[rows] == owner[pairs.detection[rows]]
    starts = np.searchsorted(pairs.detection[rows], detection)
    # In this order because the earliest of equals wins, as in coco-analyze.
    places = [
        same[own],
        _most(np.where(own[:, None], -1, same), starts),
        mirrored[own],
        _most(np.where(own[:, None], -1, mirrored), starts),
    ]
    where = np.argmax(places, axis=0)
    best = np.maximum(np.max(places, axis=0), 0)
    kind = np.array([_GOOD, _SWAP, _INVERSION, _SWAP])[where]
    kind[(where == 0) & (best < GOOD)] = _JITTER
    kind[best < NEAR] = _MISS
    kind[~pairs.people.labelled[person]] = UNJUDGED
    return Diagnosis(detection, person, kind, best)


def located(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the detections at OKS 0.1 or more with a person that counts, and whose.

    Both [Q], the detections rising; each person is found at most once.
    """
    found = matching.match(pairs, np.array([LOCATED]))
    detection = np.flatnonzero((found.person[0] >= 0) & ~found.left_out[0])
    return detection, found.person[0, detection]


def _places(pairs: Pairs, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Similarity to the same and the mirrored joint, [rows, J], -1 unlabelled."""
    flip = np.asarray(pairs.skeleton.flip)
    detection, person = pairs.detection[rows], pairs.person[rows]
    labelled = pairs.people.labelled[person]
    mirrored = oks.joint_similarity(
        pairs.found.joints[detection],
        pairs.people.joints[person][:, flip, :2],
        pairs.people.area[person],
        np.asarray(pairs.skeleton.sigmas),
    )
    same = np.where(labelled, pairs.similarity[rows], -1)
    return same, np.where(labelled[:, flip], mirrored, -1)


def _most(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Largest of the values [M, J] of each run of rows that begins at starts [Q]."""
    if not len(starts):
        return values
    return np.maximum.reduceat(values, starts, axis=0)


def types(pairs: Pairs, diagnosis: Diagnosis) -> dict:
    """How often each error occurs.

    Returns:
        `people`: who counts; `found`: those of them whom a detection found;
        `joints`: labelled joints of the found, all judged; `counts` and `shares` of
        `joints` (0 if there are none): by kind; `by_joint`: joint name -> kind ->
        count.
    """
    tally = np.stack([(diagnosis.kind == kind).sum(axis=0) for kind in range(5)])
    joints = int(tally.sum())
    counts = {name: int(n) for name, n in zip(KINDS, tally.sum(axis=1), strict=True)}
    return {
        "people": int(pairs.people.counts.sum()),
        "found": len(diagnosis.person),
        "joints": joints,
        "counts": counts,
        "shares": {name: n / max(joints, 1) for name, n in counts.items()},
        "by_joint": {
            joint: {name: int(n) for name, n in zip(KINDS, column, strict=True)}
            for joint, column in zip(pairs.skeleton.joints, tally.T, strict=True)
        },
    }


def table(types: dict) -> str:
    """Shares of the kinds in per cent, for each joint and all, for the screen."""
    lines = [f"{'joint':>15}" + "".join(f"{kind:>11}" for kind in KINDS)]
    for joint, counts in (types["by_joint"] | {"all": types["counts"]}).items():
        total = max(sum(counts.values()), 1)
        cells = "".join(f"{100 * counts[kind] / total:11.1f}" for kind in KINDS)
        lines.append(f"{joint:>15}{cells}")
    return "\n".join(lines)
