"""OAKS with one of its two predictions replaced by the truth: what limits it."""

import json
import pathlib

import numpy as np

from occjax.data import sources
from occjax.evaluation import coco, pairs, ranking, report
from occjax.evaluation.pairs import Pairs
from occjax.ops import rescoring


def ranked(run: pathlib.Path, folder: pathlib.Path) -> dict[str, dict]:
    """What scores with such truth make of the poses in a folder.

    Args:
        run: folder of the run, whose test split they are of.
        folder: of detections whose joint scores are predicted similarities.

    Returns:
        `ranking.figures` by name, as of `scores`.
    """
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    source = sources.load(config["data"], config["data"]["eval_split"])
    found = json.loads((folder / "detections.json").read_text(encoding="utf-8"))
    protocol = report.protocol_of(config["data"]["dataset"], source.skeleton)
    scored = report.score(coco.ground_truth(source), found, protocol)
    given = pairs.gather(scored.truth, scored.found, source.skeleton)
    return {
        name: ranking.figures(given.with_scores(score))
        for name, score in scores(given).items()
    }


def scores(given: Pairs) -> dict[str, np.ndarray]:
    """OAKS [D] with true labels, and with true similarities of labelled joints.

    They are those of the person whom a detection resembles most; a detection without
    anybody keeps its score. The score of a detection's box still counts.

    Args:
        given: detections whose joint scores are predicted similarities.
    """
    found = given.found
    rows = np.flatnonzero(given.people.counts[given.person])
    rows = rows[np.argsort(given.oks[rows], kind="stable")]
    best = np.full(len(found.score), -1)
    best[given.detection[rows]] = rows  # of several the last, which is the highest
    someone = best >= 0
    labelled = given.people.labelled[given.person[best]]
    similarity = np.where(labelled, given.similarity[best], found.joint_score)
    predicted = _oaks(found.labelled, found.joint_score)
    box = found.score / np.where(predicted > 0, predicted, 1)
    known = {
        "labels": _oaks(labelled.astype(float), found.joint_score),
        "similarities": _oaks(found.labelled, similarity),
    }
    return {
        name: np.where(someone, box * score, found.score)
        for name, score in known.items()
    }


def _oaks(labelled: np.ndarray, quality: np.ndarray) -> np.ndarray:
    return np.asarray(rescoring.oaks(labelled, quality))
