"""How much better ranking alone could make AP: scores that know the truth.

The oracle of OAKS (Zhao et al. 2020) scores a detection by its best OKS with a person
that counts. It is no upper bound: a second detection of somebody well found outranks
the first of others, and greedy matching may give a detection somebody whom another one
needed. It is one if no detection has OKS 0.5 with two people and nobody has it with two
detections. Without duplicates in the way (`unique`) the second condition goes. What no
score can surpass, ever, is the `ceiling`: at each threshold, precision 1 up to the
recall of the largest one-to-one assignment of detections to people.
"""

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from occjax.evaluation import coco, matching
from occjax.evaluation.pairs import Pairs
from occjax.evaluation.screen import percent


def scores(pairs: Pairs) -> dict[str, dict[str, float]]:
    """AP, AP50, AP75 and AR with the given scores, ideal ones, and their ceiling.

    Returns:
        `given`; `oracle`: the best OKS with a person that counts; `unique`: that of
        `unique_scores`; `ceiling`. Each holds the metrics of `matching.score`.
    """
    return {
        "given": matching.score(pairs),
        "oracle": matching.score(pairs.with_scores(pairs.best())),
        "unique": matching.score(pairs.with_scores(unique_scores(pairs))),
        "ceiling": _ceiling(pairs).summary(),
    }


def unique_scores(pairs: Pairs) -> np.ndarray:
    """OKS [D] of each detection with its own person, 0 for the duplicates.

    Best pairs first, each detection and each person that counts are paired off once.
    Then every detection that finds somebody outranks all that do not.
    """
    near = (pairs.oks >= matching.THRESHOLDS[0]) & pairs.people.counts[pairs.person]
    rows = np.flatnonzero(near)
    score, taken = np.zeros(len(pairs.found.score)), set()
    for row in rows[np.argsort(-pairs.oks[rows], kind="stable")]:
        detection, person = pairs.detection[row], pairs.person[row]
        if not score[detection] and person not in taken:
            score[detection] = pairs.oks[row]
            taken.add(person)
    return score


def _ceiling(pairs: Pairs) -> matching.Curve:
    """The curve that no order and no assignment of the detections can surpass."""
    people = pairs.people
    precision = np.full((len(matching.THRESHOLDS), 101), coco.UNDEFINED)
    recall = np.full(len(matching.THRESHOLDS), coco.UNDEFINED)
    wanted = int(people.counts.sum())
    if not wanted:
        return matching.Curve(precision, recall)
    size = (len(pairs.found.score), len(people.area))
    for at, threshold in enumerate(matching.THRESHOLDS):
        near = (pairs.oks >= min(threshold, 1 - 1e-10)) & people.counts[pairs.person]
        cells = (pairs.detection[near], pairs.person[near])
        edges = sparse.csr_matrix((np.ones(len(cells[0])), cells), shape=size)
        partner = csgraph.maximum_bipartite_matching(edges, perm_type="column")
        recall[at] = np.sum(partner >= 0) / wanted
        precision[at] = (recall[at] > 0) & (matching.RECALLS <= recall[at])
    return matching.Curve(precision, recall)


def table(scores: dict) -> str:
    """AP, AP50, AP75 and AR in per cent with each score, for the screen."""
    names = ("AP", "AP50", "AP75", "AR")
    lines = [f"{'score':>9}" + "".join(f"{name:>8}" for name in names)]
    for kind, row in scores.items():
        cells = "".join(f"{percent(row[name]):>8}" for name in names)
        lines.append(f"{kind:>9}{cells}")
    return "\n".join(lines)
