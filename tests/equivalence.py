"""Comparisons with published code that are both asserted and written down.

    make equivalence

runs the tests that compare with reference figures and writes every comparison that
they made by `check` to docs/equivalence.md: what the page says is what the tests saw.
`python -m pytest --equivalence docs/equivalence.md FILES` brings the rows of some files
up to date. Any run without the option asserts that the page has a row for each
comparison it makes, so nobody can add one, rename one or change a tolerance and leave
the page behind.
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
    "DEKR (HRNet-W32)",
    "OPEC-Net",
    "CoupleGraph",
    "DAG",
    "Sinkhorn",
    "torch operations",
    "COCO evaluation",
    "PCK evaluation",
)
MEASURES = {
    "largest": "of the largest value",
    "each": "of each value",
    "absolute": "absolute",
}
OTHER_OPENCV = "the reference was warped by OpenCV 4.5, which interpolates otherwise"
_INTRODUCTION = """\
# Equal figures

Each row compares a link of the chain with the published code, or with the library
named, on the same input and the same weights. The difference is the largest one seen:
as a share of the largest reference value, as a share of each value by itself, or
absolute, in the unit of the link (pixels, shares of 1, per cent). The tests fail where
it exceeds the tolerance; "equal" tolerates none.

The type is the one that our side computes in, on a CPU. Most reference arrays were
stored in float32, whatever they were computed in; a difference near 6e-8 in float64 is
their rounding. The stored maps of PINet, SPM and HRNet are those of a float32 run, up
to 3e-6 from a float64 run of the same code (1e-4 in training), so for them float64 is
little nearer than float32. Where training amplifies rounding, only float64 says
anything: two float32 runs of the published code itself differ by some per cent after a
few updates. The losses before and after each step are those of a float64 run.

A link that is missing for a model has no reference figures (nobody published them, or
the model has no such link), or it is the link of the model that it is built from:
PINet and SPM have the backbone of HRNet-W32, SimpleBaseline and CPN that of ResNet.
Reference figures that nothing here is compared with yet: CPN's losses, the targets of
both hourglass codes, training accuracies, AlphaPose's integral decoding.

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
    assert ": " not in note, note  # the page's own sign between link and note
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
    found = float(difference.max()), float(tolerance)
    row = Row(model, link, str(ours.dtype), measure, *found, note)
    assert row.difference <= tolerance, row
    assert writing or _stated(row) in _promised(), f"{PAGE} has no row for {row}"
    rows.append(row)


def exact(model, link, ours, theirs):
    """Asserts that ours and theirs are the same, and notes that they are."""
    check(model, link, ours, theirs, 0, "absolute")


def write(path, whole):
    """Writes the page; of comparisons that share a row, the worst stands for all.

    Args:
        path: of the page.
        whole: whether all tests ran; if not, the other rows of the page are kept.
    """
    made = {row[:3] for row in rows}
    kept = [] if whole else [row for row in _read(path) if row[:3] not in made]
    worst: dict[tuple, Row] = {}
    for row in (*kept, *rows):
        known = worst.setdefault(_stated(row), row)
        if row.difference > known.difference:
            worst[_stated(row)] = row
    first = {row.link: i for i, row in reversed(list(enumerate(worst.values())))}
    found = sorted(
        worst.values(), key=lambda row: (*_place(row), first[row.link], row.dtype)
    )
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
        noted = [row for row in of_model if row.note]
        notes = dict.fromkeys(f"- {row.link}: {row.note}" for row in noted)
        lines += ["", *notes] if notes else []
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


def _read(path):
    """The rows of a page, as far as it tells."""
    found, notes, model = [], {}, ""
    measures = {text: name for name, text in MEASURES.items()}
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith("## "):
            model = line[3:]
        elif model and line.startswith("- "):
            link, _, note = line[2:].rpartition(": ")
            notes[model, link] = note
        elif model and line.startswith("| ") and not line.startswith("| link "):
            link, dtype, difference, tolerance = line[2:-2].split(" | ")
            difference, _, measure = difference.partition(" ")
            tolerance = 0 if tolerance == "equal" else float(tolerance)
            numbers = measures[measure], float(difference), tolerance
            found.append(Row(model, link, dtype, *numbers, ""))
    return [row._replace(note=notes.get(row[:2], "")) for row in found]


@functools.cache
def _promised():
    return {_stated(row) for row in _read(PAGE)}


def _place(row):
    link = LINKS.index(row.link.split(":")[0])
    return MODELS.index(row.model), link
