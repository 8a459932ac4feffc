"""The same poses ranked by several scores, side by side (OAKS, Tables 6 and 9).

Only the order of detections differs, so recall does not, unless an image has more
detections than are looked at.
"""

from collections.abc import Mapping

from occjax.evaluation import calibration, curves, matching, occlusion
from occjax.evaluation.pairs import Pairs
from occjax.evaluation.screen import percent

ORACLE = "oracle"  # the true OKS as the score


def figures(pairs: Pairs) -> dict:
    """What one score makes of the poses.

    Returns:
        `AP`, `AP50`, `AP75`, `AR`; `joint_count` (`occlusion.by_joint_count`); `curves`
        (`curves.precision_recall`); `calibration` (`calibration.of_scores`).
    """
    return {
        **matching.score(pairs),
        "joint_count": occlusion.by_joint_count(pairs),
        "curves": curves.precision_recall(pairs),
        "calibration": calibration.of_scores(pairs),
    }


def side_by_side(ranked: Mapping[str, Pairs]) -> dict[str, dict]:
    """`figures` of each score by its name."""
    return {name: figures(pairs) for name, pairs in ranked.items()}


def table(scores: Mapping[str, dict]) -> str:
    """AP, AP50, AP75, AR and AP75 by labelled joints in per cent, for the screen."""
    names = ("AP", "AP50", "AP75", "AR")
    bins = next(iter(scores.values()))["joint_count"]
    heads = [*names, *(f"{occlusion.span(row)} joints" for row in bins), "error"]
    lines = [f"{'score':>9}" + "".join(f"{head:>14}" for head in heads)]
    for name, row in scores.items():
        values = [row[key] for key in names]
        values += [part["AP75"] for part in row["joint_count"]]
        cells = "".join(f"{percent(value):>14}" for value in values)
        error = row["calibration"]["expected_calibration_error"]
        lines.append(f"{name:>9}{cells}{error:>14.3f}")
    return "\n".join(lines)
