#!/usr/bin/env bash
# A pod in miniature: several processes on this machine, each with CPU devices of its own.
#
#     launch/local.sh PROCESSES DEVICES -- MODULE [ARGUMENT ...]
#     launch/local.sh 2 4 -- occjax.train --config configs/pinet.py:smoke --workdir runs/pod
#
# MODULE takes --coordinator, --num_processes and --process_id, as occjax.train does.
# Process 0 talks here; the others write to LOGS/process-N.log. The first process that
# fails gives the exit status; the others then have GRACE seconds to end by themselves.
# Ctrl-C and SIGTERM are passed on: a training run saves and ends with 143, and the same
# command goes on. A second signal kills.
#
# To edit here or to set in the environment:
PORT="${PORT:-8476}"               # of the coordinator; two runs at once need two
GRACE="${GRACE:-30}"               # seconds before SIGTERM, and again before SIGKILL
LOGS="${LOGS:-}"                   # folder; a new one in the temporary folder if empty
PYTHON="${PYTHON:-}"               # the checkout's .venv if empty, else python3

set -euo pipefail

usage() {
    sed -n '2,/^# To edit/{/^# To edit/d;s/^# \{0,1\}//p;}' "$0" >&2
    exit 2
}

[[ $# -ge 4 && "$3" == -- ]] || usage
[[ "$1" =~ ^[1-9][0-9]*$ && "$2" =~ ^[1-9][0-9]*$ ]] || usage
processes="$1"
devices="$2"
shift 3

if [[ -z "$PYTHON" ]]; then
    PYTHON="$(cd "$(dirname "$0")/.." && pwd)/.venv/bin/python"
    [[ -x "$PYTHON" ]] || PYTHON=python3
fi
if [[ -z "$LOGS" ]]; then
    LOGS="$(mktemp -d)"
fi
mkdir -p "$LOGS"

export JAX_PLATFORMS=cpu
export JAX_NUM_CPU_DEVICES="$devices"
export JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo
# More devices than cores: a device may wait for the others longer than the 40 s after
# which XLA would end the process.
export XLA_FLAGS="--xla_cpu_collective_call_terminate_timeout_seconds=600 ${XLA_FLAGS:-}"

pids=() # of the processes that have not ended
status=0
deadline="" # when those that are left are told to end
next=TERM   # how they are told

signal_all() {
    local i
    for ((i = 0; i < processes; i++)); do
        [[ -z "${pids[i]:-}" ]] || kill -"$1" "${pids[i]}" 2>/dev/null || true
    done
}

# shellcheck disable=SC2329 # the trap below calls it
pass_on() {
    trap 'signal_all KILL' HUP INT TERM
    signal_all TERM
}

# Notes how process $1 ended.
ended() {
    local code=0
    wait "${pids[$1]}" || code=$?
    unset "pids[$1]"
    ((code != 0)) || return 0
    printf 'process %s of %s ended with status %s\n' "$1" "$processes" "$code" >&2
    [[ "$1" == 0 ]] || tail -n 20 "$LOGS/process-$1.log" | sed "s/^/[$1] /" >&2
    if ((status == 0)); then
        status=$code
        deadline=$((SECONDS + GRACE))
    fi
}

trap 'signal_all KILL' EXIT
trap pass_on HUP INT TERM
for ((i = 0; i < processes; i++)); do
    command=("$PYTHON" -m "$@" "--coordinator=localhost:$PORT"
        "--num_processes=$processes" "--process_id=$i")
    if ((i == 0)); then
        "${command[@]}" &
    else
        "${command[@]}" >"$LOGS/process-$i.log" 2>&1 &
    fi
    pids[i]=$!
done

while ((${#pids[@]} > 0)); do
    for i in "${!pids[@]}"; do
        kill -0 "${pids[i]}" 2>/dev/null || ended "$i"
    done
    if [[ -n "$deadline" ]] && ((${#pids[@]} > 0 && SECONDS >= deadline)); then
        signal_all "$next"
        next=KILL
        deadline=$((SECONDS + GRACE))
    fi
    ((${#pids[@]} == 0)) || sleep 0.2
done
exit "$status"
