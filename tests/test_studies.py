"""The page of the study of parts: every seed stands on it, and the means are right."""

import itertools

import pytest
from absl import flags
from absl.testing import flagsaver

from configs import study_parts
from studies import parts


@pytest.fixture(scope="module", autouse=True)
def declared():
    if "seeds" not in flags.FLAGS:
        parts.define_flags()
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


@pytest.fixture
def results():
    """One column per bin; AP rises with system and seed."""
    values = itertools.count(10)

    def rows():
        value = next(values) / 100
        bins = [dict(low=0.0, high=1.0, images=7, AP=value)]
        return [*bins, dict(low=0.5, high=1.0, images=3, AP=value / 2)]

    return {system: [rows(), rows()] for system in study_parts.SYSTEMS}


def test_every_seed_of_every_system_has_a_row(results):
    with flagsaver.flagsaver(seeds=["4", "9"], steps=12):
        page = parts.page(results)
    for system in study_parts.SYSTEMS:
        rows = [
            line for line in page.splitlines() if f"| {parts.NAMES[system]} |" in line
        ]
        assert len(rows) == 3  # the summary, and two seeds
    assert "| centre point (SPM) | 9 | 11.0 | 5.5 |" in page
    assert "12 steps, seeds 4, 9" in page
    assert "IoU 0.5-1.0 (3 scenes)" in page


def test_summary_gives_mean_and_range(results):
    row = parts.summary("center", results["center"])
    assert row == "| centre point (SPM) | 10.5 (10.0-11.0) | 5.2 (5.0-5.5) |"


def test_all_systems_have_a_name():
    assert set(parts.NAMES) == set(study_parts.SYSTEMS)


def test_systems_share_everything_but_what_is_compared():
    first, *others = (
        study_parts.get_config(system).to_dict() for system in study_parts.SYSTEMS
    )
    for other in others:
        for key in first:
            if key not in ("model", "loss"):
                assert first[key] == other[key]
        kept = set(first["model"]) - {"parts", "refine", "fuse"}
        assert all(first["model"][key] == other["model"][key] for key in kept)
