"""Figures of studies that are kept beside their pages."""

import pytest
from ml_collections import ConfigDict

from occjax.errors import UserError
from studies import kept


def never():
    raise AssertionError("trained anew")


def test_figures_are_measured_once_for_each_config(tmp_path):
    page, config = tmp_path / "page.md", ConfigDict({"steps": 4, "sizes": (1, 2)})
    assert kept.Figures(page).of("a-0", config, lambda: {"AP": 0.5}) == {"AP": 0.5}
    again = kept.Figures(page)
    assert again.of("a-0", config, never) == {"AP": 0.5}
    assert again.of("a-1", config, lambda: [1]) == [1]
    longer = ConfigDict({"steps": 5, "sizes": (1, 2)})
    assert again.of("a-0", longer, lambda: {"AP": 0.75}) == {"AP": 0.75}
    last = kept.Figures(page)
    assert last.of("a-0", longer, never) == {"AP": 0.75}
    assert last.of("a-1", config, never) == [1]
    with pytest.raises(AssertionError, match="trained anew"):
        last.of("a-0", config, never)


def test_a_failed_measurement_and_nan_leave_nothing(tmp_path):
    page, config = tmp_path / "page.md", ConfigDict({"steps": 4})
    figures = kept.Figures(page)
    with pytest.raises(AssertionError):
        figures.of("a-0", config, never)
    with pytest.raises(ValueError, match="JSON"):
        figures.of("a-0", config, lambda: float("nan"))
    assert kept.Figures(page).of("a-0", config, lambda: 2) == 2


def test_a_damaged_line_is_told(tmp_path):
    path = tmp_path / "page.jsonl"
    path.write_text('{"run": "a", "config": "b", "figures": 1}\n{"run": "a", "fig\n')
    with pytest.raises(UserError, match=r"page\.jsonl, line 2: expected JSON"):
        kept.Figures(tmp_path / "page.md")
