"""Comparisons with published code that are both asserted and written down.

    python -m pytest --equivalence docs/equivalence.md

runs the tests and writes every comparison that they made by `check` to a page: what the
page says is what the tests saw.
"""

import pathlib
from typing import NamedTuple

import numpy as np

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
absolute, in the unit of the link (pixels, scores). The tests fail where it exceeds the
tolerance.

This page is made by

    python -m pytest --equivalence docs/equivalence.md

on a CPU. The reference figures are not part of the project; without them there is no
page.
"""


class Row(NamedTuple):
    """One comparison."""

    model: str
    link: str
    dtype: str
    measure: str
    difference: float
    tolerance: float


rows: list[Row] = []


def check(model, link, ours, theirs, tolerance, measure="largest"):
    """Asserts that ours is close to theirs, and notes the largest difference.

    Args:
        model: as it is to stand in the page.
        link: one of LINKS, alone or followed by a colon and what of it.
        ours: array; its dtype is the one noted.
        theirs: array of that shape.
        tolerance: of the largest difference.
        measure: one of MEASURES.
    """
    assert link.split(":")[0] in LINKS, link
    ours, theirs = np.asarray(ours), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    difference = np.abs(ours.astype(np.float64) - theirs)
    if measure == "largest":
        difference = difference / np.abs(theirs).max()
    elif measure == "each":
        difference = difference / np.abs(theirs)
    else:
        assert measure == "absolute", measure
    row = Row(model, link, str(ours.dtype), measure, difference.max(), tolerance)
    rows.append(row)
    assert row.difference <= tolerance, row


def write(path):
    """Writes the page; of comparisons that share a row, the worst stands for all."""
    worst: dict[tuple, Row] = {}
    for row in rows:
        kept = worst.setdefault(row[:4], row)
        if row.difference > kept.difference:
            worst[row[:4]] = row
    lines = [_INTRODUCTION]
    for model in sorted({row.model for row in worst.values()}):
        lines += [f"## {model}", "", "| link | type | largest difference | tolerance |"]
        lines += ["|---|---|---|---|"]
        lines += [
            f"| {row.link} | {row.dtype} | "
            f"{row.difference:.1e} {MEASURES[row.measure]} | {row.tolerance:.0e} |"
            for row in sorted(worst.values(), key=_place)
            if row.model == model
        ]
        lines.append("")
    pathlib.Path(path).write_text("\n".join(lines))


def _place(row):
    return LINKS.index(row.link.split(":")[0]), row.link, row.dtype
