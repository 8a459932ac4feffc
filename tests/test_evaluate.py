import json
import subprocess
import sys

import cv2
import pytest
import runs

from occjax import evaluate
from occjax.errors import UserError
from occjax.evaluation import coco
from occjax.runtime.options import Options

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


def test_scoring_a_file_imports_neither_jax_nor_a_loader(files):
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['evaluate', *{arguments(files)!r}]\n"
        # faster-coco-eval takes OpenCV along where it is installed.
        "loaders = {'grain', 'array_record', 'occjax.data'}\n"
        "try:\n    runpy.run_module('occjax.evaluate', run_name='__main__')\n"
        "finally:\n    print((loaders | {'jax', 'flax'}) & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("set()")


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
    evaluate.score_file("crowd", *names, str(tmp_path / "again"))
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    assert again["AP"] == saved["AP"]
    assert again["occlusion"] == saved["occlusion"]
    same = "ground_truth_sha256"
    assert again["protocol"][same] == saved["protocol"][same]


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
