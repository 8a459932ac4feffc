import json

import pytest

from occjax.evaluation import checks, coco, speed
from occjax.skeletons import COCO


def test_all_kinds_score_the_same_files_the_same():
    figures = speed.survey(trials=1, images=30)
    kinds = figures["kinds"]
    alone, *ours = kinds.values()
    assert len(ours) == 2
    assert 0 < alone["AP"] < 1
    assert all(row["AP"] == pytest.approx(alone["AP"], abs=1e-12) for row in ours)
    assert set(alone["ratio"].values()) == {1}
    for row in kinds.values():
        assert row["seconds"] > 0
        assert row["cpu_seconds"] > 0
        assert row["peak_bytes"] > 2**20
    assert ours[0]["ratio"]["seconds"] == ours[0]["seconds"] / alone["seconds"]
    text = speed.table(figures)
    assert "30 images, 38 persons, 600 detections" in text
    assert all(kind in text for kind in kinds)
    json.dumps(figures)


def test_example_is_sound_and_follows_its_seed(tmp_path):
    def example(seed):
        paths = [tmp_path / f"{name}{seed}.json" for name in ("truth", "found")]
        speed.write_example(*map(str, paths), images=40, persons=51, seed=seed)
        return [checks.read_json(path) for path in paths]

    truth, found = example(0)
    assert [truth, found] == example(0)
    assert found != example(1)[1]
    assert (len(truth["images"]), len(truth["annotations"])) == (40, 51)
    assert all(len(items) == 20 for items in coco.by_image(found).values())
    assert len(coco.by_image(truth["annotations"])) == 20  # the others are empty
    metrics = coco.evaluate(truth, found, COCO)
    assert 0 < metrics["AP"] < metrics["AP50"] < 1
    assert min(metrics["AP_medium"], metrics["AP_large"]) > 0
