import json
import subprocess
import sys

import pytest

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
        "try:\n    runpy.run_module('occjax.evaluate', run_name='__main__')\n"
        "finally:\n    print({'jax', 'flax', 'grain', 'cv2'} & set(sys.modules))\n"
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
