"""What each kind of error costs: AP after its correction, one kind after the other.

After Ronchi and Perona (ICCV 2017), as `errors`. Correcting a joint never lowers the
OKS of a detection with the person it found; leaving out false detections, and then
missed people, never lowers AP. The steps between can: a detection may be drawn away
from a neighbour for whom it is right, or from somebody ignored, so that it turns from
nothing into an error. Where no detection ever has OKS 0.5 with anybody but the person
it found, and nobody has two such detections, no correction of joints lowers AP; where
detections are not alike either, nor does that of the score.
"""

import numpy as np

from occjax.evaluation import coco, errors, matching, oks
from occjax.evaluation.errors import GOOD, NEAR, Diagnosis
from occjax.evaluation.pairs import MOST, Pairs
from occjax.evaluation.screen import percent

STEPS = (
    *("none", "miss", "swap", "inversion", "jitter"),
    *("score", "background", "missed"),
)
_CHUNK = 100  # images whose detections are compared with one another at a time
_SPREAD = 0.5  # of soft suppression
_SMALLEST = (32.0**2, 1e10)  # people that coco-analyze looks at, square pixels


def progression(
    pairs: Pairs, diagnosis: Diagnosis, coco_analyze_compat: bool = False
) -> list[dict]:
    """AP after each of `STEPS`, which add up.

    miss, swap, inversion, jitter: joints of that kind are put beside their true place,
    at similarity 0.5 (miss), 0.85 (jitter) or the one they had where they were (swap,
    inversion). score: each detection is scored by `optimal_score`. background: wrong
    detections are left out; missed: people who were not found no longer count, which
    leaves AP 1, or -1 if nobody was found.

    Args:
        pairs: detections and people.
        diagnosis: of their joints, from `errors.diagnose`.
        coco_analyze_compat: take the public tool's numbers: people and detections
            from 32² pixels, and joints put at half the distance meant, because it
            takes sigma for 2 sigma.

    Returns:
        For each step its name `step`, `AP`, `AP50`, `AP75`, `AR` and `precision75`,
        the precision at 101 recalls at OKS .75.
    """
    area = _SMALLEST if coco_analyze_compat else matching.EVERY_AREA
    joints = pairs.found.joints.copy()
    targets = _targets(pairs, diagnosis, 1 if coco_analyze_compat else 2)
    rows = [_row("none", pairs, matching.match(pairs, area=area))]
    for step in STEPS[1:5]:
        wrong = diagnosis.kind == errors.KINDS.index(step)
        at, joint = np.nonzero(wrong)
        joints[diagnosis.detection[at], joint] = targets[at, joint]
        pairs = pairs.with_joints(joints.copy())
        rows.append(_row(step, pairs, matching.match(pairs, area=area)))
    pairs = pairs.with_scores(optimal_score(pairs))
    found = matching.match(pairs, area=area)
    rows.append(_row("score", pairs, found))
    found = found._replace(left_out=found.left_out | (found.person < 0))
    rows.append(_row("background", pairs, found))
    held = np.zeros_like(found.counts)
    level, detection = np.nonzero(found.person >= 0)
    held[level, found.person[level, detection]] = True
    found = found._replace(counts=found.counts & held)
    rows.append(_row("missed", pairs, found))
    return rows


def _row(step: str, pairs: Pairs, found: matching.Matching) -> dict:
    curve = matching.curve(pairs, found)
    precision = {"precision75": curve.precision[matching.AT_75].tolist()}
    return {"step": step} | curve.summary() | precision


def _targets(pairs: Pairs, diagnosis: Diagnosis, factor: float) -> np.ndarray:
    """Corrected places [Q, J, 2] of the joints that are not good."""
    reached = diagnosis.best.copy()
    reached[diagnosis.kind == errors.KINDS.index("miss")] = NEAR
    reached[diagnosis.kind == errors.KINDS.index("jitter")] = GOOD
    reached = np.clip(reached, np.finfo(float).tiny, 1)
    width = factor * np.asarray(pairs.skeleton.sigmas)
    size = np.sqrt(pairs.people.area[diagnosis.person])[:, None]
    targets = pairs.people.joints[diagnosis.person, :, :2].copy()
    targets[..., 0] += np.sqrt(-2 * np.log(reached)) * size * width
    return targets


def optimal_score(pairs: Pairs) -> np.ndarray:
    """The best OKS [D] of each detection with a person that counts, softly suppressed.

    In each image the detections are visited by score; each lowers those that are left
    by the factor exp(-oks² / 0.5), with the OKS of the two detections.
    """
    found, rank = pairs.found, pairs.found.rank
    score = pairs.best()
    sigmas = np.asarray(pairs.skeleton.sigmas)
    for first in range(0, len(pairs.images), _CHUNK):
        low, high = np.searchsorted(found.image, [first, first + _CHUNK])
        cell = (found.image[low:high] - first, rank[low:high])
        joints = np.zeros((_CHUNK, MOST, *found.joints.shape[1:]))
        joints[cell] = found.joints[low:high]
        grid = np.full((_CHUNK, MOST), -1.0)  # below all scores: nobody
        grid[cell] = score[low:high]
        area = np.prod(np.ptp(joints, axis=2), axis=-1)
        alike = oks.joint_similarity(
            joints[:, :, None],
            joints[:, None],
            (area[:, :, None] + area[:, None]) / 2,
            sigmas,
        ).mean(axis=-1)  # [images, MOST, MOST]
        score[low:high] = _suppress(grid, alike)[cell]
    return score


def _suppress(score: np.ndarray, alike: np.ndarray) -> np.ndarray:
    """Scores [N, K] lowered in turn by likeness [N, K, K] to a better detection."""
    waiting = np.greater_equal(score, 0)
    images = np.arange(len(score))
    for _ in range(score.shape[1]):
        top = np.argmax(np.where(waiting, score, -1), axis=1)
        waiting[images, top] = False
        factor = np.exp(-np.square(alike[images, top]) / _SPREAD)
        score = np.where(waiting, score * factor, score)
    return score


def table(steps: list[dict]) -> str:
    """AP and AP75 after each step in per cent, and what the step added to AP75."""
    lines = [f"{'corrected':>12}{'AP':>8}{'AP75':>8}{'gain':>8}"]
    for before, row in zip([steps[0], *steps], steps, strict=False):
        defined = row["AP75"] != coco.UNDEFINED
        gain = row["AP75"] - before["AP75"] if defined else coco.UNDEFINED
        values = (row["AP"], row["AP75"], gain)
        cells = "".join(f"{percent(value):>8}" for value in values)
        lines.append(f"{row['step']:>12}{cells}")
    return "\n".join(lines)
