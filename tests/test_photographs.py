"""Labels of real photographs survive targets, decoding and the way back.

`python -m studies.photographs` does this with all photographs, and learns some too.
"""

import os

import pytest

from studies import albums, oracle, overfit, photographs

# Persons whom the method cannot represent: "part-large" has no arms, so elbows and
# wrists alone make no part, and two people can have a part's centre in one pixel.
LOST = {
    "ochuman": {},
    "crowdpose": {
        "no labelled joint in any part": 2,
        "a part centre shared with another person": 1,
    },
}


@pytest.fixture(scope="module", params=LOST)
def result(request, tmp_path_factory):
    folder = request.getfixturevalue("photographs")
    out = tmp_path_factory.mktemp("datasets")
    return request.param, photographs.read(folder, request.param, out)


def test_people_come_back_where_they_were_labelled(result):
    _, found = result
    assert found.whole["AP"] >= 0.97
    assert found.everyone["AP"] >= 0.9
    assert all(fate.distance < 0.01 for fate in found.fates if not fate.reason)


def test_who_is_lost_is_counted_by_reason(result):
    name, found = result
    reasons = [fate.reason for fate in found.fates if fate.reason]
    assert {reason: reasons.count(reason) for reason in reasons} == LOST[name]
    assert set(reasons) <= set(oracle.REASONS)


def test_photographs_are_those_with_two_labelled_people(result):
    name, found = result
    assert found.images == {"ochuman": 10, "crowdpose": 6}[name]


def test_every_album_is_known():
    assert set(LOST) < set(albums.ALBUMS)


@pytest.mark.slow
def test_couples_are_learnt_by_heart(photographs, tmp_path, monkeypatch):
    # a user's environment: one device, jax's own promotion rules
    for name in [x for x in os.environ if x.startswith("JAX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    datasets = tmp_path / "datasets"
    albums.prepare(photographs, "ochuman", datasets, albums.crowded)
    learned = overfit.couples(datasets, tmp_path, steps=600)
    assert list(learned) == ["OPEC-Net", "CoupleGraph"]
    for name, metrics in learned.items():
        assert metrics["AP50"] > 0.9, name
