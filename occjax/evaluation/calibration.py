"""Whether predicted numbers mean what they say.

The score of a pose is held against the OKS it really has, that of a joint against its
similarity with the truth, the predicted visibility of a joint against its label, and
the prediction that there is a label against that. Ten bins of equal width; the expected
calibration error is the mean of |mean predicted - mean true|, weighted by the bins'
counts (Naeini et al. 2015).
"""

import numpy as np

from occjax.evaluation import coco, errors, joints, matching
from occjax.evaluation.pairs import Pairs
from occjax.types import VISIBLE

BINS = 10


def of_scores(pairs: Pairs) -> dict:
    """Reliability of the score as an estimate of OKS.

    COCO's matching at OKS 0.1 says whose a detection is. Its truth is the OKS with
    that person, and 0 if it is nobody's: a second detection of a person is wrong, as
    AP has it. Detections of people who do not count are left out.

    Returns:
        `reliability` of score and OKS; the bins reach from 0 to 1, or as far as the
        scores do if they leave that range; the error then says nothing and is -1.
    """
    found = matching.match(pairs, np.array([errors.LOCATED]))
    judged = ~found.left_out[0]
    owner = found.person[0]
    hit = owner[pairs.detection] == pairs.person
    true = np.zeros(len(owner))
    true[pairs.detection[hit]] = pairs.oks[hit]
    return reliability(pairs.found.score[judged], true[judged])


def of_visibility(pairs: Pairs) -> dict | None:
    """Reliability of the predicted probability that a joint can be seen.

    Labelled joints of the people found at OKS 0.1 are judged, true if marked visible,
    in the images where at least one joint is so marked.

    Returns:
        `reliability`, and `auc`: how probable it is that of a visible and an occluded
        joint the visible one has the higher prediction (-1 if one kind is missing).
        None where no detection predicts visibility.
    """
    if np.isnan(pairs.found.visible).all():
        return None
    detection, person = errors.located(pairs)
    usable = joints.usable_images(pairs)[pairs.people.image[person]]
    predicted = pairs.found.visible[detection]
    judged = pairs.people.labelled[person] & usable[:, None] & ~np.isnan(predicted)
    true = (pairs.people.joints[person, :, 2] == VISIBLE)[judged]
    return reliability(predicted[judged], true) | {"auc": _auc(predicted[judged], true)}


def of_labels(pairs: Pairs) -> dict | None:
    """Reliability of the predicted probability that a joint has a label (OAKS).

    All joints of the people found at OKS 0.1 are judged.

    Returns:
        `reliability`, `auc` as in `of_visibility`, and `accuracy` with `by_joint`: the
        share of joints on whose right side of 0.5 the prediction is (Table 2).
        None where no detection predicts labels.
    """
    if np.isnan(pairs.found.labelled).all():
        return None
    detection, person = errors.located(pairs)
    predicted, true = pairs.found.labelled[detection], pairs.people.labelled[person]
    judged = ~np.isnan(predicted)
    right = (predicted > 0.5) == true
    names = pairs.skeleton.joints
    return reliability(predicted[judged], true[judged]) | {
        "auc": _auc(predicted[judged], true[judged]),
        "accuracy": _share(right[judged]),
        "by_joint": {
            name: _share(right[judged[:, at], at]) for at, name in enumerate(names)
        },
    }


def of_joint_scores(pairs: Pairs) -> dict:
    """Reliability of joint scores as estimates of the joints' similarity (OAKS).

    Labelled joints of the people found at OKS 0.1 are judged.

    Returns:
        `reliability`, and `correlation` with `by_joint`: Pearson's; None where either
        does not vary.
    """
    detection, person = errors.located(pairs)
    owner = np.full(len(pairs.found.score), -1)
    owner[detection] = person
    true = pairs.similarity[owner[pairs.detection] == pairs.person]  # by detection
    predicted, judged = (
        pairs.found.joint_score[detection],
        pairs.people.labelled[person],
    )
    names = pairs.skeleton.joints
    return reliability(predicted[judged], true[judged]) | {
        "correlation": _pearson(predicted[judged], true[judged]),
        "by_joint": {
            name: _pearson(predicted[judged[:, at], at], true[judged[:, at], at])
            for at, name in enumerate(names)
        },
    }


def reliability(predicted: np.ndarray, true: np.ndarray) -> dict:
    """Predicted against true values [n].

    Returns:
        `count`; `expected_calibration_error`, -1 if nothing is there or a prediction
        lies outside of 0 to 1; `bins`: each with `low`, `high`, `count` and the means
        `predicted` and `true`, which are -1 where the bin is empty.
    """
    low, high = np.min(predicted, initial=0), np.max(predicted, initial=1)
    edges = np.linspace(low, high, BINS + 1)
    where = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, BINS - 1)
    bins, error = [], 0.0
    for at in range(BINS):
        inside = where == at
        row = {"low": float(edges[at]), "high": float(edges[at + 1])}
        row |= {"count": int(inside.sum())}
        for name, values in (("predicted", predicted), ("true", true)):
            row[name] = float(values[inside].mean()) if inside.any() else coco.UNDEFINED
        error += row["count"] * abs(row["predicted"] - row["true"])
        bins.append(row)
    known = len(predicted) and low == 0 and high == 1
    error = error / len(predicted) if known else coco.UNDEFINED
    return {
        "count": len(predicted),
        "expected_calibration_error": float(error),
        "bins": bins,
    }


def _share(right: np.ndarray) -> float:
    return float(right.mean()) if len(right) else coco.UNDEFINED


def _pearson(first: np.ndarray, second: np.ndarray) -> float | None:
    """Correlation of values [n], None where one of them does not vary."""
    if not len(first) or not np.ptp(first) or not np.ptp(second):
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _auc(predicted: np.ndarray, true: np.ndarray) -> float:
    """Area under the ROC curve, by ranks; equals count half."""
    positive, negative = int(true.sum()), int((~true).sum())
    if not positive or not negative:
        return coco.UNDEFINED
    _, group, count = np.unique(predicted, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[group]  # mean rank of equals, from 1
    area = rank[true].sum() - positive * (positive + 1) / 2
    return float(area / (positive * negative))


def table(result: dict) -> str:
    """The bins for the screen: range, count, mean predicted and mean true."""
    lines = [f"{'bin':>11}{'count':>8}{'predicted':>11}{'true':>8}"]
    for row in result["bins"]:
        means = [row["predicted"], row["true"]] if row["count"] else []
        first, second = [f"{mean:.3f}" for mean in means] or "--"
        span = f"{row['low']:.2f}-{row['high']:.2f}"
        lines.append(f"{span:>11}{row['count']:>8}{first:>11}{second:>8}")
    return "\n".join(lines)
