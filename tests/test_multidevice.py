"""Several devices and several processes do what one does."""

import json
import signal
import socket
import time

import commands
import numpy as np
import pytest

pytestmark = pytest.mark.slow
# Plain gradient descent: Adam enlarges what rounding leaves of small gradients.
SGD = ("--config.optim.name=sgd", "--config.optim.lr=0.01")
RUN = (
    "--config.steps=8",
    "--config.checkpoint_every=4",
    "--config.optim.ema=0.9",
    *SGD,
)


def processes(folder, cache, *argv):
    """Starts two processes of four devices each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        commands.start(
            *commands.TINY,
            "--workdir",
            str(folder),
            f"--coordinator=localhost:{port}",
            "--num_processes=2",
            f"--process_id={i}",
            *argv,
            devices=4,
            **cache,
        )
        for i in range(2)
    ]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cache):
    """One process with eight devices."""
    folder = tmp_path_factory.mktemp("one")
    command = (*commands.TINY, "--workdir", str(folder), *RUN)
    status, _, err = commands.run(*command, devices=8, **cache)
    assert status == 0, err
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory, cache):
    """Two processes with four devices each."""
    folder = tmp_path_factory.mktemp("two")
    ends = [commands.finish(process) for process in processes(folder, cache, *RUN)]
    for status, _, err in ends:
        assert status == 0, err
    return folder, ends


def test_losses_of_two_processes_equal_those_of_one(alone, together):
    for name in ("loss", "joints", "score", "gradient_norm"):
        ours = commands.figures(alone, name)
        theirs = commands.figures(together[0], name)
        assert list(ours) == list(theirs) == list(range(1, 9))
        np.testing.assert_allclose(
            list(ours.values()), list(theirs.values()), rtol=1e-4
        )


def test_two_processes_find_the_same_poses_in_the_same_images(alone, together):
    ours, theirs = (
        json.loads((folder / "detections.json").read_text())
        for folder in (alone, together[0])
    )
    assert [item["image_id"] for item in ours] == [item["image_id"] for item in theirs]
    np.testing.assert_allclose(
        [item["keypoints"] for item in ours],
        [item["keypoints"] for item in theirs],
        atol=0.01,  # pixels
    )


def test_only_the_first_process_talks_and_writes(together):
    folder, ends = together
    assert "step 8/8" in ends[0][1]
    said = [line for line in ends[1][1].splitlines() if "[Gloo]" not in line]
    assert not said
    assert len(list(folder.glob("events.out.tfevents*"))) == 1


def test_one_device_does_what_eight_do(alone, tmp_path, cache):
    command = (*commands.TINY, "--workdir", str(tmp_path), *RUN)
    status, _, err = commands.run(*command, **cache)
    assert status == 0, err
    ours, theirs = (commands.figures(folder, "loss") for folder in (alone, tmp_path))
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4)


def test_a_state_shared_out_over_two_processes_does_the_same_and_goes_on_elsewhere(
    alone, tmp_path, cache
):
    settings = (*RUN, "--config.state_shards=8")  # half of each kernel is elsewhere
    for process in processes(tmp_path, cache, *settings, "--config.steps=6"):
        status, _, err = commands.finish(process)
        assert status == 0, err
    command = (*commands.TINY, "--workdir", str(tmp_path), *RUN)
    settings = ("--config.state_shards=2", "--config.norm_group=8")
    status, _, err = commands.run(*command, *settings, devices=8, **cache)
    assert status == 1, "other groups are another run"
    assert "norm_group (was 0, now 8)" in err
    status, _, err = commands.run(*command, settings[0], devices=8, **cache)
    assert status == 0, err
    for name in ("loss", "gradient_norm"):
        ours, theirs = (commands.figures(run, name) for run in (alone, tmp_path))
        assert list(ours) == list(theirs)
        np.testing.assert_allclose(
            list(ours.values()), list(theirs.values()), rtol=1e-4
        )


def test_sigterm_to_one_process_stops_both_at_the_same_step(tmp_path, cache):
    argv = ("--config.steps=4000", "--config.checkpoint_every=4000")
    argv = (*argv, "--config.eval_every=4000")
    both = processes(tmp_path, cache, *argv)
    path = tmp_path / "metrics.jsonl"
    end = time.monotonic() + commands.SECONDS
    while time.monotonic() < end and not (path.exists() and path.stat().st_size):
        time.sleep(0.05)
    both[1].send_signal(signal.SIGTERM)
    ends = [commands.finish(process) for process in both]

    assert [status for status, _, _ in ends] == [143, 143], ends
    assert len([*(tmp_path / "checkpoints").iterdir()]) == 1
