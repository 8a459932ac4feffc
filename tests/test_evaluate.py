import json
import pathlib
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import runs

from occjax import evaluate
from occjax.data import sources
from occjax.errors import UserError
from occjax.evaluation import coco, view
from occjax.runtime import config
from occjax.runtime.options import Options
from occjax.skeletons import COCO

ROOT = pathlib.Path(__file__).resolve().parents[1]
CASE = "xtcocotools_example_coco"


def run(*arguments):
    """Runs the command as a user would."""
    command = [sys.executable, "-m", "occjax.evaluate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def files(photographs):
    folder = photographs / "eval_reference"
    return {
        "--dataset": "coco",
        "--annotations": folder / f"{CASE}.ground_truth.json",
        "--detections": folder / f"{CASE}.detections.json",
    }


def arguments(flags):
    return [f"{name}={value}" for name, value in flags.items()]


def folder_of_empty_images(annotations, folder):
    """A grey picture for every image of a ground truth file."""
    folder = folder / "images"
    folder.mkdir()
    for image in json.loads(annotations.read_text())["images"]:
        grey = np.full((image["height"], image["width"], 3), 99, np.uint8)
        cv2.imwrite(str(folder / image["file_name"]), grey)
    return folder


def refused(done, *words):
    """One line on stderr that has the words, and a failing exit code."""
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert str(word) in done.stderr


def test_file_is_scored_as_pycocotools_does(files, tmp_path):
    done = run(*arguments(files), f"--output={tmp_path}")
    assert done.returncode == 0, done.stderr
    reference = files["--annotations"].with_name(f"{CASE}.expected.json")
    expected = json.loads(reference.read_text())["stats"]
    saved = json.loads((tmp_path / "metrics.json").read_text())
    for name in ("AP", "AP50", "AP75", "AR"):
        assert saved[name] == pytest.approx(expected[name], abs=1e-9)
    assert saved["protocol"]["dataset"] == "coco"
    assert saved["protocol"]["annotations"] == files["--annotations"].name
    assert f"{100 * expected['AP']:.1f}" in done.stdout


@pytest.mark.parametrize("shown", [False, True])
def test_scoring_a_file_imports_no_jax_and_nothing_it_can_do_without(
    files, photographs, tmp_path, shown
):
    given = arguments(files)
    heavy = {"jax", "flax", "grain", "array_record"}
    if shown:
        pictures = folder_of_empty_images(files["--annotations"], tmp_path)
        given += [f"--output={tmp_path}", f"--images={pictures}"]
    else:
        # faster-coco-eval takes OpenCV along where it is installed.
        heavy |= {"occjax.data", "matplotlib"}
    script = (
        f"import runpy, sys\nsys.argv = ['evaluate', *{given!r}]\n"
        "try:\n    runpy.run_module('occjax.evaluate', run_name='__main__')\n"
        f"finally:\n    print({heavy!r} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("set()")


def test_every_part_of_the_view_is_printed_and_saved(files, tmp_path):
    done = run(*arguments(files), f"--output={tmp_path}", "--backend=pycocotools")
    saved = json.loads((tmp_path / "metrics.json").read_text())
    assert set(saved) == {
        *("protocol", "occlusion", "confident_score"),
        *(name for name in saved if name.startswith(("AP", "AR"))),
    }
    assert set(saved["occlusion"]) == {
        *("bins", "joints", "curves", "errors", "calibration", "oracle", "worst")
    }
    assert saved["protocol"]["evaluator"].startswith("pycocotools ")
    assert view.text(saved["occlusion"]) in done.stdout
    assert "<svg" in (tmp_path / "report.html").read_text()
    assert "metrics.json, detections.json, report.html" in done.stdout


def test_every_key_is_documented(files, tmp_path):
    compared = f"--compare={files['--detections']}"
    run(*arguments(files), f"--output={tmp_path}", "--noreport", compared)
    words = (ROOT / "docs/evaluation.md").read_text()

    def keys(value):
        if isinstance(value, list):
            value = dict(enumerate(value[:1]))
        if isinstance(value, dict):
            for key, item in value.items():
                yield key
                yield from keys(item)

    names = set(keys(json.loads((tmp_path / "metrics.json").read_text())))
    names = {name.replace("AR", "AP") for name in names if isinstance(name, str)}
    names -= {*COCO.joints, *(name for name in names if name.startswith("box IoU"))}
    assert len(names) > 80
    assert [name for name in names if not re.search(rf"[`.]{name}[`.]", words)] == []


def test_compat_changes_the_corrections_alone(files, tmp_path):
    found = []
    for flag in ("--nococo_analyze_compat", "--coco_analyze_compat"):
        run(*arguments(files), flag, f"--output={tmp_path}", "--noreport")
        found.append(json.loads((tmp_path / "metrics.json").read_text()))
    steps = [one["occlusion"]["errors"].pop("steps") for one in found]
    assert steps[0] != steps[1]
    assert found[0] == found[1]
    assert not (tmp_path / "report.html").exists()


def test_crowdpose_has_its_levels_and_no_sizes(photographs, tmp_path):
    folder = photographs / "eval_reference"
    case = "crowdpose_images_mediapipe"
    expected = json.loads((folder / f"{case}.expected.json").read_text())
    truth = str(folder / expected["ground_truth"])
    found = str(folder / f"{case}.detections.json")
    how = evaluate.How(images=str(photographs / "crowdpose/images"))
    evaluate.score_file("crowdpose", truth, found, str(tmp_path), how)
    saved = json.loads((tmp_path / "metrics.json").read_text())
    theirs = expected["stats"]
    assert saved["AP"] == pytest.approx(theirs["AP"], abs=1e-9)
    assert saved["AP_crowd_medium"] == pytest.approx(theirs["AP_medium"], abs=5e-5)
    assert saved["AR_crowd_hard"] == coco.UNDEFINED
    assert "AP_large" not in saved
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/jpeg") == len(saved["occlusion"]["worst"]) == 6


def test_images_that_are_missing_are_named(files, tmp_path):
    there = [*arguments(files), f"--output={tmp_path}"]
    refused(run(*there, f"--images={tmp_path}"), tmp_path, ".jpg", "cannot be read")
    refused(run(*there, "--images=nowhere"), "nowhere", "no such folder")


def test_a_file_compared_with_itself_and_with_what_was_scored_before(files, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    run(*arguments(files), f"--output={first}")
    done = run(*arguments(files), f"--compare={first}", f"--output={second}")
    assert "+0.0  +0.0 to +0.0" in done.stdout
    saved = json.loads((second / "metrics.json").read_text())
    row = saved["comparison"]["figures"]["all"]["AP"]
    assert row["first"] == row["second"] == pytest.approx(saved["AP"], abs=1e-12)
    assert row["interval"] == [0, 0]

    stamp = json.loads((first / "metrics.json").read_text())
    stamp["protocol"]["protocol"] = "coco-re"
    (first / "metrics.json").write_text(json.dumps(stamp))
    mixed = files | {"--detections": second}
    refused(run(*arguments(mixed), f"--compare={first}"), first, "coco-re")


def test_pckh_of_a_file(tmp_path):
    labels = {"joints": np.full((3, 16, 3), 2.0).tolist(), "head": [9.0] * 3}
    poses = np.full((3, 16, 2), 2.0)
    poses[0, 15] = 50
    (tmp_path / "T.json").write_text(json.dumps(labels))
    (tmp_path / "P.json").write_text(json.dumps(poses.tolist()))
    given = [f"--annotations={tmp_path}/T.json", f"--detections={tmp_path}/P.json"]
    given = ["--dataset=mpii", *given, f"--output={tmp_path}"]
    done = run(*given)
    assert "97.6" in done.stdout, done.stderr
    saved = json.loads((tmp_path / "metrics.json").read_text())
    assert saved["mean"] == pytest.approx(41 / 42)
    assert saved["protocol"]["measure"] == "PCKh@0.5, <="
    assert "<svg" in (tmp_path / "report.html").read_text()
    refused(run(*given, "--compare=x"), "--compare does not go with --dataset mpii")


def test_nothing_found_is_a_result(files, tmp_path):
    (tmp_path / "D.json").write_text("[]")
    done = run(
        *arguments(files | {"--detections": tmp_path / "D.json"}),
        f"--output={tmp_path}",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "metrics.json").read_text())["AP"] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 77}, ("item 2 has image_id 77",)),
        ({"keypoints": [float("nan")] * 51}, ("item 2", "got nan as keypoints")),
        ({"keypoints": [1.0] * 42}, ("item 2: expected 51 numbers, got 42",)),
        ({"score": None}, ("item 2", "got None as score")),
    ],
)
def test_unsound_detections_are_told_in_one_line(files, tmp_path, change, words):
    found = json.loads(files["--detections"].read_text())
    found[2] |= change
    path = tmp_path / "D.json"
    path.write_text(json.dumps(found))
    refused(run(*arguments(files | {"--detections": path})), path, *words)


def test_missing_and_damaged_files_are_told_in_one_line(files, tmp_path):
    broken = tmp_path / "D.json"
    broken.write_text('[{"image_id": 1')
    refused(run(*arguments(files | {"--detections": broken})), broken, "json")
    absent = tmp_path / "absent.json"
    refused(run(*arguments(files | {"--annotations": absent})), absent)


def test_item_of_an_unknown_image_is_named(files, tmp_path):
    found = json.loads(files["--detections"].read_text())
    found[5]["image_id"] = -4
    path = tmp_path / "D.json"
    path.write_text(json.dumps(found))
    refused(run(*arguments(files | {"--detections": path})), path, "item 5", -4)


def test_flags_that_do_not_belong_together_are_refused(files):
    del files["--dataset"]
    refused(run(*arguments(files)), "--dataset is missing")
    files["--dataset"] = "crowdpose"  # 14 joints, the files have 17
    refused(run(*arguments(files)), "expected 42 numbers, got 51")
    files["--dataset"] = "coco"
    refused(run(*arguments(files), "--workdir=runs/a"), "--workdir does not go with")
    refused(run(), "--workdir")


def test_help_teaches_the_command():
    done = run("--help")
    for word in ("--detections D.json", "metrics.json", "--[no]flip", "--scales"):
        assert word in done.stdout


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


def test_scales_must_be_numbers():
    refused(run("--workdir=runs/a", "--scales=1,big"), "--scales=1,big")


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


def test_scores_must_be_known():
    refused(run("--workdir=runs/a", "--score=heatmap,best"), "--score=heatmap,best")
