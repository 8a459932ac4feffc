"""What the command that scores does with files and flags, as at a terminal."""

import json
import pathlib
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from occjax import evaluate
from occjax.evaluation import coco, view
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


def test_scales_must_be_numbers():
    refused(run("--workdir=runs/a", "--scales=1,big"), "--scales=1,big")


def test_scores_must_be_known():
    refused(run("--workdir=runs/a", "--score=heatmap,best"), "--score=heatmap,best")
