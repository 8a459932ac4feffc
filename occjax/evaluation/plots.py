"""The occlusion view as pictures: SVG text for a page, drawn with matplotlib.

Colours are those of Okabe and Ito (2008), which colour-blind people can tell apart.
Everything is in per cent but for scores and probabilities.
"""

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from occjax.evaluation import coco, corrections, errors, occlusion

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#BBBBBB"
_KINDS = dict(zip(errors.KINDS, (GREY, SKY, PURPLE, ORANGE, VERMILLION), strict=True))
_TITLES = {
    "box_iou": "Largest box IoU in the image",
    "crowd_index": "Crowd index of the image",
    "joint_count": "Labelled joints of the person",
    "crowding": "Others whose box overlaps the person's",
}
STYLE = matplotlib.rc_context(
    {
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.fonttype": "none",  # text stays text: small, and can be searched
        "svg.hashsalt": "occjax",  # the same picture from the same figures
    }
)


@STYLE
def bins(view: dict) -> str:
    """AP and AP50 in the four kinds of bins."""
    figure = Figure((10, 6.8))
    figure.set_layout_engine("constrained", hspace=0.08)
    for axes, (name, title) in zip(
        figure.subplots(2, 2).flat, _TITLES.items(), strict=True
    ):
        rows = view["bins"][name]
        axes.set_title(title)
        _bars(axes, rows, {"AP": BLUE, "AP50": ORANGE})
        ticks = [f"{_span(row)}\n{row['persons']} persons" for row in rows]
        axes.set_xticks(range(len(rows)), ticks)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return _svg(figure)


@STYLE
def precision_recall(curves: dict) -> str:
    """Precision over recall at OKS .75, for everybody and by labelled joints."""
    figure = Figure((8, 4.4), layout="constrained")
    axes = figure.subplots()
    rows = [("everybody", curves["everybody"])]
    rows += [(f"{occlusion.span(row)} joints", row) for row in curves["joint_count"]]
    colors = (BLACK, VERMILLION, ORANGE, GREEN, BLUE)
    looks = zip(colors, ("-", ":", "-.", "--", "-"), strict=True)
    for (name, row), (color, dashes) in zip(rows, looks, strict=True):
        if row["persons"]:
            recall, precision = np.array([curves["recall"], row["precision"]]) * 100
            label = f"{name}: AP75 {100 * row['AP75']:.1f} ({row['persons']} persons)"
            axes.plot(recall, precision, dashes, color=color, label=label, lw=1.8)
    axes.set(xlim=(0, 100), ylim=(0, 102), xlabel="recall, %", ylabel="precision, %")
    axes.grid(alpha=0.3)
    if axes.lines:
        figure.legend(loc="outside right upper", frameon=False)
    return _svg(figure)


@STYLE
def ranking(scores: Mapping[str, dict]) -> str:
    """Precision over recall at OKS .75 by each score, for each bin of people."""
    first = next(iter(scores.values()))["curves"]
    titles = [f"{occlusion.span(row)} joints" for row in first["joint_count"]]
    figure = Figure((10, 6.4), layout="constrained")
    grid = list(figure.subplots(2, 3).flat)
    looks = zip((BLUE, VERMILLION, GREY), ("-", "--", ":"), strict=True)
    for (name, found), (color, dashes) in zip(scores.items(), looks, strict=False):
        curves = found["curves"]
        rows = [curves["everybody"], *curves["joint_count"]]
        for axes, row in zip(grid, rows, strict=False):
            if row["persons"]:
                points = np.array([curves["recall"], row["precision"]]) * 100
                axes.plot(*points, dashes, color=color, label=name, lw=1.6)
    for axes, title in zip(grid, ["everybody", *titles], strict=False):
        axes.set(xlim=(0, 100), ylim=(0, 102), title=title)
        axes.grid(alpha=0.3)
    grid[len(titles) + 1].axis("off")
    figure.supxlabel("recall, %")
    figure.supylabel("precision, %")
    handles = grid[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper right", ncols=3, frameon=False)
    return _svg(figure)


@STYLE
def reliability(view: dict) -> str:
    """Mean true value over mean prediction, and how many predictions there are."""
    found = {name: values for name, values in view["calibration"].items() if values}
    words = {
        "score": ("Score of a pose", "score", "mean OKS"),
        "visibility": ("Visibility of a joint", "probability", "share visible"),
        "labels": ("Label of a joint", "probability", "share labelled"),
        "joints": ("Score of a joint", "score", "mean similarity"),
    }
    figure = Figure((5 * len(found), 4.6), layout="constrained")
    grid = figure.subplots(2, len(found), squeeze=False, height_ratios=(3, 1))
    for (name, values), (above, below) in zip(found.items(), grid.T, strict=True):
        title, predicted, true = words[name]
        error = values["expected_calibration_error"]
        known = error != coco.UNDEFINED
        title += f", calibration error {error:.3f}" if known else ""
        _reliability(above, below, values["bins"])
        above.set(title=title, ylabel=true, ylim=(0, 1.02))
        below.set(xlabel=f"predicted {predicted}", ylabel="count")
    handles = grid[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper left", ncols=2, frameon=False)
    return _svg(figure)


def _reliability(above: Axes, below: Axes, rows: list[dict]) -> None:
    low = np.array([row["low"] for row in rows])
    width = np.array([row["high"] for row in rows]) - low
    full = [row for row in rows if row["count"]]
    span = (low[0], rows[-1]["high"])
    above.plot((0, 1), (0, 1), "--", color=GREY, lw=1.2, label="as predicted")
    points = ([row[n] for row in full] for n in ("predicted", "true"))
    above.plot(*points, "o-", color=BLUE, label="found")
    above.set_xlim(*span)
    above.grid(alpha=0.3)
    below.bar(low, [row["count"] for row in rows], width, align="edge", color=SKY)
    below.set_xlim(*span)


@STYLE
def error_types(types: dict) -> str:
    """Shares of the kinds of error of each joint, stacked."""
    rows = {"all": types["counts"]} | types["by_joint"]
    names = [name.replace("_", " ") for name in rows]
    figure = Figure((9, 1.2 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    total = np.maximum([sum(counts.values()) for counts in rows.values()], 1)
    start = np.zeros(len(rows))
    for kind, color in _KINDS.items():
        share = 100 * np.array([counts[kind] for counts in rows.values()]) / total
        axes.barh(names, share, 0.75, start, color=color, label=kind)
        start += share
    axes.set_ylim(len(rows) - 0.4, -0.6)  # downwards
    axes.set(xlim=(0, 100), xlabel="labelled joints of the people found, %")
    figure.legend(loc="outside upper center", ncols=len(_KINDS), frameon=False)
    return _svg(figure)


@STYLE
def progression(steps: list[dict]) -> str:
    """AP and AP75 after one kind of error after the other was corrected."""
    figure = Figure((9, 3.4), layout="constrained")
    axes = figure.subplots()
    _bars(axes, steps, {"AP": BLUE, "AP75": GREEN})
    names = ["as found", *(f"+ {name}" for name in corrections.STEPS[1:])]
    axes.set_xticks(range(len(steps)), names)
    axes.set_xlabel("corrected, each step on top of those before")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return _svg(figure)


@STYLE
def pck(figures: Mapping[str, Any], unit: str) -> str:
    """Share of the joints found over the distance that is allowed."""
    figure = Figure((6, 3.8), layout="constrained")
    axes = figure.subplots()
    curve = figures["curve"]
    axes.plot(curve["thresholds"], 100 * np.array(curve["mean"]), color=BLUE, lw=1.8)
    axes.set(xlabel=f"distance allowed, in units of {unit}", ylabel="joints found, %")
    axes.set(xlim=(0, curve["thresholds"][-1]), ylim=(0, 102))
    axes.grid(alpha=0.3)
    return _svg(figure)


def _bars(axes: Axes, rows: list[dict], kinds: dict[str, str]) -> None:
    """Bars of some metrics side by side, with their figures above them."""
    width = 0.8 / len(kinds)
    for at, (name, color) in enumerate(kinds.items()):
        known = [i for i, row in enumerate(rows) if row[name] != coco.UNDEFINED]
        places = np.array(known) + (at - (len(kinds) - 1) / 2) * width
        heights = [100 * rows[i][name] for i in known]
        drawn = axes.bar(places, heights, width, color=color, label=name)
        axes.bar_label(drawn, fmt="%.1f", fontsize=8, padding=1)
    for at, row in enumerate(rows):
        if all(row[name] == coco.UNDEFINED for name in kinds):
            axes.text(at, 3, "not defined", fontsize=8, ha="center", color="#555555")
    axes.set(xlim=(-0.6, len(rows) - 0.4), ylim=(0, 108), ylabel="%")
    axes.set_yticks(range(0, 101, 20))


def _span(row: dict) -> str:
    """What a bin holds; an open one in words."""
    text = occlusion.span(row)
    return f"{text[:-1]} or more" if text.endswith("-") else text


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
