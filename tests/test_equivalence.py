"""The recorder of comparisons with published code, and the page that it makes."""

import equivalence
import numpy as np
import pytest

SPM = "SPM"


@pytest.fixture
def recorded(monkeypatch):
    """No comparisons so far, and leave to make ones that the page does not have."""
    monkeypatch.setattr(equivalence, "rows", [])
    monkeypatch.setattr(equivalence, "writing", True)
    return equivalence.rows


@pytest.mark.parametrize(
    ("measure", "difference"), [("largest", 0.05), ("each", 0.5), ("absolute", 0.2)]
)
def test_measures_by_hand(recorded, measure, difference):
    theirs = np.array([4.0, -0.4, 0.0])
    ours = np.array([4.1, -0.2, 0.0])
    equivalence.check(SPM, "loss", ours, theirs, 0.6, measure)
    assert recorded[0].difference == pytest.approx(difference)
    with pytest.raises(AssertionError, match="difference="):
        equivalence.check(SPM, "loss", ours, theirs, 0.99 * difference, measure)


@pytest.mark.parametrize("measure", equivalence.MEASURES)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(recorded, measure, wrong):
    theirs = np.array([1.0, 0.0])
    with pytest.raises(AssertionError):
        equivalence.check(SPM, "loss", np.array([1.0, wrong]), theirs, 1e-3, measure)
    assert not recorded


def test_as_a_share_of_each_value_nothing_but_a_zero_equals_a_zero(recorded):
    with pytest.raises(AssertionError):
        equivalence.check(SPM, "loss", np.array([1e-30]), [0], 1e-3, "each")


@pytest.mark.parametrize(
    ("model", "link", "ours"),
    [("Spm", "loss", 1.0), (SPM, "losses", 1.0), (SPM, "loss", [1.0])],
)
def test_unknown_names_and_other_shapes_are_refused(recorded, model, link, ours):
    with pytest.raises(AssertionError):
        equivalence.check(model, link, np.asarray(ours), 1.0, 1)
    assert not recorded


def test_a_comparison_that_the_page_does_not_have_is_refused(recorded, monkeypatch):
    monkeypatch.setattr(equivalence, "writing", False)
    with pytest.raises(AssertionError, match="has no row for"):
        equivalence.check(SPM, "loss: of nobody", np.float32(1), 1, 1e-6)
    assert not recorded


def test_a_page_has_the_worst_of_each_row_and_keeps_what_was_not_made_anew(
    recorded, tmp_path
):
    page = tmp_path / "page.md"
    for value in (1.0, 1.2, 1.1):
        equivalence.check(SPM, "loss: of two", np.float64(value), 1, 0.5, note="why")
    equivalence.exact("CPN", "forward", np.float32([2, 3]), [2, 3])
    equivalence.write(page, whole=True)
    lines = page.read_text().splitlines()
    assert "| loss: of two | float64 | 2.0e-01 of the largest value | 5e-01 |" in lines
    assert "| forward | float32 | 0.0e+00 absolute | equal |" in lines
    assert "- loss: of two: why" in lines

    del recorded[:]
    equivalence.check(SPM, "loss: of two", np.float64(1.1), 1, 0.3)
    equivalence.write(page, whole=False)
    found = {row[:2]: row for row in equivalence._read(page)}
    assert found[SPM, "loss: of two"][4:] == (0.1, 0.3, "")
    assert found["CPN", "forward"][4:] == (0, 0, "")
    equivalence.write(page, whole=True)
    assert {row.model for row in equivalence._read(page)} == {SPM}


def test_the_page_of_the_project_has_every_link_and_stays_within_its_tolerances():
    found = equivalence._read(equivalence.PAGE)
    assert {row.model for row in found} <= set(equivalence.MODELS)
    assert {row.link.split(":")[0] for row in found} == set(equivalence.LINKS)
    assert all(row.difference <= row.tolerance for row in found)
