import json

import pytest

from occjax.evaluation import checks, coco, report
from occjax.skeletons import COCO


@pytest.fixture
def example(photographs):
    folder = photographs / "eval_reference"
    name = "xtcocotools_example_coco"
    return (
        checks.read_json(folder / f"{name}.ground_truth.json"),
        checks.read_json(folder / f"{name}.detections.json"),
    )


def test_saved_files_hold_protocol_metrics_and_detections(example, tmp_path):
    truth, found = example
    metrics = report.score(truth, found, COCO)
    stamp = report.protocol(truth, "coco", split="val", flip=True, scales=[1.0], step=7)
    report.save(tmp_path / "new", stamp, metrics, found)

    saved = json.loads((tmp_path / "new/metrics.json").read_text())
    assert saved["AP"] == coco.evaluate(truth, found, COCO)["AP"]
    assert saved["protocol"]["ground_truth_sha256"] == coco.fingerprint(truth)
    assert saved["protocol"]["evaluator"].startswith("faster-coco-eval 1.")
    assert saved["protocol"]["step"] == 7
    assert len(saved["occlusion"]["box_iou"]) == 4
    assert json.loads((tmp_path / "new/detections.json").read_text()) == found
    assert len(list((tmp_path / "new").iterdir())) == 2  # no temporary file is left


def test_text_shows_protocol_and_per_cent(example):
    truth, found = example
    stamp = report.protocol(truth, "coco", split="val", flip=True)
    text = report.text(stamp, report.score(truth, found, COCO))
    assert text.startswith("coco/val, ")
    assert "flip True" in text.splitlines()[0]
    assert "86.1" in text  # AP 0.8609 of the reference
