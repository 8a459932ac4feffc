"""Comparisons with published code that are both asserted and written down.

    make equivalence

runs the tests that compare with reference figures and writes every comparison that
they made by `check` to docs/equivalence.md: what the page says is what the tests saw.
Any other run asserts that the page has a row for each comparison it makes, so nobody
can add one, rename one or change a tolerance and leave the page behind.
"""

import functools
import pathlib
from typing import NamedTuple

import numpy as np

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "equivalence.md"
# The chain from a photograph to a figure; a link may say more after a colon.
LINKS = (
    "warp",
    "target",
    "forward",
    "loss",
    "gradient norm",
    "five optimiser steps",
    "decode",
    "score",
)
MODELS = (
    "PINet (OCHuman)",
    "PINet (CrowdPose)",
    "PINet (COCO)",
    "PINet (every dataset)",
    "SPM",
    "HRNet-W32 backbone",
    "HRNet-W32, top-down",
    "SimpleBaseline ResNet-50",
    "SimpleBaseline ResNet-101",
    "SimpleBaseline (every depth)",
    "Hourglass (pytorch-pose)",
    "Hourglass (princeton-vl)",
    "CPN",
    "FastPose ResNet-50",
    "FastPose SE-ResNet-101",
    "FastPose (every depth)",
    "ResNet-50 (torchvision)",
    "ResNet-101 (torchvision)",
    "DEKR",
    "Graph convolutions",
    "torch operations",
    "COCO evaluation",
    "PCK evaluation",
)
MEASURES = {
    "largest": "of the largest value",
    "each": "of each value",
    "absolute": "absolute",
}
_INTRODUCTION = """\
# Equal figures

Each row compares a link of the chain with the published code, or with the library
named, on the same input and the same weights. The difference is the largest one seen:
as a share of the largest reference value, as a share of each value by itself, or
absolute, in the unit of the link (pixels, shares of 1, per cent). The tests fail where
it exceeds the tolerance; "equal" tolerates none.

The type is the one that our side computes in, on a CPU. Most reference arrays were
stored in float32, whatever they were computed in; a difference near 6e-8 in float64 is
their rounding. Where training amplifies rounding, only float64 says anything: two
float32 runs of the published code itself differ by some per cent after a few updates.

A link that is missing for a model has no reference figures (nobody published them, or
the model has no such link), or it is the link of the model that it is built from:
PINet and SPM have the backbone of HRNet-W32, SimpleBaseline and CPN that of ResNet.

This page is made by

    make equivalence

The reference figures are not part of the project; without them there is no page.
"""


class Row(NamedTuple):
    """One comparison."""

    model: str
    link: str
    dtype: str
    measure: str
    difference: float
    tolerance: float
    note: str


rows: list[Row] = []
writing = False  # whether this run makes the page


def check(model, link, ours, theirs, tolerance, measure="largest", note=""):
    """Asserts that ours is close to theirs, and notes the largest difference.

    Args:
        model: one of MODELS.
        link: one of LINKS, alone or followed by a colon and what of it.
        ours: array; its dtype is the one noted.
        theirs: array of that shape.
        tolerance: of the largest difference.
        measure: one of MEASURES.
        note: why the tolerance is what it is, where that is not plain.
    """
    assert model in MODELS, model
    assert link.split(":")[0] in LINKS, link
    ours, theirs = np.asarray(ours), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    difference = np.abs(ours.astype(np.float64) - theirs)
    if measure == "largest":
        difference = difference / np.abs(theirs).max()
    elif measure == "each":
        # beside a zero nothing but a zero will do
        with np.errstate(divide="ignore", invalid="ignore"):
            share = difference / np.abs(theirs)
        difference = np.where(difference == 0, 0, share)
    else:
        assert measure == "absolute", measure
    row = Row(model, link, str(ours.dtype), measure, difference.max(), tolerance, note)
    assert row.difference <= tolerance, row
    assert writing or _stated(row) in _page(), f"run make equivalence for {row}"
    rows.append(row)


def exact(model, link, ours, theirs):
    """Asserts that ours and theirs are the same, and notes that they are."""
    check(model, link, ours, theirs, 0, "absolute")


def write(path):
    """Writes the page; of comparisons that share a row, the worst stands for all."""
    worst: dict[tuple, Row] = {}
    for row in rows:
        kept = worst.setdefault(_stated(row), row)
        if row.difference > kept.difference:
            worst[_stated(row)] = row
    first = {row.link: i for i, row in reversed(list(enumerate(rows)))}
    found = sorted(worst.values(), key=lambda row: (*_place(row), first[row.link], row.dtype))
    lines = [_INTRODUCTION, *_overview(found)]
    for model in MODELS:
        of_model = [row for row in found if row.model == model]
        if not of_model:
            continue
        lines += ["", f"## {model}", ""]
        lines += [
            "| link | type | largest difference | tolerance |",
            "|---|---|---|---|",
        ]
        lines += map(_line, of_model)
        notes = {f"- {row.link}: {row.note}" for row in of_model if row.note}
        lines += ["", *sorted(notes)] if notes else []
    pathlib.Path(path).write_text("\n".join(lines) + "\n")


def _overview(found):
    """A table of the types that every model was compared in, link by link."""
    yield "| model | " + " | ".join(LINKS) + " |"
    yield "|---" * (1 + len(LINKS)) + "|"
    for place, model in enumerate(MODELS):
        cells = [
            ", ".join(sorted({row.dtype for row in found if _place(row) == at}))
            for at in ((place, link) for link in range(len(LINKS)))
        ]
        if any(cells):
            yield f"| {model} | " + " | ".join(cells) + " |"


def _line(row):
    return (
        f"| {row.link} | {row.dtype} | {row.difference:.1e} {MEASURES[row.measure]} | "
        f"{_tolerance(row)} |"
    )


def _tolerance(row):
    return f"{row.tolerance:.0e}" if row.tolerance else "equal"


def _stated(row):
    """What the page says of a comparison before it is made."""
    return row.model, row.link, row.dtype, MEASURES[row.measure], _tolerance(row)


@functools.cache
def _page():
    """What the page says of every comparison."""
    stated, model = set(), ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            model = line[3:]
        elif model and line.startswith("| "):
            link, dtype, difference, tolerance = line[2:-2].split(" | ")
            stated.add((model, link, dtype, difference.partition(" ")[2], tolerance))
    return stated


def _place(row):
    link = LINKS.index(row.link.split(":")[0])
    return MODELS.index(row.model), link
