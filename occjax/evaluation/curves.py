"""Precision-recall curves at OKS .75, for everybody and by how much is hidden."""

import numpy as np

from occjax.evaluation import matching, occlusion
from occjax.evaluation.pairs import Pairs

OKS = 0.75


def precision_recall(pairs: Pairs) -> dict:
    """Precision at 101 recalls at OKS .75 (OAKS, Figures 11 and 12).

    Returns:
        `recall`: the 101 recalls; `everybody`: `persons`, `precision` at these recalls
        and its mean `AP75`, -1 where nobody counts; `joint_count`: the same for the
        people of each bin of `occlusion.by_joint_count`, with its `low` and `high`.
    """
    bins = occlusion.joint_count_bins(pairs)
    return {
        "recall": matching.RECALLS.tolist(),
        "everybody": _curve(pairs, pairs.people.counts),
        "joint_count": [
            {"low": low, "high": high} | _curve(pairs, only) for low, high, only in bins
        ],
    }


def _curve(pairs: Pairs, only: np.ndarray) -> dict:
    found = matching.match(pairs, np.array([OKS]), only)
    precision = matching.curve(pairs, found).precision[0]
    return {
        "persons": int(np.sum(found.counts)),
        "AP75": float(precision.mean()),
        "precision": precision.tolist(),
    }
