"""Whether two systems differ by more than the choice of images explains.

The paired bootstrap (Efron and Tibshirani 1993, chapter 16): images are drawn with
replacement, the same ones for both systems, and AP is computed anew. Nothing is
matched again: an image drawn twice counts each of its detections and people twice.
Shape letters: B resamples, N images, T OKS thresholds, R recalls, S right detections.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from occjax.errors import UserError
from occjax.evaluation import coco, matching, occlusion
from occjax.evaluation.pairs import Pairs

METRICS = ("AP", "AP50", "AP75", "AR")
RESAMPLES = 1000
_LEVEL = 95  # per cent of an interval
_BLOCK = 50  # resamples at a time, to bound memory


# What two results have to share before their figures may stand in one table ...
_SAME = (
    *("protocol", "measure", "joints", "area", "thresholds", "detections_an_image"),
    *("detections_kept", "ground_truth_sha256"),
)
# ... and what may differ if it is said.
_TOLD = ("split", "box_source", "trained_on", "method", "flip", "scales", "step")


class Ranked(NamedTuple):
    """The right detections at one OKS threshold, best score first."""

    right: np.ndarray  # [S] image of each
    wrong: Any  # sparse [S, N]: false ones of each image since the last right one
    wanted: np.ndarray  # [N] people to be found


def differences(first: dict | None, second: dict | None, name: str) -> list[str]:
    """What sets the stamps of two results apart, one line for each fact.

    Args:
        first: from `report.stamp`; None where it is not known.
        second: of the other.
        name: of the second, for errors.

    Raises:
        UserError: they were scored by different protocols or on different labels.
    """
    if not first or not second:
        return []
    for key in _SAME:
        if first.get(key) != second.get(key):
            raise UserError(
                f"{name}: cannot be compared: its {key} is {second.get(key)!r}, here "
                f"it is {first.get(key)!r}."
            )
    return [
        f"{key}: {first.get(key)}, others {second.get(key)}"
        for key in _TOLD
        if first.get(key) != second.get(key)
    ]


def compare(
    first: Pairs,
    second: Pairs,
    truth: dict,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, dict]]:
    """Metrics of two systems on the same images, and how sure their difference is.

    Args:
        first: people, and detections of one system.
        second: the same people, and detections of the other.
        truth: COCO ground truth that both were made with, for the bins.
        resamples: how often images are drawn, B.
        seed: of the draws.

    Returns:
        For "all" images and the bins of `occlusion.by_overlap`: for each of
        `METRICS` `first`, `second`, `difference` (first - second) and its 95 %
        `interval`, as fractions. Where nobody is to be found metrics are -1, the
        difference and the interval's ends None. Draws without anybody are left out.
    """
    systems = [ranked(one) for one in (first, second)]
    groups = _groups(first, truth)
    count = len(first.images)
    once = {
        name: [metrics(system, inside[None].astype(float)) for system in systems]
        for name, inside in groups.items()
    }
    drawn: dict[str, list] = {name: [] for name in groups}
    for weights in _draws(count, resamples, seed):
        for name, inside in groups.items():
            values = [metrics(system, weights * inside) for system in systems]
            drawn[name].append(_difference(*values))
    return {name: _rows(once[name], np.concatenate(drawn[name])) for name in groups}


def metrics(levels: list[Ranked], weights: np.ndarray) -> np.ndarray:
    """`METRICS` [B, 4] with images that count as often as weights [B, N] say.

    -1 where nobody is to be found.
    """
    precision, recall = zip(*(_at(one, weights) for one in levels), strict=True)
    precision, recall = np.stack(precision, 1), np.stack(recall, 1)  # [B, T]
    columns = (precision.mean(1), precision[:, 0], precision[:, matching.AT_75])
    return np.stack([*columns, recall.mean(1)], axis=1)


def ranked(pairs: Pairs) -> list[Ranked]:
    """COCO's matching at each threshold, in the form that is quick to weigh."""
    found = matching.match(pairs)
    order = np.argsort(-pairs.found.score, kind="stable")
    image, images = pairs.found.image[order], len(pairs.images)
    wanted = np.bincount(pairs.people.image[found.counts[0]], minlength=images)
    levels = []
    for person, left_out in zip(found.person, found.left_out, strict=True):
        right = np.flatnonzero(((person >= 0) & ~left_out)[order])
        wrong = np.flatnonzero(((person < 0) & ~left_out)[order])
        before = np.searchsorted(right, wrong)
        kept = before < len(right)  # what comes after the last right one costs nothing
        cells = (before[kept], image[wrong[kept]])
        counts = sparse.csr_matrix(
            (np.ones(len(cells[0])), cells), shape=(len(right), images)
        )
        levels.append(Ranked(image[right], counts, wanted))
    return levels


def _at(ranked: Ranked, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean precision and recall [B] at a threshold.

    Precision is highest where a right detection has just come, so the places between
    need not be looked at.
    """
    right = np.cumsum(weights[:, ranked.right], axis=1)  # [B, S]
    wrong = np.cumsum((ranked.wrong @ weights.T).T, axis=1)
    share = right / (right + wrong + np.spacing(1))
    share = np.maximum.accumulate(share[:, ::-1], axis=1)[:, ::-1]
    share = np.append(share, np.zeros((len(share), 1)), axis=1)  # beyond the last
    precision = np.full(len(weights), coco.UNDEFINED)
    recall = np.full(len(weights), coco.UNDEFINED)
    wanted = weights @ ranked.wanted
    for row in np.flatnonzero(wanted):
        reached = right[row] / wanted[row]
        places = np.searchsorted(reached, matching.RECALLS)
        precision[row] = share[row, places].mean()
        recall[row] = np.max(reached, initial=0)
    return precision, recall


def _groups(pairs: Pairs, truth: dict) -> dict[str, np.ndarray]:
    """Which images [N] are in "all" and in each bin of box IoU."""
    groups = {"all": np.ones(len(pairs.images), bool)}
    for low, high, images in occlusion.overlap_bins(truth):
        inside = np.isin(pairs.images, list(images))
        groups[f"box IoU {low:.1f}-{high:.1f}"] = inside
    return groups


def _draws(images: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each image is drawn, some resamples [B, N] at a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - start)
        yield rng.multinomial(images, np.full(images, 1 / images), size).astype(float)


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """First - second [B, 4]; NaN where undefined, which both are at once."""
    return np.where(first == coco.UNDEFINED, np.nan, first - second)


def _rows(once: list[np.ndarray], drawn: np.ndarray) -> dict[str, dict]:
    """Metrics of both systems, each [1, 4], their difference and its interval."""
    first, second = once
    exact = _difference(first, second)[0]
    rows = {}
    for at, name in enumerate(METRICS):
        values = drawn[:, at][~np.isnan(drawn[:, at])]
        tail = (100 - _LEVEL) / 2
        known = not np.isnan(exact[at]) and len(values)
        ends = np.percentile(values, (tail, 100 - tail)).tolist() if known else None
        rows[name] = {
            "first": float(first[0, at]),
            "second": float(second[0, at]),
            "difference": float(exact[at]) if known else None,
            "interval": ends or [None, None],
        }
    return rows


def table(figures: dict[str, dict[str, dict]]) -> str:
    """Both systems, their difference and its interval in per cent, for the screen."""
    lines = [f"{'':<16}{'':<6}{'these':>7}{'others':>8}{'diff.':>8}  95 % interval"]
    for name, rows in figures.items():
        for metric, row in rows.items():
            if row["difference"] is None:
                continue
            first, second, difference = (
                100 * row[key] for key in ("first", "second", "difference")
            )
            low, high = (f"{100 * end:+.1f}" for end in row["interval"])
            cells = f"{first:>7.1f}{second:>8.1f}{difference:>+8.1f}"
            lines.append(f"{name:<16}{metric:<6}{cells}  {low} to {high}")
            name = ""
    return "\n".join(lines)
