"""Launchers with stand-ins for everything that they start."""

import os
import re
import shlex
import signal
import subprocess

import commands
import pytest
from launchers import (
    JOB_OF_SLURM,
    LAUNCH,
    PORT,
    STORED,
    dry_runs,
    executable,
    noted,
    run,
    start,
    wait_for,
)

# local.sh


def test_local_tells_every_process_its_place(trace):
    status, out, err = run("local.sh", "3", "2", "--", "ends", "--x", "a b", PORT="5")
    assert status == 0, err
    assert out == "output of 0\n"
    for i in range(3):
        variables, arguments = noted(trace / str(i))
        place = ("--coordinator=localhost:5", "--num_processes=3", f"--process_id={i}")
        assert arguments == ["-m", "ends", "--x", "a b", *place]
        assert variables["JAX_PLATFORMS"] == "cpu"
        assert variables["JAX_NUM_CPU_DEVICES"] == "2"
        assert variables["JAX_CPU_COLLECTIVES_IMPLEMENTATION"] == "gloo"
    assert (trace / "logs/process-2.log").read_text() == "output of 2\n"


def test_local_stops_the_others_when_one_fails(trace):
    status, _, err = run("local.sh", "3", "1", "--", "fails", GRACE="1")
    assert status == 3
    assert "process 1 of 3 ended with status 3\n[1] why\n" in err
    assert err.count("ended with status 143") == 2


def test_local_kills_what_does_not_stop(trace):
    status, _, err = run("local.sh", "2", "1", "--", "stubborn", GRACE="0")
    assert status == 3
    assert "process 0 of 2 ended with status 137" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_local_passes_a_signal_on(trace, number):
    process = start("local.sh", "2", "1", "--", "stops")
    wait_for(trace / "0", trace / "1")
    process.send_signal(number)
    status, _, err = commands.finish(process)
    assert status == 143
    assert err.count("ended with status 143") == 2


@pytest.mark.parametrize("argv", [(), ("2", "2", "ends"), ("0", "2", "--", "ends")])
def test_local_explains_itself(argv):
    status, _, err = run("local.sh", *argv)
    assert status == 2
    assert "launch/local.sh PROCESSES DEVICES -- MODULE" in err


# tpu_vm.sh


def test_dry_runs_print_the_stored_text():
    assert dry_runs() == STORED.read_text()


def test_what_a_dry_run_prints_can_be_pasted():
    flag = "a 'quoted' $word\nof two lines"
    _, out, _ = run("tpu_vm.sh", "--dry-run", "run", flag)
    (word,) = (x for x in shlex.split(out) if x.startswith("--command="))
    script = word.removeprefix("--command=").partition("cd occjax")[0]
    again = subprocess.run(
        ["bash", "-c", script + 'printf %s "${@: -1}"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout == flag


def make_workers(trace, state):
    (trace / "state").write_text(f"{state}\n")
    for i in range(2):
        (trace / f"worker-{i}").mkdir()


def test_tpu_slice_resumes_after_preemption(trace):
    make_workers(trace, "SUSPENDED")
    flag = "--config.occlusion=({'name': 'mask_joints'},)"
    mount = trace / "a mount"
    status, _, err = run("tpu_vm.sh", "resume", flag, MOUNT=str(mount), POLL="0")
    assert status == 0, err
    wait_for(trace / "0", trace / "1")
    assert (trace / "calls").read_text().split() == (
        "queued-resources describe queued-resources delete queued-resources create "
        "queued-resources describe tpu-vm scp tpu-vm ssh tpu-vm describe tpu-vm ssh"
    ).split()
    assert (trace / "gcsfuse").read_text().count(f"my-bucket {mount}\n") == 2
    for i in range(2):
        assert (trace / f"worker-{i}/occjax/occjax/train.py").exists()
        variables, arguments = noted(trace / str(i))
        assert variables["JAX_COORDINATOR_ADDRESS"] == f"10.0.0.2:{PORT}"
        assert variables["JAX_COMPILATION_CACHE_DIR"] == f"{mount}/cache"
        assert arguments[:2] == ["-m", "occjax.train"]
        assert arguments[2:4] == ["--config", "configs/pinet.py"]
        assert arguments[4:] == ["--workdir", f"{mount}/pinet-tpu", flag]


def test_tpu_slice_runs_once(trace):
    make_workers(trace, "ACTIVE")
    for i in range(2):
        (trace / f"worker-{i}/occjax-env/bin").mkdir(parents=True)
        (trace / f"worker-{i}/occjax").mkdir()
        python = trace / f"worker-{i}/occjax-env/bin/python"
        executable(python, "echo hello; exec sleep 100")
    assert run("tpu_vm.sh", "run")[0] == 0
    pids = [int((trace / f"worker-{i}/occjax.pid").read_text()) for i in range(2)]
    try:
        wait_for(*(trace / f"worker-{i}/occjax.log" for i in range(2)))
        status, out, _ = run("tpu_vm.sh", "resume")
        assert status == 0
        assert out.count("runs already") == 2
        status, out, _ = run("tpu_vm.sh", "status")
        assert out.startswith("occjax: ACTIVE\n")
        assert out.count(": runs\n") == 2
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)


def test_tpu_slice_in_the_queue_is_left_alone(trace):
    make_workers(trace, "WAITING_FOR_RESOURCES")
    status, _, err = run("tpu_vm.sh", "resume")
    assert status == 1
    assert err == "occjax: WAITING_FOR_RESOURCES, try again later\n"
    assert (trace / "calls").read_text() == "queued-resources describe "


# slurm.sbatch


def test_slurm_starts_a_task_for_each_gpu(trace):
    text = (LAUNCH / "slurm.sbatch").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.M))
    assert options["ntasks-per-node"] == options["gres"].removeprefix("gpu:")
    assert options["signal"] == "TERM@120"
    assert "requeue" in options
    status, _, err = run("slurm.sbatch", "--config.steps=1", **JOB_OF_SLURM)
    assert status == 0, err
    for i in range(2):
        variables, arguments = noted(trace / str(i))
        assert variables["JAX_COORDINATOR_ADDRESS"] == f"localhost:{PORT}"
        assert variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] == ".9"
        assert arguments[:2] == ["-m", "occjax.train"]
        assert arguments[-1] == "--config.steps=1"
    assert not (trace / "scontrol").exists()


@pytest.mark.parametrize(
    ("ended", "state", "again"),
    [("143", "RUNNING", True), ("143", "COMPLETING", False), ("1", "RUNNING", False)],
)
def test_slurm_requeues_what_was_asked_to_stop(trace, ended, state, again):
    variables = {**JOB_OF_SLURM, "STATUS": ended, "STATE": state}
    assert run("slurm.sbatch", **variables)[0] == int(ended)
    assert (trace / "scontrol").exists() == again
