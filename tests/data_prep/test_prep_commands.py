import os
import pathlib
import signal
import time

import commands
import killing
import pytest

CROWD = ("-m", "data_prep.crowd", "--size", "64", "--out")


@pytest.mark.slow
def test_a_command_writes_with_several_processes_and_says_what_became_of_all(tmp_path):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    scenes = ("--scenes", "501")
    assert commands.run(*CROWD, one, *scenes, "--workers", "0")[0] == 0
    status, out, err = commands.run(*CROWD, two, *scenes, "--workers", "2")
    assert (status, err) == (0, "")  # no progress bar without a terminal
    assert "images    in      501  kept      501" in out
    assert killing.files(tmp_path / "one") == killing.files(tmp_path / "two")
    status, out, _ = commands.run(*CROWD, two, *scenes)
    assert status == 0
    assert out.startswith("there is nothing to do\n")


@pytest.mark.slow
@pytest.mark.parametrize("first", ["all", "workers"])
def test_ctrl_c_stops_all_processes_with_one_line_and_the_next_run_goes_on(
    tmp_path, first
):
    out = tmp_path / "out"
    arguments = (*CROWD, str(out), "--scenes", "1501", "--workers", "2")
    process = commands.start(*arguments)
    stage = out / "crowd_scenes" / "incomplete.train"
    while not list(stage.glob("*.done.json")):
        assert process.poll() is None
        time.sleep(0.05)
    workers = children(process.pid)
    # A terminal tells all, but the workers may be gone before the command hears of it.
    for number in workers if first == "workers" else (process.pid, *workers):
        os.kill(number, signal.SIGINT)
    status, said, err = commands.finish(process)
    assert_gone(workers)
    assert status == 130, err
    assert err == "stopped; the same command goes on where it was\n"
    assert said == ""
    status, said, err = commands.run(*arguments)
    assert status == 0, err
    assert "goes on: " in said


def children(parent: int) -> list[int]:
    """Processes that a process has started."""
    path = pathlib.Path(f"/proc/{parent}/task/{parent}/children")
    if not path.exists():
        pytest.skip("this system does not list the children of a process")
    return [int(number) for number in path.read_text().split()]


def alive(number: int) -> bool:
    """Whether a process is there, and not only for its parent to ask about."""
    try:
        state = pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] != "Z"


def assert_gone(numbers: list[int]) -> None:
    """Makes sure that there were such processes and that they end soon."""
    assert numbers
    for _ in range(200):
        if not any(map(alive, numbers)):
            return
        time.sleep(0.05)
    raise AssertionError(f"still alive: {[n for n in numbers if alive(n)]}")


@pytest.mark.slow
def test_workers_end_with_a_killed_parent(tmp_path):
    out = tmp_path / "out"
    process = commands.start(*CROWD, str(out), "--scenes", "1501", "--workers", "2")
    stage = out / "crowd_scenes" / "incomplete.train"
    while not list(stage.glob("*.done.json")):
        assert process.poll() is None
        time.sleep(0.05)
    workers = children(process.pid)
    process.kill()
    process.communicate()
    assert_gone(workers)


def test_mistakes_on_the_command_line_are_one_line_each(tmp_path):
    for said, *wrong in (
        ("--name: 'a/b' is no word", "--name", "a/b"),
        ("needs Apache Beam", "--beam_runner", "DirectRunner"),
    ):
        status, _, err = commands.run(*CROWD, str(tmp_path), *wrong)
        if said == "needs Apache Beam" and not status:
            continue  # it is installed
        assert status == 1
        assert err.count("\n") == 1
        assert said in err


def test_help_names_the_common_flags():
    out = commands.run("-m", "data_prep.crowd", "--help")[1]
    for flag in ("--out", "--workers", "--beam_runner", "--beam_options"):
        assert flag in out
    assert "--exclude" not in out  # rendered scenes are in no other dataset
