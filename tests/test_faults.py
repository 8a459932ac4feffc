"""Jobs of several processes that are killed again and again, and go on as others."""

import json
import os
import signal
import time

import commands
import numpy as np
import pytest

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("OCCJAX_KILLS", "4"))  # by hand: 20
PATIENCE = 120  # seconds in which the loss of a process must end the others
# Plain gradient descent: Adam enlarges what rounding leaves of small gradients.
SGD = ("--config.optim.name=sgd", "--config.optim.lr=0.01")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}


def run(folder, cache, count, *argv):
    """Runs a job of `count` processes with eight devices in all to its end."""
    argv = (*argv, "--workdir", str(folder))
    found = commands.job(count, *argv, devices=8 // count, **cache)
    for status, _, err in map(commands.finish, found):
        assert status == 0, err
    return folder


def kept(folder):
    """Step of the last whole checkpoint."""
    place = folder / "checkpoints"
    names = [p.name for p in place.iterdir()] if place.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def logged(folder):
    """How many steps the log has; some of the last are not in a checkpoint."""
    log = folder / "metrics.jsonl"
    return log.read_text().count('"loss"') if log.exists() else 0


def test_a_job_that_is_killed_at_any_moment_loses_and_repeats_nothing(tmp_path, cache):
    steps = 25 * (KILLS + 1)
    argv = (*commands.TINY, f"--config.steps={steps}", f"--config.eval_every={steps}")
    argv = (*argv, "--config.checkpoint_every=3", *SGD)
    whole = run(tmp_path / "whole", cache, 2, *argv)
    folder, rng = tmp_path / "killed", np.random.default_rng()
    for number in range(KILLS):
        before = kept(folder)
        end = logged(folder) + int(rng.integers(1, 20))  # or it has not begun
        both = commands.job(2, *argv, "--workdir", str(folder), devices=1, **cache)
        commands.wait_for_step(both, folder, end)
        time.sleep(rng.uniform(0, 0.05))
        start = time.monotonic()
        if number % 2:
            for process in both:
                process.send_signal(signal.SIGTERM)
        else:
            both[rng.integers(2)].kill()
        ends = [commands.finish(process) for process in both]
        assert time.monotonic() - start < PATIENCE
        assert all(status for status, _, _ in ends), ends  # 143, or killed starting
        assert kept(folder) >= before
    run(folder, cache, 2, *argv)

    ours, theirs = (commands.figures(f, "loss") for f in (folder, whole))
    assert list(ours) == list(range(1, steps + 1))  # each step once
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-5)


def test_one_two_and_four_processes_learn_and_score_the_same(tmp_path, cache):
    argv = (*commands.TINY, "--config.steps=50", "--config.eval_every=50", *SGD)
    argv = (*argv, "--config.checkpoint_every=50", "--config.data.eval_images=11")
    folders = [run(tmp_path / str(n), cache, n, *argv) for n in (1, 2, 4)]
    losses = [list(commands.figures(f, "loss").values()) for f in folders]
    assert len(losses[0]) == 50
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-4)
    found = [json.loads((f / "detections.json").read_text()) for f in folders]
    scored = [json.loads((f / "metrics.json").read_text()) for f in folders]
    assert len(found[0]) == 11  # the rest of the second batch is padding
    for other, figures in zip(found[1:], scored[1:], strict=True):
        assert [x["image_id"] for x in other] == [x["image_id"] for x in found[0]]
        ours, theirs = ([x["keypoints"] for x in some] for some in (other, found[0]))
        np.testing.assert_allclose(ours, theirs, atol=0.05)
        for name in ("AP", "AP50", "AR"):
            assert figures[name] == pytest.approx(scored[0][name], abs=1e-9)


def test_four_processes_that_were_killed_go_on_as_two(tmp_path, cache):
    argv = (*commands.TINY, "--config.steps=50", "--config.eval_every=50", *SGD)
    argv = (*argv, "--config.checkpoint_every=5")
    whole = run(tmp_path / "whole", cache, 1, *argv)
    folder = tmp_path / "killed"
    four = commands.job(4, *argv, "--workdir", str(folder), devices=2, **cache)
    end = time.monotonic() + commands.SECONDS
    while kept(folder) < 10 and time.monotonic() < end:
        time.sleep(0.01)
    four[2].kill()
    for process in four:
        assert commands.finish(process)[0]
    run(folder, cache, 2, *argv)
    ours, theirs = (commands.figures(f, "loss") for f in (folder, whole))
    assert list(ours) == list(range(1, 51))
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-4)
