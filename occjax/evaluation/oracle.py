"""How much better ranking alone could make AP: a score that knows the truth.

The oracle of OAKS (Zhao et al. 2020): the score of a detection is its best OKS with a
person that counts. No other score of the same detections gives more AP if each lies
near one person only and each person was found once (OKS 0.5 or more). Else it can: a
second detection of somebody well found outranks first ones of others, and the greedy
matching may give a detection somebody whom another one needed. The `ceiling` holds
always: at each OKS threshold, precision 1 up to the recall of the largest one-to-one
assignment of detections to people.
"""

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from occjax.evaluation import coco, matching
from occjax.evaluation.pairs import Pairs


def scores(pairs: Pairs) -> dict[str, dict[str, float]]:
    """AP, AP50, AP75 and AR with the given scores, the oracle's, and their ceiling.

    Returns:
        `given`, `oracle` and `ceiling`, each the metrics of `matching.score`.
    """
    return {
        "given": matching.score(pairs),
        "oracle": matching.score(pairs.with_scores(pairs.best())),
        "ceiling": _ceiling(pairs).summary(),
    }


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
        precision[at] = matching.RECALLS <= recall[at]
    return matching.Curve(precision, recall)


def table(scores: dict) -> str:
    """AP, AP50, AP75 and AR in per cent with each score, for the screen."""
    names = ("AP", "AP50", "AP75", "AR")
    lines = [f"{'score':>9}" + "".join(f"{name:>8}" for name in names)]
    for kind, row in scores.items():
        cells = ["-" if row[n] < 0 else f"{100 * row[n]:.1f}" for n in names]
        lines.append(f"{kind:>9}" + "".join(f"{cell:>8}" for cell in cells))
    return "\n".join(lines)
