"""Commands that stand in for those of clusters, and note what they were given."""

import os

import pytest
from launchers import executable

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
