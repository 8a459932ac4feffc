"""Files of the launchers: linted, and of the right form."""

import pathlib
import re
import subprocess
import sys

import commands
import pytest
from launchers import JOBSETS, LAUNCH, PORT, SCRIPTS, load, pod_of


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
