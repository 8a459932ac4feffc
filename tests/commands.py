"""Starts the project's commands as somebody at a terminal does."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
TINY = ("tests/tiny_train.py", "--config", "tests/tiny_method.py")
SECONDS = 600


def start(*argv: str, devices: int = 1, **variables: str) -> subprocess.Popen[str]:
    """Starts `python ARGV` in the repository, with so many CPU devices."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": str(ROOT),
        **variables,
    }
    return subprocess.Popen(
        [sys.executable, *argv],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def job(
    count: int, *argv: str, devices: int, **variables: str
) -> list[subprocess.Popen[str]]:
    """Starts `python ARGV` as so many processes of one job, with devices each."""
    if count == 1:
        return [start(*argv, devices=devices, **variables)]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    told = f"--coordinator=localhost:{port}", f"--num_processes={count}"
    return [
        start(*argv, *told, f"--process_id={i}", devices=devices, **variables)
        for i in range(count)
    ]


def wait_for_step(
    running: Sequence[subprocess.Popen[str]], folder: pathlib.Path, number: int
) -> None:
    """Returns once a run has logged so many steps; none of its processes may end."""
    end = time.monotonic() + SECONDS
    path = folder / "metrics.jsonl"
    while time.monotonic() < end:
        for process in running:
            assert process.poll() is None, process.communicate()
        if path.exists() and path.read_text().count('"loss"') >= number:
            return
        time.sleep(0.005)
    raise TimeoutError(f"no step {number} in {path}")


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a process that ends by itself."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out, err


def run(*argv: str, devices: int = 1, **variables: str) -> tuple[int, str, str]:
    """Runs `python ARGV` to its end."""
    return finish(start(*argv, devices=devices, **variables))


def figures(workdir: pathlib.Path, name: str) -> dict[int, Any]:
    """Step -> value of one figure of metrics.jsonl; a step must stand there once."""
    found: dict[int, Any] = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        if name in values:
            assert values["step"] not in found
            found[values["step"]] = values[name]
    return found


def mistake(module: str, arguments: Sequence[str], folder: pathlib.Path) -> str:
    """The one line in which a command says what is wrong with its arguments."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    return done.stderr
