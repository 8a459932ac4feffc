"""The training command of each launcher, for real, with CPU devices."""

import json
import re
import shlex
import sys

import pytest
from launchers import JOB_OF_SLURM, JOBSETS, dry_runs, free_port, pod_of, run


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}


def check_run(folder, processes, devices):
    found = json.loads((folder / "environment.json").read_text())
    assert found["processes"] == processes
    assert len(found["devices"]) == devices
    assert "AP" in json.loads((folder / "metrics.json").read_text())


@pytest.mark.slow
def test_local_trains_and_fails(tmp_path, cache):
    def local(config):
        command = ("occjax.train", "--config", config, "--workdir", str(tmp_path))
        return run("local.sh", "2", "2", "--", *command, PORT=free_port(), **cache)

    status, _, err = local("configs/pinet.py:smoke")
    assert status == 0, err
    assert "ended with status" not in err
    check_run(tmp_path, processes=2, devices=4)
    status, _, err = local("configs/nowhere.py")
    assert status == 1
    assert "process 1 of 2 ended with status 1\n[1] error: " in err


def arguments_of(name):
    """Environment and training flags of a launcher, as far as they fit any machine."""
    if name == "tpu_vm.sh":
        printed = dry_runs().partition("--dry-run resume")[2]
        return {}, shlex.split(re.findall(r"^set -- (.*)$", printed, re.M)[0])[:4]
    (container,) = pod_of(name)["containers"]
    assert container["args"][0] == "occjax.train"
    place = ("--coordinator", "--num_processes", "--process_id")
    flags = [x for x in container["args"][1:] if not x.startswith(place)]
    variables = {x["name"]: x["value"] for x in container["env"] if "value" in x}
    own = ("JAX_COORDINATOR_ADDRESS", "JAX_COMPILATION_CACHE_DIR")
    return {k: v for k, v in variables.items() if k not in own}, flags


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tpu_vm.sh", *JOBSETS])
def test_command_of_a_launcher_trains(tmp_path, cache, name):
    variables, flags = arguments_of(name)
    flags = [x.replace("configs/pinet.py", "configs/pinet.py:smoke") for x in flags]
    flags = [re.sub(r"/mnt/runs/[\w-]+", str(tmp_path), x) for x in flags]
    variables = {**variables, **cache, "PORT": free_port()}
    status, _, err = run(
        "local.sh", "2", "1", "--", "occjax.train", *flags, **variables
    )
    assert status == 0, err
    check_run(tmp_path, processes=2, devices=2)


@pytest.mark.slow
def test_slurm_trains(trace, cache):
    variables = {
        **JOB_OF_SLURM,
        **cache,
        "PORT": free_port(),
        "PYTHON": sys.executable,
        "CONFIG": "configs/pinet.py:smoke",
        "WORKDIR": str(trace / "run"),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
    }
    status, _, err = run("slurm.sbatch", **variables)
    assert status == 0, err
    check_run(trace / "run", processes=2, devices=2)
