"""What tests of the launchers share: their names, their files, and how they start.

`PYTHONPATH=tests python tests/launch/launchers.py` prints what dry_run.txt beside it
holds: the text of dry runs.
"""

import os
import pathlib
import shlex
import socket
import subprocess
import sys
import time

import commands
import yaml

LAUNCH = commands.ROOT / "launch"
STORED = pathlib.Path(__file__).with_name("dry_run.txt")
PORT = "8476"
SCRIPTS = ("local.sh", "tpu_vm.sh", "slurm.sbatch")
JOBSETS = ("gke-tpu.yaml", "gke-gpu.yaml")
DRY_RUNS = (
    ({}, "create"),
    ({"SPOT": "no", "NAME": "big", "TYPE": "v6e-64"}, "create"),
    ({}, "setup"),
    ({"BUCKET": ""}, "setup"),
    ({}, "run", "--config.occlusion=({'name': 'mask_joints'},)"),
    ({}, "status"),
    ({}, "resume", "--config.steps=10"),
    ({}, "delete"),
)
JOB_OF_SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "localhost",
    "SLURM_NTASKS": "2",
}


def executable(path, text):
    path.write_text(f"#!/usr/bin/env bash\n{text}")
    path.chmod(0o755)
    return str(path)


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


def start(*argv, **variables):
    """Starts a launcher in the repository, without the tests' own settings of jax.

    Tests in the background ignore Ctrl-C, and bash cannot trap what it inherits as
    ignored.
    """
    ours = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    return subprocess.Popen(
        ["env", "--default-signal=INT", str(LAUNCH / argv[0]), *argv[1:]],
        cwd=commands.ROOT,
        env={**ours, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*argv, **variables):
    return commands.finish(start(*argv, **variables))


def wait_for(*paths):
    end = time.monotonic() + 30
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end, paths
        time.sleep(0.02)


def noted(path):
    """Environment and arguments of a process that PYTHON stood for."""
    lines = [x.split("=", 1) for x in path.read_text().splitlines() if "=" in x]
    arguments = [value for name, value in lines if name == "argument"]
    return dict(lines), arguments


def load(name):
    return yaml.safe_load((LAUNCH / name).read_text())


def pod_of(name):
    return load(name)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"][
        "spec"
    ]


def dry_runs():
    """What the dry runs of tpu_vm.sh print."""
    found = []
    plain = {"PATH": os.environ["PATH"]}
    for variables, *argv in DRY_RUNS:
        command = ["launch/tpu_vm.sh", "--dry-run", *argv]
        names = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
        done = subprocess.run(
            command,
            cwd=commands.ROOT,
            env={**plain, **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        assert not done.stderr
        found.append(f"$ {' '.join([*names, shlex.join(command)])}\n{done.stdout}\n")
    return "".join(found)


if __name__ == "__main__":
    sys.stdout.write(dry_runs())
