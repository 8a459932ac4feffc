import numpy as np
import pytest
import scenes

from occjax.data import pipeline, speed, views
from occjax.data.crowd import Crowd

DATA = {"size": 64, "max_persons": 4, "threads": 2, "augment": {}}


def test_plain_loop_reads_encoded_and_plain_images(tmp_path):
    crowd = Crowd(num_scenes=3, size=(64, 96))
    for source in (scenes.Scenes(), speed.Files(crowd, tmp_path)):
        jobs = speed.plain_loop(views.training(source, DATA), 5)
        assert [image.shape for job in jobs for image in job()] == [(64, 64, 3)] * 5
    person = {**DATA, "view": "person", "size": (96, 64)}
    for view, least in (("person", 1), ("people", 2)):
        data = {**person, "view": view, "least_people": 2}
        (job,) = speed.plain_loop(views.training(scenes.Scenes(), data), 1)
        crops = job()
        assert {image.shape for image in crops} == {(96, 64, 3)}
        assert least <= len(crops) <= 3


def test_scenes_on_disk_train_like_those_in_memory(tmp_path):
    crowd = Crowd(num_scenes=6, size=(96, 96))
    data = {**DATA, "threads": 0}
    memory, disk = (
        next(pipeline.train_batches(source, data, 6, 0))
        for source in (crowd, speed.Files(crowd, tmp_path))
    )
    np.testing.assert_array_equal(disk.labels.joints, memory.labels.joints)
    difference = disk.inputs.image.astype(int) - memory.inputs.image
    assert 0 < np.abs(difference).mean() < 12  # what JPEG makes of it


def test_survey_has_figures_for_every_pipeline(monkeypatch):
    small = {
        "whole image 512": {"size": 64, "augment": {}},
        "crop 256x192": {**speed.PIPELINES["crop 256x192"], "size": (64, 32)},
    }
    monkeypatch.setattr(speed, "PIPELINES", small)
    found = speed.survey(scenes.Scenes(6), {"max_persons": 1}, trials=1, batch_size=4)
    assert set(found) == set(small)
    for row in found.values():
        assert row["ratio"] == pytest.approx(row["pipeline"] / row["plain"])
        assert all(value > 0 for value in row.values())
        assert {"pipeline_scaling", "plain_scaling", "ratio_per_core"} <= set(row)
    text = speed.table(found)
    assert len(text.splitlines()) == 3
    assert len({len(line) for line in text.splitlines()}) == 1
