"""Launchers: linted, of the right form, and run as far as one machine can.

`python tests/test_launch.py >tests/launch_dry_run.txt` stores what dry runs print.
"""

import json
import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import time

import commands
import pytest
import yaml

LAUNCH = commands.ROOT / "launch"
STORED = pathlib.Path(__file__).with_name("launch_dry_run.txt")
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
# Stands where python should: notes what it got, then does what its module is called.
PYTHON = """\
id="${*: -1}" id="${SLURM_PROCID:-${id#--process_id=}}"
note() {
    { env; printf 'argument=%s\\n' "$@"; } >"$TRACE/.$id"
    mv "$TRACE/.$id" "$TRACE/$id"
}
forever() { while :; do sleep 0.05; done; }
case "$2" in
    ends) note "$@"; echo "output of $id" ;;
    fails) note "$@"; ((id != 1)) || { echo why; exit 3; }; forever ;;
    stubborn) trap '' TERM; note "$@"; ((id != 1)) || exit 3; forever ;;
    stops) trap 'exit 143' TERM; note "$@"; forever ;;
    *) note "$@"; exit "${STATUS:-0}" ;;
esac
"""
SRUN = """\
while [[ "$1" == --* ]]; do shift; done
export SLURM_STEP_NODELIST=localhost SLURM_STEP_NUM_TASKS="$SLURM_NTASKS"
for ((i = 0; i < SLURM_NTASKS; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
    tasks[i]=$!
done
for task in "${tasks[@]}"; do
    wait "$task" || status=$?
done
exit "${status:-0}"
"""
SCONTROL = """\
if [[ "$1" == show ]]; then echo localhost; else echo "$@" >>"$TRACE/scontrol"; fi
"""
# Two workers are folders of $TRACE. A new slice is ACTIVE at once.
GCLOUD = """\
printf '%s ' "${@:3:2}" >>"$TRACE/calls"
case "$3 $4" in
    "queued-resources describe") cat "$TRACE/state" ;;
    "queued-resources create") echo ACTIVE >"$TRACE/state" ;;
    "tpu-vm describe") echo 10.0.0.2 ;;
    "tpu-vm scp") for i in 0 1; do cp "$5" "$TRACE/worker-$i/${6#*:}"; done ;;
    "tpu-vm ssh")
        for word in "$@"; do
            case "$word" in --command=*) command="${word#--command=}" ;; esac
        done
        for i in 0 1; do
            (cd "$TRACE/worker-$i" && SLURM_PROCID=$i bash -c "$command")
        done ;;
esac
"""
# `python3 -m pip install ... uv` of a worker, and what uv then does.
PIP = """\
mkdir -p uv/bin && cat >uv/bin/uv <<'END'
#!/usr/bin/env bash
[[ "$1" == venv ]] || exit 0
mkdir -p occjax-env/bin
cp "$TRACE/python" occjax-env/bin/python
END
chmod +x uv/bin/uv
"""


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


@pytest.fixture
def trace(tmp_path, monkeypatch):
    """Folder where the stand-ins leave notes; those for commands come first in PATH."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name, text in (
        ("srun", SRUN),
        ("scontrol", SCONTROL),
        ("squeue", 'echo "${STATE:-RUNNING}"'),
        ("gcloud", GCLOUD),
        ("python3", PIP),
        ("sudo", 'exec "$@"'),
        ("mountpoint", "exit 1"),
        ("gcsfuse", 'echo "$@" >>"$TRACE/gcsfuse"'),
    ):
        executable(binaries / name, text)
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    monkeypatch.setenv("TRACE", str(tmp_path))
    monkeypatch.setenv("PYTHON", executable(tmp_path / "python", PYTHON))
    monkeypatch.setenv("LOGS", str(tmp_path / "logs"))
    return tmp_path


# The files


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_clean(name):
    path = str(LAUNCH / name)
    subprocess.run(["bash", "-n", path], check=True)
    linter = pathlib.Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([linter, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [*SCRIPTS, *JOBSETS, "Dockerfile"])
def test_one_port_named_at_the_top(name):
    text = (LAUNCH / name).read_text()
    named = re.findall(
        r'^PORT="\$\{PORT:-(\d+)\}"|^# Coordinator port: (\d+)', text, re.M
    )
    assert len(named) == 1
    assert PORT in named[0]
    body = re.sub(r"^\s*#.*", "", text, flags=re.M)
    ports = re.findall(r"\b8\d{3}\b", body)
    assert set(ports) == {PORT}
    if name in JOBSETS:
        assert len(ports) == 2  # the pod's, and the one that jax is told


def load(name):
    return yaml.safe_load((LAUNCH / name).read_text())


def pod_of(name):
    return load(name)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"][
        "spec"
    ]


def test_dockerfile_has_its_targets_and_no_root():
    stages, current = {}, []
    text = (LAUNCH / "Dockerfile").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = stages[name] = [*stages.get(base, []), ("FROM", base)]
        elif word and not word.startswith("#"):
            current.append((word, rest.strip()))
    for name in ("cpu", "cuda", "tpu"):
        words = dict(stages[name])  # the last of each
        assert words["USER"] == "1000:1000"
        assert words["ENTRYPOINT"] == '["python", "-m"]'
        assert words["HEALTHCHECK"] == "NONE"
        assert ("FROM", "python:3.11-slim") in stages[name]
        assert any(w == "RUN" and "-r requirements.txt" in x for w, x in stages[name])
    assert '".[cuda12]"' in dict(stages["cuda"])["RUN"]
    ignored = (commands.ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M)
    for path in " ".join(copied).split():
        assert (commands.ROOT / path).exists()
        assert f"!{path}" in ignored


# JobSets

# Field -> its fields, its type, or [the form of each item]; "?": it may be absent.
ENV = {"name": str, "value?": str, "valueFrom?": {"fieldRef": {"fieldPath": str}}}
USER = ("runAsUser?", "runAsGroup?")
CONTAINER = {
    "name": str,
    "image": str,
    "args": [str],
    "ports": [{"containerPort": int}],
    "env": [ENV],
    "resources": {"requests": dict, "limits": dict},
    "securityContext": {"allowPrivilegeEscalation": bool, "runAsUser?": int},
    "volumeMounts": [{"name": str, "mountPath": str}],
}
POD = {
    "restartPolicy": str,
    "terminationGracePeriodSeconds": int,
    "serviceAccountName": str,
    "nodeSelector": dict,
    "securityContext?": {**dict.fromkeys(USER, int), "runAsNonRoot": bool},
    "containers": [CONTAINER],
    "volumes": [
        {
            "name": str,
            "csi?": {"driver": str, "volumeAttributes": dict},
            "emptyDir?": {"medium": str, "sizeLimit": str},
        }
    ],
}
JOB = {
    "backoffLimit": int,
    "completionMode": str,
    "parallelism": int,
    "completions": int,
    "template": {"metadata": {"annotations": dict}, "spec": POD},
}
JOBSET = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "annotations?": dict},
    "spec": {
        "network": {"enableDNSHostnames": bool, "publishNotReadyAddresses": bool},
        "coordinator": {"replicatedJob": str, "jobIndex": int, "podIndex": int},
        "failurePolicy": {"maxRestarts": int},
        "replicatedJobs": [{"name": str, "replicas": int, "template": {"spec": JOB}}],
    },
}


def check(value, form, where="jobset"):
    if isinstance(form, type):
        assert type(value) is form, where
    elif isinstance(form, list):
        assert isinstance(value, list), where
        for i, item in enumerate(value):
            check(item, form[0], f"{where}[{i}]")
    else:
        assert isinstance(value, dict), where
        known = {name.rstrip("?") for name in form}
        assert set(value) <= known, f"{where}: {set(value) - known}"
        for name, inner in form.items():
            if name.rstrip("?") in value:
                check(value[name.rstrip("?")], inner, f"{where}.{name}")
            else:
                assert name.endswith("?"), f"{where}: no {name}"


@pytest.mark.parametrize("name", JOBSETS)
def test_jobset_has_the_form_of_one(name):
    jobset = load(name)
    check(jobset, JOBSET)
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert jobset["kind"] == "JobSet"
    (workers,) = jobset["spec"]["replicatedJobs"]
    assert jobset["spec"]["coordinator"]["replicatedJob"] == workers["name"]
    job = workers["template"]["spec"]
    assert job["completionMode"] == "Indexed"
    assert job["parallelism"] == job["completions"]
    assert job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == 120
    (container,) = pod["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_tpu_jobset_has_a_process_for_each_host():
    pod = pod_of("gke-tpu.yaml")
    selector = pod["nodeSelector"]
    rows, columns = map(int, selector["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    job = load("gke-tpu.yaml")["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["completions"] * chips == rows * columns
    assert "cloud.google.com/gke-tpu-accelerator" in selector


def test_gpu_jobset_has_a_process_for_each_host():
    (container,) = pod_of("gke-gpu.yaml")["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    job = load("gke-gpu.yaml")["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert f"--num_processes={job['completions']}" in container["args"]
    names = [variable["name"] for variable in container["env"]]
    for argument in container["args"]:
        assert set(re.findall(r"\$\((\w+)\)", argument)) <= set(names)


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

JOB_OF_SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "localhost",
    "SLURM_NTASKS": "2",
}


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


# For real, with CPU devices


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


if __name__ == "__main__":
    sys.stdout.write(dry_runs())
