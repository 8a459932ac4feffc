"""Several scores of the same poses, side by side."""

import json

import figures
import numpy as np
import pytest

from occjax.evaluation import matching, oracle, plots, ranking
from occjax.ops import rescoring


@pytest.fixture(scope="module")
def pairs():
    return figures.gathered(figures.apart(np.random.default_rng(0), images=40))


@pytest.fixture(scope="module")
def found(pairs):
    return ranking.side_by_side(
        {"heatmap": pairs, ranking.ORACLE: pairs.with_scores(pairs.best())}
    )


def test_figures_are_those_of_each_order(pairs, found):
    expected = oracle.scores(pairs)
    for name, other in (("heatmap", "given"), ("oracle", "oracle")):
        for key, value in expected[other].items():
            assert found[name][key] == pytest.approx(value)


def test_recall_does_not_depend_on_the_score_where_each_person_is_found_once(pairs):
    known = pairs.with_scores(pairs.best())
    turned = pairs.with_scores(-pairs.best())
    assert matching.score(known)["AR"] == pytest.approx(matching.score(turned)["AR"])


def test_known_similarities_make_the_order_of_the_oracle(found):
    assert found["oracle"]["AP"] >= found["heatmap"]["AP"]
    assert found["oracle"]["calibration"]["expected_calibration_error"] < 1e-9
    assert found["heatmap"]["calibration"]["expected_calibration_error"] > 0.01


def test_bins_and_curves_are_of_each_score(found):
    for row in found.values():
        assert len(row["joint_count"]) == 4
        assert len(row["curves"]["joint_count"]) == 4
        counted = [part["persons"] for part in row["joint_count"]]
        assert sum(counted) == row["curves"]["everybody"]["persons"]
    json.dumps(found)


def test_table_and_plot_have_every_score(found):
    lines = ranking.table(found).splitlines()
    assert [line.split()[0] for line in lines] == ["score", "heatmap", "oracle"]
    assert len({len(line) for line in lines}) == 1
    picture = plots.ranking(found)
    for word in ("heatmap", "oracle", "everybody", "1-5 joints", "16-17 joints"):
        assert word in picture


def test_oaks_of_true_labels_and_similarities_reaches_the_oracle(pairs):
    labelled = pairs.people.labelled[pairs.person].astype(np.float32)
    each = np.asarray(rescoring.oaks(labelled, pairs.similarity.astype(np.float32)))
    score = np.zeros(len(pairs.found.score))
    np.maximum.at(score, pairs.detection, each * pairs.people.counts[pairs.person])
    np.testing.assert_allclose(score, pairs.best(), rtol=1e-4, atol=1e-6)
    ours, best = (matching.score(pairs.with_scores(x)) for x in (score, pairs.best()))
    assert ours == pytest.approx(best, abs=1e-6)
