"""COCO's greedy matching and its precision over recall, for all images at once.

What `coco.Matches` scores once is scored here many times over: with only some people
counted, with corrected joints, with other scores. The rules are those of pycocotools
and so are the figures. Shape letters: T OKS thresholds, R = 101 recalls, D detections,
G annotated people, N images, K ranks by score within an image.
"""

from typing import NamedTuple

import numpy as np

from occjax.evaluation import coco
from occjax.evaluation.pairs import MOST, Pairs

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AT_75 = 5  # place of OKS .75 among them
RECALLS = np.linspace(0, 1, 101)
EVERY_AREA = (0.0, 1e10)  # square pixels


class Matching(NamedTuple):
    """Whom each detection found."""

    person: np.ndarray  # [T, D] row of the person, -1 for nobody
    left_out: np.ndarray  # [T, D] bool, neither right nor wrong
    counts: np.ndarray  # [T, G] bool, people who have to be found


class Curve(NamedTuple):
    """Precision over recall; -1 where nobody has to be found."""

    precision: np.ndarray  # [T, R]
    recall: np.ndarray  # [T] reached in the end

    def summary(self) -> dict[str, float]:
        """AP, AP50, AP75 and AR of a curve at `THRESHOLDS`."""
        precision = self.precision.mean(axis=1)
        defined = self.recall > coco.UNDEFINED
        if not defined.any():
            return dict.fromkeys(("AP", "AP50", "AP75", "AR"), coco.UNDEFINED)
        return {
            "AP": float(precision[defined].mean()),
            "AP50": float(precision[0]),
            "AP75": float(precision[AT_75]),
            "AR": float(self.recall[defined].mean()),
        }


def match(
    pairs: Pairs,
    thresholds: np.ndarray = THRESHOLDS,
    only: np.ndarray | None = None,
    area: tuple[float, float] = EVERY_AREA,
) -> Matching:
    """Gives each detection, best score first, the free person of highest OKS.

    People who do not count are taken when nobody else is in reach, and a detection
    of theirs is left out.

    Args:
        pairs: detections and people.
        thresholds: [T] least OKS of a match.
        only: [G] bool, these people alone count; the others stay, ignored.
        area: of people who count and of detections that are wrong, square pixels.
    """
    people, found = pairs.people, pairs.found
    counts = people.counts if only is None else people.counts & only
    counts = counts & (people.area >= area[0]) & (people.area <= area[1])
    rank = found.rank
    most = int(np.max(people.slot, initial=0)) + 1  # people in one image
    table = np.full((len(pairs.images), MOST, most), -1.0)  # OKS
    place = (found.image[pairs.detection], rank[pairs.detection])
    table[*place, people.slot[pairs.person]] = pairs.oks
    member = np.full((len(pairs.images), most), -1)
    member[people.image, people.slot] = np.arange(len(people.area))

    person = np.full((len(thresholds), len(rank)), -1)
    for at, threshold in enumerate(thresholds):
        least = min(threshold, 1 - 1e-10)  # as pycocotools
        chosen = _greedy(table, member, counts, people.crowd, least)
        person[at] = chosen[found.image, rank]
    inside = (found.area >= area[0]) & (found.area <= area[1])
    left_out = np.where(person < 0, ~inside, ~_at(counts, person))
    return Matching(person, left_out, np.tile(counts, (len(thresholds), 1)))


def _greedy(
    table: np.ndarray,
    member: np.ndarray,
    counts: np.ndarray,
    crowd: np.ndarray,
    threshold: float,
) -> np.ndarray:
    """Person rows [N, K] that detections with OKS [N, K, G] take in turn, or -1."""
    images, ranks, places = table.shape
    counts, crowd = _at(counts, member), _at(crowd, member)
    free = np.ones(member.shape, bool)
    chosen = np.full((images, ranks), -1)
    for rank in range(ranks):
        value = table[:, rank]
        reach = (value >= threshold) & (free | crowd)
        wanted = reach & counts
        reach = np.where(wanted.any(axis=1, keepdims=True), wanted, reach)
        value = np.where(reach, value, -1)
        best = places - 1 - np.argmax(value[:, ::-1], axis=1)  # the last of equals
        hit = np.flatnonzero(reach.any(axis=1))
        chosen[hit, rank] = member[hit, best[hit]]
        free[hit, best[hit]] = False
    return chosen


def _at(flags: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Flags [G] of person rows, false for nobody."""
    return np.append(flags, False)[person]


def curve(pairs: Pairs, matching: Matching) -> Curve:
    """Precision at 101 recalls, as COCO interpolates it."""
    order = np.argsort(-pairs.found.score, kind="stable")
    matched = (matching.person >= 0)[:, order]
    judged = ~matching.left_out[:, order]
    right = np.cumsum(matched & judged, axis=1)
    wrong = np.cumsum(~matched & judged, axis=1)
    wanted = matching.counts.sum(axis=1)
    share = right / (right + wrong + np.spacing(1))
    share = np.maximum.accumulate(share[:, ::-1], axis=1)[:, ::-1]
    share = np.append(share, np.zeros((len(share), 1)), axis=1)  # beyond the last
    precision = np.full((len(share), len(RECALLS)), coco.UNDEFINED)
    recall = np.full(len(share), coco.UNDEFINED)
    for at in np.flatnonzero(wanted):
        reached = right[at] / wanted[at]
        precision[at] = share[at, np.searchsorted(reached, RECALLS)]
        recall[at] = np.max(reached, initial=0)
    return Curve(precision, recall)


def score(
    pairs: Pairs,
    only: np.ndarray | None = None,
    area: tuple[float, float] = EVERY_AREA,
) -> dict[str, float]:
    """AP, AP50, AP75 and AR; -1 where nobody counts. See `match` for the arguments."""
    return curve(pairs, match(pairs, THRESHOLDS, only, area)).summary()
