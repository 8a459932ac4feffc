"""Several devices and several processes do what one does."""

import json
import re
import signal
import time

import commands
import cv2
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


def processes(folder, cache, *argv, devices=4, command=commands.TINY):
    """Starts two processes of so many devices each."""
    argv = (*command, "--workdir", str(folder), *argv)
    return commands.job(2, *argv, devices=devices, **cache)


COMMAND = (
    "import tiny_method; from occjax import {0}; from occjax.runtime import cli; "
    "tiny_method.install(); {0}.define_flags(); cli.run({0}.main)"
)
TESTS = {"PYTHONPATH": f"{commands.ROOT}:{commands.ROOT / 'tests'}"}


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
    commands.wait_for_step(both, tmp_path, 1)
    both[1].send_signal(signal.SIGTERM)
    ends = [commands.finish(process) for process in both]

    assert [status for status, _, _ in ends] == [143, 143], ends
    assert len([*(tmp_path / "checkpoints").iterdir()]) == 1


def test_a_run_of_two_processes_goes_on_in_one_with_the_same_data(
    tmp_path_factory, cache
):
    steps = ("--config.steps=24", "--config.eval_every=1000", *SGD)
    steps = (*steps, "--config.checkpoint_every=5")
    whole, broken = (tmp_path_factory.mktemp(name) for name in ("whole", "broken"))
    command = (*commands.TINY, "--workdir", str(whole), *steps)
    status, _, err = commands.run(*command, devices=2, **cache)
    assert status == 0, err
    both = processes(broken, cache, *steps, devices=1)
    commands.wait_for_step(both, broken, 12)
    for process in both:
        process.kill()
    for process in both:
        process.communicate()
    reached = max(commands.figures(broken, "loss"))
    command = (*commands.TINY, "--workdir", str(broken), *steps)
    status, out, err = commands.run(*command, devices=2, **cache)

    assert status == 0, err
    assert reached < 24
    assert re.search(r"step ([5-9]|\d\d) of 24, 2 x", out)
    ours, theirs = (commands.figures(folder, "loss") for folder in (whole, broken))
    assert list(ours) == list(theirs) == list(range(1, 25))
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4)


@pytest.mark.parametrize(
    ("victim", "number"),
    [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP)],
    ids=["killed", "first-killed", "hangs"],
)
def test_one_dead_process_ends_the_other_and_the_next_start_goes_on(
    tmp_path, cache, victim, number
):
    argv = ("--config.eval_every=4000", "--config.checkpoint_every=2", *SGD)
    both = processes(tmp_path, cache, *argv, "--config.steps=4000", devices=1)
    commands.wait_for_step(both, tmp_path, 4)
    begun = time.monotonic()
    both[victim].send_signal(number)
    status, _, err = commands.finish(both[1 - victim])
    took = time.monotonic() - begun
    both[victim].kill()
    both[victim].communicate()
    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    saved = max((int(name) for name in names if name.isdigit()), default=0)

    assert took < 120
    assert status not in (0, 143)
    told = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, err
    assert "another process" in told[0], err
    assert "goes on from the last checkpoint" in told[0]

    argv = (*argv, f"--config.steps={saved + 3}")
    ends = [commands.finish(x) for x in processes(tmp_path, cache, *argv, devices=1)]
    assert [status for status, _, _ in ends] == [0, 0], ends
    assert f"step {saved} of {saved + 3}" in ends[0][1]
    assert list(commands.figures(tmp_path, "loss")) == list(range(1, saved + 4))


def test_a_mistake_of_all_processes_is_told_by_each(tmp_path, cache):
    argv = ("--config.data.dataset=none", f"--config.data.dir={tmp_path}")
    for status, _, err in map(commands.finish, processes(tmp_path, cache, *argv)):
        assert status == 1
        assert err.splitlines()[-1].startswith(f"error: {tmp_path}/none is not there")


def test_two_processes_evaluate_and_predict_as_one_does(alone, tmp_path, cache):
    """Five and three images over batches of eight and four: some rows are padding."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(3):
        image = rng.integers(0, 256, (40 + i, 50, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"in/{i}.png"), image)
    predict = (f"--input={tmp_path}/in", "--min_score=0")
    evaluate = ("--set=data.eval_images=5",)
    variables = {**cache, **TESTS}
    for name, argv in (("predict", predict), ("evaluate", evaluate)):
        command = ("-c", COMMAND.format(name))
        one, two = (f"--output={tmp_path}/{name}{n}" for n in (1, 2))
        whole = (*command, "--workdir", str(alone), *argv, one)
        status, _, err = commands.run(*whole, **variables)
        assert status == 0, err
        started = processes(alone, variables, *argv, two, devices=1, command=command)
        ends = [commands.finish(process) for process in started]
        assert [status for status, _, _ in ends] == [0, 0], ends
        assert "written to" in ends[0][1] or "3 images" in ends[0][1]
        said = [line for line in ends[1][1].splitlines() if "[Gloo]" not in line]
        assert not said

    assert len(list((tmp_path / "predict2/drawings").iterdir())) == 3
    for file, images in (
        ("predict{}/poses.json", 3),
        ("evaluate{}/detections.json", 5),
    ):
        ours, theirs = (
            json.loads((tmp_path / file.format(n)).read_text()) for n in (1, 2)
        )
        numbers = [item["image_id"] for item in ours]
        assert numbers == [item["image_id"] for item in theirs]
        assert len(set(numbers)) == images
        assert min(numbers) >= 0
        for item, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(item["keypoints"], other["keypoints"], atol=0.01)
    ours, theirs = (
        json.loads((tmp_path / f"evaluate{n}/metrics.json").read_text()) for n in (1, 2)
    )
    assert ours["AP"] == pytest.approx(theirs["AP"])
    assert ours["protocol"] == theirs["protocol"]
