import json

import figures
import numpy as np
import pytest

from occjax import skeletons
from occjax.errors import UserError
from occjax.evaluation import checks, coco, report
from occjax.skeletons import COCO


@pytest.fixture
def example(photographs):
    folder = photographs / "eval_reference"
    name = "xtcocotools_example_coco"
    return (
        checks.read_json(folder / f"{name}.ground_truth.json"),
        checks.read_json(folder / f"{name}.detections.json"),
        report.PROTOCOLS["coco"],
    )


def test_saved_files_hold_protocol_metrics_and_detections(example, tmp_path):
    truth, found, _ = example
    scored = report.score(*example)
    stamp = report.stamp(scored, "coco", split="val", flip=True, scales=[1.0], step=7)
    report.save(tmp_path / "new", stamp, scored.metrics, scored.given)

    saved = json.loads((tmp_path / "new/metrics.json").read_text())
    assert saved["AP"] == coco.evaluate(truth, found, COCO)["AP"]
    assert saved["protocol"]["ground_truth_sha256"] == coco.fingerprint(truth)
    assert saved["protocol"]["evaluator"].startswith("faster-coco-eval 1.")
    assert saved["protocol"]["step"] == 7
    assert saved["protocol"]["box_source"] is None  # nobody said
    assert len(saved["occlusion"]["bins"]["box_iou"]) == 4
    assert json.loads((tmp_path / "new/detections.json").read_text()) == found
    assert len(list((tmp_path / "new").iterdir())) == 2  # no temporary file is left


def test_text_shows_protocol_and_per_cent_and_the_view_if_it_is_there(example):
    scored = report.score(*example)
    stamp = report.stamp(scored, "coco", split="val", flip=True)
    text = report.text(stamp, scored.metrics)
    assert text.startswith("coco/val, ")
    assert "flip True" in text.splitlines()[0]
    assert "86.1" in text  # AP 0.8609 of the reference
    assert "Kinds of error" not in text
    whole = report.score(*example, whole=True)
    assert "Kinds of error" in report.text(stamp, whole.metrics)
    short = scored.metrics["occlusion"]["bins"]["box_iou"]
    assert whole.metrics["occlusion"]["bins"]["box_iou"] == short


def test_both_backends_report_the_same_under_their_own_names(example):
    scored = [
        report.score(*example, backend=name, whole=True)
        for name in ("pycocotools", "faster-coco-eval")
    ]
    names = [report.stamp(one, "coco")["evaluator"] for one in scored]
    assert [name.split()[0] for name in names] == ["pycocotools", "faster-coco-eval"]
    assert scored[0].metrics["AP"] == pytest.approx(scored[1].metrics["AP"], abs=1e-12)


def test_detections_are_kept_as_they_came_and_scored_as_the_protocol_has_them():
    truth, found = figures.apart(np.random.default_rng(0), skeletons.OCPOSE)
    scored = report.score(truth, found, report.PROTOCOLS["ocpose"])
    assert scored.given is found
    assert 0 < len(scored.found) < len(found)
    area = truth["annotations"][0]["bbox"]
    assert scored.truth["annotations"][0]["area"] == area[2] * area[3] * 0.53


def test_datasets_have_their_own_protocol_and_unknown_ones_that_of_coco():
    for name in ("coco", "crowd", "ochuman"):
        assert report.protocol_of(name, COCO) is report.PROTOCOLS[name]
    assert report.protocol_of("crowdpose", skeletons.CROWDPOSE).levels
    own = report.protocol_of("street", skeletons.CROWDPOSE)
    assert (own.name, own.area, own.levels) == ("street", "annotated", ())
    # A built-in crowd of other joints is no COCO.
    other = report.protocol_of("crowd", skeletons.OCPOSE)
    assert (other.name, other.skeleton) == ("crowd", skeletons.OCPOSE)


def test_a_run_may_be_scored_by_another_protocol_of_the_same_joints():
    chosen = report.chosen_protocol("ochuman-mask", "ochuman", COCO)
    assert chosen.area == "mask"
    cut = report.chosen_protocol("crowdpose-12", "crowdpose", skeletons.CROWDPOSE)
    assert cut.skeleton.num_joints == 12
    for name in ("crowdpose", "mpii"):
        with pytest.raises(UserError, match=f"--dataset={name}: .* 17 joints of coco"):
            report.chosen_protocol(name, "coco", COCO)


def test_stamp_of_a_run_tells_where_boxes_came_from(example):
    scored = report.score(*example)
    for data, source in (
        ({}, "none"),
        ({"view": "person"}, "annotated"),
        ({"view": "person", "detections": "boxes.json"}, "boxes.json"),
    ):
        config = {
            "data": {"dataset": "coco", "split": "train", **data},
            **{"method": "m", "seed": 3, "optim": {}, "model": {}},
        }
        stamp = report.stamp_of_run(scored, config, "val", 5)
        assert (stamp["box_source"], stamp["seed"], stamp["split"]) == (
            source,
            3,
            "val",
        )
