"""The train command: what it leaves, and what happens when it is stopped or misused."""

import json
import re
import shutil
import signal
import time

import commands
import jax
import numpy as np
import pytest
import tiny_method

from occjax import skeletons
from occjax.runtime import checkpoint, step
from occjax.runtime.mesh import Layout

pytestmark = pytest.mark.slow
STEPS = 24
LONG = (f"--config.steps={STEPS}", "--config.eval_every=1000")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Compiled programs, shared by the runs of this file."""
    return {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    status, out, err = commands.run(
        *commands.TINY, "--workdir", str(folder), *LONG, **cache
    )
    assert status == 0, err
    return folder, out


def state_of(folder):
    """The last state of a run, as NumPy arrays."""
    tiny_method.install()
    config = tiny_method.config(steps=STEPS, eval_every=1000)
    _, model = step.build_model(config, skeletons.COCO)
    like = step.init_state(config, model, (32, 32, 3), Layout.create())
    with checkpoint.Checkpoints(folder) as checkpoints:
        found = checkpoints.restore(checkpoints.latest, like)
    return jax.tree.map(np.asarray, found.state), found.position


def assert_same_run(folder, other):
    (ours, our_place), (theirs, their_place) = state_of(folder), state_of(other)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert int(ours.step) == STEPS
    assert our_place == their_place
    losses = commands.figures(folder, "loss")
    assert losses == commands.figures(other, "loss")
    assert list(losses) == list(range(1, STEPS + 1))


def test_a_run_leaves_what_its_help_promises(uninterrupted):
    folder, out = uninterrupted
    names = {path.name for path in folder.iterdir()}
    metrics = json.loads((folder / "metrics.json").read_text())

    assert {"config.json", "environment.json", "checkpoints"} <= names
    assert {"metrics.jsonl", "metrics.json", "detections.json"} <= names
    assert [name for name in names if name.startswith("events.out.tfevents")]
    assert list((folder / "samples").glob("*.png"))
    assert json.loads((folder / "config.json").read_text())["steps"] == STEPS
    assert json.loads((folder / "environment.json").read_text())["packages"]["jax"]
    assert 0 <= metrics["AP50"] <= 1
    assert metrics["protocol"]["step"] == STEPS
    assert f"step {STEPS}/{STEPS}" in out
    assert "AP " in out


def test_a_run_killed_three_times_ends_bitwise_as_if_nothing_had_happened(
    uninterrupted, tmp_path, cache
):
    folder = tmp_path / "killed"
    rng = np.random.default_rng()  # anything may happen at any moment
    moments = sorted(rng.integers(1, STEPS - 1, 3))
    for moment in moments:
        process = commands.start(
            *commands.TINY, "--workdir", str(folder), *LONG, **cache
        )
        commands.wait_for_step([process], folder, int(moment))
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.communicate()
    status, _, err = commands.run(
        *commands.TINY, "--workdir", str(folder), *LONG, **cache
    )

    assert status == 0, err
    assert_same_run(folder, uninterrupted[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_asked_to_stop_saves_says_so_and_goes_on(
    uninterrupted, tmp_path, cache, number
):
    folder = tmp_path / "stopped"
    command = (*commands.TINY, "--workdir", str(folder), *LONG)
    seldom = "--config.checkpoint_every=1000"
    process = commands.start(*command, seldom, **cache)
    commands.wait_for_step([process], folder, 3)
    process.send_signal(number)
    status, out, err = commands.finish(process)
    saved = [int(path.name) for path in (folder / "checkpoints").iterdir()]

    assert status == 143, err
    assert f"saved step {saved[0]}" in out
    assert len(saved) == 1
    assert saved[0] < STEPS
    assert commands.run(*command, **cache)[0] == 0
    assert_same_run(folder, uninterrupted[0])


def test_a_finished_run_can_go_on_longer_but_not_as_another(tmp_path, cache):
    command = (*commands.TINY, "--workdir", str(tmp_path))
    assert commands.run(*command, "--config.steps=3", **cache)[0] == 0
    assert commands.run(*command, "--config.steps=5", **cache)[0] == 0
    status, _, err = commands.run(*command, "--config.batch_size=4", **cache)

    assert list(commands.figures(tmp_path, "loss")) == [1, 2, 3, 4, 5]
    assert status == 1
    assert err.count("\n") == 1
    assert "batch_size (was 8, now 4)" in err


def test_a_loss_that_is_no_number_stops_the_run_with_step_and_culprit(tmp_path, cache):
    status, _, err = commands.run(
        *commands.TINY,
        "--workdir",
        str(tmp_path),
        "--config.optim.name=sgd",
        "--config.optim.lr=1e38",
        "--config.checkpoint_every=1",
        **cache,
    )
    assert status == 1
    assert err.count("\n") == 1
    assert "step 2: joints = " in err
    assert f"last good checkpoint: {tmp_path}/checkpoints/1" in err
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]


PINET = ("-m", "occjax.train", "--config")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((*PINET, "configs/pinet.py:smoke", "--config.batchsize=4"), "batch_size"),
        (
            (*PINET, "configs/pinet.py:smoke", "--config.model.parts=large"),
            "config.model: parts: .*part-large",
        ),
        ((*PINET, "configs/pinet.py:ochuman"), "python -m data_prep.ochuman"),
        ((*PINET, "configs/pinet.py:smok"), "there is no variant 'smok'"),
        ((*PINET, "configs/none.py"), "there is no file configs/none.py"),
        (PINET[:2], "--config is missing"),
        ((*PINET, "configs/pinet.py:smoke", "--batch=4"), "batch"),
        ((*PINET, "configs/pinet.py:smoke", "hello"), "hello: unexpected"),
        (
            (*PINET, "configs/pinet.py:smoke", "--config.model.backbone.name=hrnot"),
            "backbone.name: 'hrnot'",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_1(argv, said, tmp_path):
    status, out, err = commands.run(*argv, "--workdir", str(tmp_path))
    lines = [line for line in err.splitlines() if line.strip()]

    assert status == 1
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert re.search(said, lines[0])
    assert out == ""


def test_a_batch_that_does_not_divide_over_the_devices_is_one_line(tmp_path):
    status, _, err = commands.run(
        *commands.TINY,
        "--workdir",
        str(tmp_path),
        "--config.batch_size=6",
        devices=4,
    )
    assert status == 1
    assert err == (
        "error: config.batch_size: 6 images cannot be split evenly over 4 devices; "
        "use a multiple of 4.\n"
    )


def test_a_truncated_checkpoint_is_one_line(uninterrupted, tmp_path, cache):
    shutil.copytree(uninterrupted[0], tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints" / f"{STEPS}" / "state").glob("d/*"):
        path.write_bytes(path.read_bytes()[:100])
    status, _, err = commands.run(
        *commands.TINY, "--workdir", str(tmp_path / "run"), *LONG, **cache
    )
    assert status == 1
    assert err.count("\n") == 1
    assert f"checkpoints/{STEPS}: damaged" in err


def test_help_teaches(tmp_path):
    status, out, _ = commands.run("-m", "occjax.train", "--help")
    assert status in (0, 1)
    for said in ("configs/pinet.py", "--config.KEY=VALUE", "--workdir", "SIGTERM"):
        assert said in out
