#!/usr/bin/env bash
# occjax on a Cloud TPU slice of any size, which a queued resource asks for.
#
#     launch/tpu_vm.sh [--dry-run] COMMAND [--config.KEY=VALUE ...]
#
#     create    asks for the slice; it may be hours until `status` says ACTIVE
#     setup     puts this checkout's last commit on all workers and installs it
#     run       starts the training on all workers, in the background
#     status    state of the slice, and the end of every worker's log
#     resume    after preemption: a new slice, setup, run; run alone if it is ACTIVE
#     delete    gives the slice back
#
# --dry-run prints the gcloud commands. Flags after COMMAND go to occjax.train. `resume`
# leaves a training that runs alone, so cron may call `flock -n FILE launch/tpu_vm.sh resume`
# again and again; stop that when the run is done, or it is scored each time.
#
# A run goes on by itself from the last checkpoint in its workdir, so that has to outlive
# the slice, and every worker writes there. occjax does not write to gs:// itself: gcsfuse
# mounts BUCKET at MOUNT. Make the bucket with --enable-hierarchical-namespace and
# --uniform-bucket-level-access, where renaming a checkpoint's folder is one step; without,
# a worker that dies at that moment leaves half of one. A Filestore mounted at MOUNT does
# as well: set BUCKET="". config.batch_size must be a multiple of all chips. TPU7x and
# later are on GKE alone: see gke-tpu.yaml.
#
# To edit here or to set in the environment:
PROJECT="${PROJECT:-my-project}"
ZONE="${ZONE:-us-west4-a}"
NAME="${NAME:-occjax}"
TYPE="${TYPE:-v5litepod-16}"
VERSION="${VERSION:-v2-alpha-tpuv5-lite}"
SPOT="${SPOT:-yes}"                             # cheap, and may be preempted at any time
BUCKET="${BUCKET-my-bucket}"                    # without gs://, in the region of ZONE
MOUNT="${MOUNT:-/mnt/runs}"
CONFIG="${CONFIG:-configs/pinet.py}"
WORKDIR="${WORKDIR:-$MOUNT/pinet-tpu}"
# The coordinator's port: jax's own, 8482, is shut in the firewall rule of TPU slices.
PORT="${PORT:-8476}"
POLL="${POLL:-60}"                              # seconds between questions for the state

set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    sed -n '2,/^# To edit/{/^# To edit/d;s/^# \{0,1\}//p;}' launch/tpu_vm.sh >&2
    exit 2
}

# Prints words as a shell would want them.
show() {
    local word line="" quote="'\\''"
    for word in "$@"; do
        case "$word" in
            "" | *[!A-Za-z0-9_./:=@,+-]*) word="'${word//\'/$quote}'" ;;
        esac
        line+="${line:+ }$word"
    done
    printf '%s\n' "$line"
}

# Runs a command, or prints it.
go() {
    if [[ -n "$dry" ]]; then show "$@"; else "$@" 3>&-; fi
}

# Answer of a gcloud command; $1 where nothing is asked.
ask() {
    local instead="$1"
    shift
    if [[ -n "$dry" ]]; then
        show "$@" >&3
        printf '%s\n' "$instead"
    else
        "$@" 3>&-
    fi
}

where=("--project=$PROJECT" "--zone=$ZONE")
queued() { go gcloud compute tpus queued-resources "$1" "$NAME" "${where[@]}" "${@:2}"; }
workers() { go gcloud compute tpus tpu-vm ssh "$NAME" "${where[@]}" --worker=all "--command=$1"; }

state() {
    ask "$1" gcloud compute tpus queued-resources describe "$NAME" "${where[@]}" \
        "--format=value(state.state)"
}

create() {
    local more=()
    [[ "$SPOT" != yes ]] || more+=(--spot)
    # The scope lets gcsfuse write; the service account needs Storage Object User.
    queued create "--node-id=$NAME" "--accelerator-type=$TYPE" \
        "--runtime-version=$VERSION" --scopes=cloud-platform ${more[@]+"${more[@]}"}
}

# Run on each worker. The image's Python is too old, so uv brings one. The workers must
# not remember what is in the folder: they look for files that others have just written.
setup_command() {
    cat <<'END'
set -eu
mkdir -p occjax
tar -xzf occjax.tar.gz -C occjax
python3 -m pip install --quiet --upgrade --target uv uv
[ -x occjax-env/bin/python ] || uv/bin/uv venv --quiet --python 3.11 occjax-env
cd occjax
../uv/bin/uv pip install --quiet --python ../occjax-env/bin/python -r requirements.txt -e ".[tpu]"
END
    [[ -n "$BUCKET" ]] || return 0
    printf 'BUCKET=%q MOUNT=%q\n' "$BUCKET" "$MOUNT"
    cat <<'END'
if ! command -v gcsfuse >/dev/null; then
    key=/usr/share/keyrings/cloud.google.asc
    host=https://packages.cloud.google.com/apt
    curl -fsSL "$host/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] $host gcsfuse-$(lsb_release -cs) main" | sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get -qq update
    sudo apt-get -qq install gcsfuse
fi
sudo mkdir -p "$MOUNT"
sudo chown "$(id -u)" "$MOUNT"
mountpoint -q "$MOUNT" || gcsfuse --implicit-dirs --rename-dir-limit=100000 --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0 "$BUCKET" "$MOUNT"
END
}

setup() {
    local folder=/tmp/occjax
    [[ -n "$dry" ]] || folder="$(mktemp -d)"
    go git archive --format=tar.gz "--output=$folder/occjax.tar.gz" HEAD
    go gcloud compute tpus tpu-vm scp "$folder/occjax.tar.gz" "$NAME:occjax.tar.gz" \
        "${where[@]}" --worker=all
    workers "$(setup_command)"
    go rm -r "$folder"
}

# Run on each worker. jax learns the number of workers and its own from the metadata server.
# What is in the compilation cache is executed: let nobody else write to the bucket.
run_command() {
    printf 'set -eu\nADDRESS=%q CACHE=%q\n' "$1:$PORT" "$MOUNT/cache"
    printf 'set -- %s\n' "$(show --config "$CONFIG" --workdir "$WORKDIR" "${@:2}")"
    cat <<'END'
cd occjax
if [ -e ../occjax.pid ] && kill -0 "$(cat ../occjax.pid)" 2>/dev/null; then
    echo "$(hostname): runs already"
    exit 0
fi
export JAX_COORDINATOR_ADDRESS="$ADDRESS" JAX_COMPILATION_CACHE_DIR="$CACHE" JAX_PLATFORMS=tpu,cpu
nohup ../occjax-env/bin/python -m occjax.train "$@" </dev/null >>../occjax.log 2>&1 &
echo $! >../occjax.pid
END
}

run() {
    local address
    address="$(ask WORKER_0_ADDRESS gcloud compute tpus tpu-vm describe "$NAME" \
        "${where[@]}" "--format=value(networkEndpoints[0].ipAddress)")"
    workers "$(run_command "$address" "$@")"
}

status_command() {
    cat <<'END'
if kill -0 "$(cat occjax.pid 2>/dev/null)" 2>/dev/null; then
    echo "$(hostname): runs"
else
    echo "$(hostname): does not run"
fi
[ ! -e occjax.log ] || tail -n 5 occjax.log
END
}

status() {
    local now
    now="$(state ACTIVE)"
    [[ -n "$dry" ]] || printf '%s: %s\n' "$NAME" "$now"
    [[ "$now" == ACTIVE ]] || return 0
    workers "$(status_command)"
}

delete() { queued delete --force --quiet; }

resume() {
    local now
    now="$(state SUSPENDED)"
    case "$now" in
        ACTIVE) ;;
        SUSPENDED | FAILED)
            delete
            create
            until now="$(state ACTIVE)" && [[ "$now" == ACTIVE ]]; do
                if [[ "$now" == FAILED ]]; then
                    printf '%s: FAILED again\n' "$NAME" >&2
                    exit 1
                fi
                sleep "$POLL"
            done
            setup
            ;;
        *)
            printf '%s: %s, try again later\n' "$NAME" "$now" >&2
            exit 1
            ;;
    esac
    run "$@"
}

exec 3>&1 # where a dry run prints questions whose answers are caught
dry=""
if [[ "${1:-}" == --dry-run ]]; then
    dry=yes
    shift
fi
case "${1:-}" in
    create | setup | status | delete) [[ $# -eq 1 ]] || usage ;;
    run | resume) ;;
    *) usage ;;
esac
"$@"
