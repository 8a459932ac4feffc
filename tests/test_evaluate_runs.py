"""What scoring a run leaves, and what it refuses."""

import json
import pathlib
import re

import cv2
import numpy as np
import pytest
import runs

from occjax import evaluate
from occjax.data import sources
from occjax.errors import UserError
from occjax.evaluation import coco
from occjax.runtime import config
from occjax.runtime.options import Options

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return runs.make(tmp_path_factory.mktemp("run"))[0]


def test_run_leaves_detections_metrics_and_samples(workdir, capsys):
    evaluate.score_run(str(workdir), None, Options(False, (1.0,)), None)

    metrics = json.loads((workdir / "metrics.json").read_text())
    stamp = metrics["protocol"]
    assert (stamp["dataset"], stamp["split"], stamp["step"]) == ("crowd", "test", 0)
    assert stamp["flip"] is False
    assert stamp["scales"] == [1.0]
    assert stamp["images"] == 4
    found = json.loads((workdir / "detections.json").read_text())
    assert {item["image_id"] for item in found} == set(range(4))
    assert sum(item["score"] >= metrics["confident_score"] for item in found) > 0
    assert cv2.imread(str(workdir / "samples/test.png")) is not None
    assert stamp["protocol"] == "crowd"
    assert {"bins", "joints", "worst"} <= set(metrics["occlusion"])
    drawn = (workdir / "report.html").read_text().count("data:image/jpeg")
    assert drawn == len(metrics["occlusion"]["worst"]) == 4
    assert "AP " in capsys.readouterr().out


def test_figures_of_a_run_are_those_of_its_detections_file(workdir, tmp_path):
    chosen = Options(True, (0.5, 1.0))
    evaluate.score_run(str(workdir), "train", chosen, str(tmp_path))
    saved = json.loads((tmp_path / "metrics.json").read_text())
    assert saved["protocol"]["flip"] is True
    assert saved["protocol"]["split"] == "train"

    from occjax.data import sources
    from occjax.runtime import trained

    _, config = trained.last(workdir, None)
    truth = coco.ground_truth(sources.load(config.data.to_dict(), "train"), 4)
    (tmp_path / "A.json").write_text(json.dumps(truth))
    names = [str(tmp_path / name) for name in ("A.json", "detections.json")]
    how = evaluate.How(compare=str(tmp_path))
    evaluate.score_file("crowd", *names, str(tmp_path / "again"), how)
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    assert again["AP"] == saved["AP"]
    assert again["occlusion"] == saved["occlusion"]
    same = "ground_truth_sha256"
    assert again["protocol"][same] == saved["protocol"][same]
    assert again["comparison"]["figures"]["all"]["AP"]["difference"] == 0


def test_a_run_beside_another_says_what_differs(workdir, tmp_path, capsys):
    evaluate.score_run(str(workdir), None, Options(False, (1.0,)), str(tmp_path / "a"))
    how = evaluate.How(compare=str(tmp_path / "a"), page=False)
    chosen = Options(True, (1.0,))
    evaluate.score_run(str(workdir), None, chosen, str(tmp_path / "b"), how)
    assert "flip: True, others False" in capsys.readouterr().out
    with pytest.raises(UserError, match="a/detections.json: cannot be compared"):
        evaluate.score_run(str(workdir), "train", chosen, str(tmp_path / "b"), how)


def test_a_run_is_scored_by_protocols_of_its_joints_alone(workdir, tmp_path):
    chosen = (None, Options(False, (1.0,)), str(tmp_path), evaluate.How(page=False))
    evaluate.score_run(str(workdir), *chosen, "ochuman-mask")
    saved = json.loads((tmp_path / "metrics.json").read_text())
    assert (saved["protocol"]["dataset"], saved["protocol"]["area"]) == (
        "crowd",
        "mask",
    )
    with pytest.raises(UserError, match="--dataset=crowdpose"):
        evaluate.score_run(str(workdir), *chosen, "crowdpose")


def test_what_a_training_is_writing_is_left_alone(workdir):
    from occjax.runtime import trained

    half = workdir / "checkpoints" / "7.orbax-checkpoint-tmp"
    half.mkdir()
    step, config = trained.last(workdir, None)
    assert (step, config.method) == (0, "pinet")
    assert half.exists()


def test_folder_without_a_run_is_refused_and_not_created(tmp_path):
    absent = tmp_path / "absent"
    with pytest.raises(UserError, match=f"{absent}.*no checkpoints"):
        evaluate.score_run(str(absent), None, Options(None, (1.0,)), None)
    assert not absent.exists()


@pytest.mark.parametrize("posed", [False, True])
def test_a_run_that_crops_people_takes_boxes_of_a_file(
    tmp_path, monkeypatch, capsys, posed
):
    monkeypatch.chdir(ROOT)
    asked = config.load("configs/hrnet.py:smoke")
    if posed:  # tested on poses until now, which boxes without are not
        with asked.unlocked():
            asked.data.eval_proposals = "others.json"
    folder, settings = runs.save(tmp_path, asked)
    source = sources.load(settings.data.to_dict(), "test")
    first = [source[i] for i in range(3)]  # nobody is looked for in the fourth image
    boxes = [
        {"image_id": int(r["image_id"]), "category_id": 1, "bbox": b, "score": 0.5}
        for r in first
        for b in np.asarray(r["persons"]["bbox"], float).tolist()
    ]
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps([*boxes, *boxes]))
    how = evaluate.How(boxes=str(file), page=False)
    if posed:
        with pytest.raises(UserError, match="keypoints: expected 51 numbers"):
            evaluate.score_run(str(folder), None, Options(None, (1.0,)), None, how)
        for box in boxes:
            box["keypoints"] = [1.0] * 51
        file.write_text(json.dumps([*boxes, *boxes]))
    evaluate.score_run(str(folder), None, Options(None, (1.0,)), str(tmp_path), how)

    found = json.loads((tmp_path / "detections.json").read_text())
    assert {item["image_id"] for item in found} == {int(r["image_id"]) for r in first}
    assert len(found) <= len(boxes)  # the second pose of a box is superfluous
    stamp = json.loads((tmp_path / "metrics.json").read_text())["protocol"]
    assert stamp["box_source"] == str(file)
    assert "AP" in capsys.readouterr().out


def test_a_run_that_sees_whole_images_takes_no_boxes(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder, _ = runs.make(tmp_path)
    how = evaluate.How(boxes="boxes.json")
    with pytest.raises(UserError, match="--boxes: this run sees whole images"):
        evaluate.score_run(str(folder), None, Options(None, (1.0,)), None, how)


@pytest.fixture(scope="module")
def rescored(tmp_path_factory):
    """A run of KS-net, and its poses scored by three scores in a folder."""
    folder = tmp_path_factory.mktemp("ksnet")
    run, _ = runs.save(folder / "run", config.load("configs/ksnet.py:smoke"))
    ranks = Options(None, (1.0,), (), ("oaks", "heatmap", "oracle"))
    evaluate.score_run(str(run), None, ranks, str(folder / "scored"))
    return run, folder / "scored"


def test_several_scores_stand_side_by_side_and_move_no_joint(rescored, tmp_path):
    run, folder = rescored
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics["scores"]) == ["oaks", "heatmap", "oracle"]
    assert metrics["protocol"]["score"] == "oaks"
    for key in ("AP", "AP50", "AP75", "AR"):
        assert metrics["scores"]["oaks"][key] == pytest.approx(metrics[key], abs=1e-9)
    recalls = [row["AR"] for row in metrics["scores"].values()]
    assert max(recalls) - min(recalls) < 1e-9
    assert "Scores side by side" in (folder / "report.html").read_text()

    chosen = Options(None, (1.0,), (), ("heatmap",))
    evaluate.score_run(str(run), None, chosen, str(tmp_path))
    ours, theirs = (
        json.loads((place / "detections.json").read_text())
        for place in (folder, tmp_path)
    )
    joints = {tuple(np.reshape(x["keypoints"], (-1, 3))[:, :2].ravel()) for x in ours}
    assert joints == {
        tuple(np.reshape(x["keypoints"], (-1, 3))[:, :2].ravel()) for x in theirs
    }
    assert {x["score"] for x in ours}.isdisjoint(x["score"] for x in theirs)
    assert all(len(x["labelled"]) == 17 for x in ours + theirs)


def test_keys_of_several_scores_are_documented(rescored):
    scores = json.loads((rescored[1] / "metrics.json").read_text())["scores"]
    words = (ROOT / "docs/evaluation.md").read_text()
    for key in [
        *scores,
        *scores["oaks"],
        "scores",
        "labels",
        "accuracy",
        "correlation",
    ]:
        assert re.search(rf"[`.,]{key}[`.,]", words), key


def test_a_run_without_ks_net_has_its_own_score_and_the_oracles(workdir, tmp_path):
    chosen = Options(None, (1.0,), (), ("heatmap", "oracle"))
    evaluate.score_run(str(workdir), None, chosen, str(tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    oracle = metrics["occlusion"]["oracle"]["oracle"]
    assert metrics["scores"]["oracle"]["AP"] == pytest.approx(oracle["AP"])
    oaks = Options(None, (1.0,), (), ("oaks",))
    with pytest.raises(UserError, match="--score=oaks: this run has no KS-net"):
        evaluate.score_run(str(workdir), None, oaks, str(tmp_path))
