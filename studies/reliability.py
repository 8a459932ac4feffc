"""Reliability curves of the study of scores: what was predicted and what was true."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from studies import runs

CURVES: dict[str, dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]] = {
    "score of a pose, its OKS": {
        "heatmaps": lambda one: one["scores"]["heatmap"]["calibration"],
        "OAKS": lambda one: one["scores"]["oaks"]["calibration"],
    },
    "similarity of a joint": {
        "heatmap's peak": lambda one: one["joint_peaks"],
        "KS-net": lambda one: one["occlusion"]["calibration"]["joints"],
    },
    "a joint has a label": {
        "visibility subnet": lambda one: one["occlusion"]["calibration"]["labels"],
    },
}


def plot(seeds: Sequence[Mapping[str, Any]]) -> bytes:
    """Curves of all seeds' predictions together, as a PNG file.

    Args:
        seeds: what `scores.ranked` gives of each.
    """
    figure = Figure((9, 3.2), layout="constrained")
    for axes, (title, curves) in zip(
        figure.subplots(1, 3), CURVES.items(), strict=True
    ):
        axes.plot((0, 1), (0, 1), color="gray", lw=0.8, ls="--")
        for label, read in curves.items():
            predicted, true = pooled([read(one)["bins"] for one in seeds])
            axes.plot(predicted, true, marker="o", ms=3, lw=1.5, label=label)
        axes.set(title=title, xlabel="predicted", xlim=(0, 1), ylim=(0, 1))
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("true")
    return runs.png(figure)


def pooled(
    seeds: Sequence[Sequence[Mapping[str, Any]]],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean prediction and truth of each bin that holds something in any of the seeds.

    Args:
        seeds: of each its bins, the same number of them; see `calibration.reliability`.
    """
    counts, predicted, true = (
        np.array([[row[key] for row in bins] for bins in seeds], float)
        for key in ("count", "predicted", "true")
    )
    total = counts.sum(axis=0)
    held = total > 0
    return tuple(
        (counts * means).sum(axis=0)[held] / total[held] for means in (predicted, true)
    )
