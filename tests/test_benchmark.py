import itertools
import json
import os
import subprocess
import sys
import types

import batches
import jax
import jax.monitoring
import numpy as np
import pytest

from occjax import benchmark
from occjax.data import pipeline, speed
from occjax.data.crowd import Crowd
from occjax.errors import UserError
from occjax.ops import couples
from occjax.runtime import cli, config, step
from occjax.runtime import speed as device
from occjax.runtime.mesh import Layout

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
    settings.batch_size = 2
    batch = benchmark.example(settings, 17)
    size, persons = settings.data.size, settings.data.max_persons
    assert batch.inputs.image.shape == (2, size, size, 3)
    assert batch.inputs.box is None
    assert batch.labels.joints.shape == (2, persons, 17, 2)
    assert batch.labels.visibility.dtype == np.uint8
    people = np.any(batch.labels.visibility > 0, axis=-1)
    np.testing.assert_array_equal(people, batch.labels.area > 0)
    again = benchmark.example(settings, 17)
    np.testing.assert_array_equal(again.labels.joints, batch.labels.joints)


def test_made_up_batch_of_a_person_view_is_not_square():
    settings = config.load("configs/opecnet.py:smoke")
    settings.batch_size, settings.data.size = 2, (96, 64)
    batch = benchmark.example(settings, 12)
    assert batch.inputs.image.shape == (2, 96, 64, 3)
    assert batch.inputs.box.shape == (2, 4)
    assert batch.labels.ignore.shape == (2, 24, 16)
    assert batch.inputs.valid.tolist() == [[96, 64]] * 2
    assert batch.labels.joints[..., 0].max() < 64
    assert batch.labels.area[0] > 0


def test_made_up_batch_of_a_view_of_people_is_one_of_couples():
    settings = config.load("configs/couplegraph.py:smoke")
    settings.batch_size = 2
    batch = benchmark.example(settings, 12)
    source = Crowd(num_scenes=1, people=(2, 2), skeleton="ocpose")
    _, trained = pipeline.augmented(source, settings.data.to_dict(), seed=0)
    for made_up, real in zip(*map(batches.leaves, (batch, trained(0))), strict=True):
        assert made_up.shape == (2, *real.shape)
        assert made_up.dtype == real.dtype
    there = batch.inputs.box_score > 0
    _, paired = couples.partners(batch.inputs.box, there, 0.5)
    assert np.all(paired)


def test_made_up_batch_of_pasted_patches_has_clean_twins():
    settings = config.load("configs/oasnet.py:smoke")
    settings.batch_size = 2
    batch = benchmark.example(settings, 17)
    source = Crowd(num_scenes=1, people=(2, 2))
    _, trained = pipeline.augmented(source, config.data_settings(settings), seed=0)
    for made_up, real in zip(*map(batches.leaves, (batch, trained(0))), strict=True):
        assert made_up.shape == (2, *real.shape)
        assert made_up.dtype == real.dtype


@pytest.mark.parametrize("name", ["simple_baseline", "opecnet", "couplegraph"])
def test_inference_is_one_call_that_compiles_once(name):
    layout = Layout.create()
    task = benchmark.ready(config.load(f"configs/{name}.py:smoke"), layout)
    predict = step.make_predict_step(task.method, task.model, layout)
    inputs = task.batch.inputs
    darker = inputs._replace(image=inputs.image // 2)
    placed = [layout.shard_batch(each) for each in (inputs, darker)]
    seen = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: seen.append(name)
    )
    for each in placed:
        jax.block_until_ready(predict(task.state.variables, each))
    assert sum("backend_compile" in name for name in seen) == 1


def test_inference_is_measured_beside_that_of_another_config():
    ours, other = (
        config.load(f"configs/{name}.py:smoke") for name in ("couplegraph", "opecnet")
    )
    found = benchmark.cost(ours, other, 2)
    assert found["batch_sizes"] == [16, 16]  # crops of people
    low, high = found["time_ratio_quartiles"]
    assert 0 < low <= found["time_ratio"] <= high
    figures = {"environment": cli.environment(), "cost": found}
    assert "times the other's time per image" in benchmark.table(figures)


def test_runs_take_turns_after_one_of_each(monkeypatch):
    monkeypatch.setattr(device.time, "perf_counter", itertools.count().__next__)
    order = []
    runs = [lambda name=name: order.append(name) for name in "ab"]
    assert device.in_turns(runs, 2).shape == (2, 2)
    assert "".join(order) == "ababab"


def test_reading_alone_is_measured_on_the_crowd_or_a_dataset(monkeypatch):
    monkeypatch.setattr(benchmark, "_SCENES", 4)
    crop = {**speed.PIPELINES["crop, pasting"], "size": (64, 32)}
    monkeypatch.setattr(speed, "PIPELINES", {"crop, pasting": crop})
    for chosen in (None, config.load("configs/couplegraph.py:smoke")):
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
    monkeypatch.setattr(device.time, "perf_counter", lambda: next(ticks))
    assert device.median_seconds(lambda: None, 3) == 2.0


def test_input_is_left_out_without_the_dataset(tmp_path):
    data = {"dataset": "ochuman", "dir": str(tmp_path), "split": "train", "threads": 1}
    assert benchmark.reading(None, data, 1) is None
    assert "not there" in benchmark._input_row(None)


def test_missing_config_is_one_line():
    done = run()
    assert done.returncode == 1
    assert done.stderr.startswith("error: --config is missing")
