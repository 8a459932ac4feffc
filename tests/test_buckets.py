"""Paths in a bucket do what local ones do.

Checkpoints are left out: tensorstore reaches gs:// by a driver of its own, which cannot
be answered from memory. So is ArrayRecord, for the same reason.
"""

import gzip
import json

import bucket as buckets
import cv2
import numpy as np
import pytest
import runs

from occjax import draw, evaluate, files, predict, scoring
from occjax.data import folder, pool, records, sources
from occjax.errors import UserError
from occjax.evaluation import checks, coco
from occjax.runtime import config as configs
from occjax.runtime import progress, trained
from occjax.runtime.options import Options
from occjax.skeletons import COCO

PLAIN = Options(None, (1.0,))


@pytest.fixture
def bucket(monkeypatch):
    return buckets.install(monkeypatch)


def test_a_file_is_written_whole_or_not_at_all(bucket):
    path = bucket / "a/b.json"
    files.write_json(path, {"old": 1})

    def half():
        with files.writing(path) as file:
            file.write(b"half of")
            raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        half()

    assert checks.read_json(path) == {"old": 1}
    assert checks.read_json(str(path)) == {"old": 1}
    assert [x.name for x in (bucket / "a").iterdir()] == ["b.json"]


def test_remote_paths_are_told_from_local_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.is_remote("gs://bucket/run")
    assert not files.is_remote("run")
    assert not files.is_remote(tmp_path)


def test_figures_of_training_are_kept_up_to_the_step_that_goes_on(bucket):
    with progress.Writer(bucket / "run", 0) as writer:
        for step in range(1, 5):
            writer.write(step, {"loss": 1 / step})
    with progress.Writer(bucket / "run", 2) as writer:
        writer.write(3, {"loss": 7.0})
    lines = (bucket / "run/metrics.jsonl").read_text().splitlines()

    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    assert json.loads(lines[-1])["loss"] == 7.0
    assert [x.name for x in (bucket / "run").iterdir()] == ["metrics.jsonl"]


def test_a_config_comes_back(bucket):
    settings = configs.load("configs/pinet.py:smoke")
    configs.write(settings, bucket / "config.json")
    assert configs.read(bucket / "config.json") == settings
    with pytest.raises(UserError, match="gs://bucket/none.json: not found"):
        configs.read("gs://bucket/none.json")


def test_detections_are_scored_from_and_to_a_bucket(bucket):
    source = sources.load({"dataset": "crowd", "crowd": {"test_scenes": 3}}, "test")
    truth = coco.ground_truth(source, 3)
    found = [
        {
            "image_id": person["image_id"],
            "category_id": 1,
            "keypoints": np.asarray(person["keypoints"], float).tolist(),
            "score": 0.9,
        }
        for person in truth["annotations"]
    ]
    for name in ("truth.json", "truth.json.gz"):
        data = json.dumps(truth).encode()
        data = gzip.compress(data) if name.endswith("gz") else data
        files.write_bytes(bucket / name, data)
    files.write_json(bucket / "run/detections.json", found)
    for index, item in enumerate(truth["images"]):
        item["file_name"] = f"{index}.png"
        path = bucket / "images" / item["file_name"]
        draw.save_png(path, records.pixels(source[index]))
    files.write_json(bucket / "truth.json", truth)
    how = evaluate.How(images="gs://bucket/images", compare="gs://bucket/run")
    names = ("gs://bucket/truth.json", "gs://bucket/run", "gs://bucket/out")
    evaluate.score_file("coco", *names, how)
    evaluate.score_file("coco", "gs://bucket/truth.json.gz", *names[1:2], None)

    metrics = checks.read_json(bucket / "out/metrics.json")
    assert metrics["AP"] > 0.99
    assert metrics["comparison"]["with"] == "gs://bucket/run/detections.json"
    assert len(checks.read_json(bucket / "out/detections.json")) == len(found)
    assert "<svg" in (bucket / "out/report.html").read_text()
    with pytest.raises(UserError, match="^gs://bucket/none.json: cannot be read: "):
        evaluate.score_file("coco", "gs://bucket/none.json", names[1], None)
    with pytest.raises(UserError, match="gs://bucket/none: there is no such folder"):
        scoring.pixels_of_folder("gs://bucket/none")


def test_predictions_of_single_people_are_scored_from_a_bucket(bucket):
    rng = np.random.default_rng(0)
    people = {"joints": rng.uniform(9, 90, (4, 16, 3)), "head": np.full(4, 30.0)}
    people["joints"][..., 2] = 2
    with files.writing(bucket / "truth.npz") as file:
        np.savez(file, **people)
    with files.writing(bucket / "found.npz") as file:
        np.savez(file, joints=people["joints"][..., :2])
    names = [f"gs://bucket/{name}" for name in ("truth.npz", "found.npz", "out")]
    evaluate.score_people("mpii", *names)

    assert checks.read_json(bucket / "out/metrics.json")["mean"] == pytest.approx(1)


def test_a_run_is_scored_into_a_bucket_with_boxes_and_drawings(bucket, tmp_path):
    workdir = str(runs.make(tmp_path / "run")[0])
    evaluate.score_run(workdir, None, PLAIN, "gs://bucket/out")

    assert "AP" in checks.read_json(bucket / "out/metrics.json")
    sheet = (bucket / "out/samples/test.png").read_bytes()
    assert cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR) is not None
    assert "<svg" in (bucket / "out/report.html").read_text()


def test_pictures_are_read_from_a_bucket_and_drawn_to_one(bucket, tmp_path):
    workdir = str(runs.make(tmp_path / "run")[0])
    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8)
    draw.save_png(bucket / "in/a.png", image)
    files.write_bytes(bucket / "in/b.png", b"no image")
    paths = folder.find("gs://bucket/in")
    predict.predict(workdir, paths, "gs://bucket/out", PLAIN, None)

    found = checks.read_json(bucket / "out/poses.json")
    assert {item["file_name"] for item in found} == {"a.png"}
    assert [x.name for x in (bucket / "out/drawings").iterdir()] == ["a.png.png"]


def test_what_is_not_there_is_named_by_its_address(bucket):
    data = {"dir": "gs://bucket/data", "dataset": "coco"}
    with pytest.raises(UserError, match="^gs://bucket/data/coco is not there"):
        sources.load(data, "train")
    with pytest.raises(UserError, match="^gs://bucket/run: no run of occjax.train"):
        trained.last("gs://bucket/run")
    with pytest.raises(UserError, match="^pool gs://bucket/p.npz: there is no"):
        pool.Pool.load("gs://bucket/p.npz", COCO)
    with pytest.raises(UserError, match="^gs://bucket/in: there is no such image"):
        folder.find("gs://bucket/in")
