import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest

from occjax import benchmark
from occjax.data import speed
from occjax.errors import UserError
from occjax.runtime import config

# As a user has it: optax mixes dtypes, which the tests' strict settings forbid.
USUAL = {"JAX_NUM_CPU_DEVICES": "1", "JAX_NUMPY_DTYPE_PROMOTION": "standard"}


def run(*arguments):
    command = [sys.executable, "-m", "occjax.benchmark", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=500, env=os.environ | USUAL
    )


def positive(values, *names):
    """All named figures are there and above zero."""
    return all(values[name] > 0 for name in names)


@pytest.mark.slow
def test_every_figure_is_measured_and_written(tmp_path):
    path = tmp_path / "figures.json"
    done = run("--config=configs/pinet.py:smoke", "--repeats=2", f"--output={path}")
    assert done.returncode == 0, done.stderr

    figures = json.loads(path.read_text())
    assert positive(figures["model"], "create_s")
    assert positive(figures["matmul"], "flop_per_s")
    train = figures["train"]
    assert positive(train, "trace_s", "compile_cold_s", "trace_and_compile_cached_s")
    assert positive(train, "images_per_s", "flop_per_step", "planned_bytes")
    rate = train["flop_per_step"] / train["step_s"]
    assert train["flop_per_s"] == pytest.approx(rate)
    assert positive(figures["inference"], "images_per_s", "network_images_per_s")
    assert positive(figures["input"], "pipeline", "plain", "ratio")
    assert figures["environment"]["packages"]["jax"]
    assert figures["config"]["method"] == "pinet"
    for word in ("machine", "versions", "train step", "decoding adds", "plain loop"):
        assert word in done.stdout


def test_made_up_batch_has_the_shapes_of_training():
    settings = config.load("configs/pinet.py:smoke")
    data = settings.data.to_dict()
    batch = benchmark.example(2, data, 17)
    size, persons = data["size"], data["max_persons"]
    assert batch.inputs.image.shape == (2, size, size, 3)
    assert batch.labels.joints.shape == (2, persons, 17, 2)
    assert batch.labels.visibility.dtype == np.uint8
    people = np.any(batch.labels.visibility > 0, axis=-1)
    np.testing.assert_array_equal(people, batch.labels.area > 0)
    again = benchmark.example(2, data, 17)
    np.testing.assert_array_equal(again.labels.joints, batch.labels.joints)


def test_made_up_batch_of_a_person_view_is_not_square():
    data = {"size": (96, 64), "max_persons": 1}
    batch = benchmark.example(2, data, 17)
    assert batch.inputs.image.shape == (2, 96, 64, 3)
    assert batch.labels.ignore.shape == (2, 24, 16)
    assert batch.inputs.valid.tolist() == [[96, 64]] * 2
    assert batch.labels.joints[..., 0].max() < 64
    assert batch.labels.area[0] > 0


def test_reading_alone_is_measured_on_the_crowd_or_a_dataset(monkeypatch):
    monkeypatch.setattr(benchmark, "_SCENES", 4)
    crop = {**speed.PIPELINES["crop, pasting"], "size": (64, 32)}
    monkeypatch.setattr(speed, "PIPELINES", {"crop, pasting": crop})
    for chosen in (None, config.load("configs/pinet.py:smoke")):
        (row,) = benchmark.survey(chosen, 1)["data"].values()
        assert positive(row, "pipeline", "plain", "ratio", "pipeline_scaling")
    missing = config.load("configs/pinet.py:ochuman")
    with pytest.raises(UserError, match="prepare it with"):
        benchmark.survey(missing, 1)


def test_scoring_alone_is_measured_and_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark.scoring_speed.survey, "__defaults__", (20, 0))
    path = tmp_path / "figures.json"
    flags = {"evaluation": True, "data": False, "repeats": 1, "output": str(path)}
    monkeypatch.setattr(benchmark, "FLAGS", types.SimpleNamespace(**flags))
    benchmark.main([])
    figures = json.loads(path.read_text())["evaluation"]
    assert (figures["images"], len(figures["kinds"])) == (20, 3)
    assert "occjax, faster-coco-eval" in capsys.readouterr().out


def test_seconds_is_the_median(monkeypatch):
    ticks = iter([0.0, 1.0, 10.0, 15.0, 20.0, 22.0])
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(ticks))
    assert benchmark.seconds(lambda: None, 3) == 2.0


def test_input_is_left_out_without_the_dataset(tmp_path):
    data = {"dataset": "ochuman", "dir": str(tmp_path), "split": "train", "threads": 1}
    assert benchmark.reading(None, data, 1) is None
    assert "not there" in benchmark._input_row(None)


def test_missing_config_is_one_line():
    done = run()
    assert done.returncode == 1
    assert done.stderr.startswith("error: --config is missing")
