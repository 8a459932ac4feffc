"""Walks through every documented command, on a fresh clone and environment.

    python tests/walk.py --shared DIR [--log docs/walk.md]

Clones what is committed, installs as docs/install.md says, lays out files of the names
that the pages use (photographs and weights of DIR) and types what they say, one page
after the other. Trainings are cut to a few steps; what needs a machine that is not
there is left out, with the reason. The log is a page; a test holds it against what the
pages say now. With --keep PLACE, a walk that was stopped goes on there.
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import documents

# Each page uses what an earlier one made.
ORDER = (
    "install.md quickstart.md data.md weights.md training.md evaluation.md "
    "predicting.md new_method.md clusters.md README.md equivalence.md"
).split()
COMMANDS = re.compile(
    r"(python|make|pip|launch/|docker|kubectl|sbatch|\.venv/bin/pip)\b|python3\.11 "
)
LEFT_OUT = {
    r"\.py\[:VARIANT\]": "a pattern, not a command",
    r"^docker|^kubectl|^sbatch": "needs docker, a cluster or Slurm",
    r"tpu_vm\.sh (?!--dry-run)": "needs a Cloud TPU project",
    r'pip install -e "\.\[(cuda13|tpu)\]"': "needs the accelerator",
    r"^make (test|equivalence)": "run by itself, in the tests",
}
# What a documented training is cut to, as far as its config has it.
FULL = {
    "steps": 2,
    "optim.schedule.warmup": 1,
    "optim.schedule.at": "(1,)",
    "batch_size": 2,
}
SMALL = {"steps": 20, "optim.schedule.warmup": 10}
TESTED = {"data.eval_images": 4}
# What the papers' variants are called; the others are for two cores.
PAPERS = "coco coco_rescorer crowdpose ochuman ocpose mpii hourglass".split()
LAST = ("make train", "python -m occjax.train --config configs/pinet.py")  # at length
LONGER = (  # goes on
    "python -m occjax.train --config configs/pinet.py --config.steps=40 "
    "--config.optim.schedule.warmup=10"
)
# What pages leave to the reader, and trainings that are too long.
MEANT = {
    "evaluate ...": "evaluate --dataset coco --annotations A.json --detections D.json "
    "--output out",
    "HOST0": "localhost",
    "/shared/": "runs/shared-",
    "--config.steps=2000": "--config.steps=20",
    "--config.steps=9000": "--config.steps=40 --config.optim.schedule.warmup=10",
    "--exclude": "--name coco_apart --exclude",
}
# Runs that pages use and no command of theirs makes by its name.
RUNS = {
    "pinet": "",
    "hrnet": "",
    "oahpe": "",
    "ksnet": "--config.base=runs/oahpe ",
}
WELL = "ended well"


def commands(page: pathlib.Path) -> Iterator[str]:
    """What a page tells to type, in order and without comments."""
    for line in documents.code_of(page.read_text(encoding="utf-8")).lines:
        line = re.sub(r"\s+# .*", "", line).strip()
        if COMMANDS.match(line):
            yield re.sub(r"\s+", " ", line)


def all_commands() -> dict[str, list[str]]:
    """Page -> its commands; one that stands on several is the first one's."""
    seen: set[str] = set()
    found: dict[str, list[str]] = {}
    pages = {page.name: page for page in documents.PAGES}
    others = [name for name in pages if name not in ORDER and name != LOG]
    for name in (*ORDER, *others):
        mine = [line for line in commands(pages[name]) if line not in seen]
        seen.update(mine)
        # What is apart from CrowdPose needs CrowdPose.
        mine = sorted(dict.fromkeys(mine), key=lambda line: "--exclude" in line)
        if mine:
            found[name] = [line for line in mine if line not in LAST]
    return {**found, "At length": [line for line in LAST if line in seen]}


LOG = "walk.md"
HEAD = """# Every documented command, typed

Made by `python tests/walk.py --shared DIR`: what the pages say, typed in a fresh clone
with a fresh environment on two CPU cores, page by page. `with` are settings that cut a
training short, added to what the page says; `as` is what was typed instead. Seconds
are those of a machine that did other things as well."""


def left_out(line: str) -> str | None:
    """Why a command is not run, if it is not."""
    return next((why for x, why in LEFT_OUT.items() if re.search(x, line)), None)


def as_run(line: str) -> str:
    """The command as it is run here: cut short, and with what `...` stands for."""
    for said, meant in MEANT.items():
        line = line.replace(said, meant)
    if line == LAST[0]:
        return f"rm -rf runs/pinet; {line}"
    if re.search(r"evaluate --workdir runs/\w+-coco", line):
        return f"{line} --set=data.eval_images=4 --set=batch_size=2"
    match = re.search(r"occjax\.train --config configs/(\w+)\.py(?::(\w+))?", line)
    if match is None or line in (*LAST, LONGER):
        return line
    name, variant = match[1], match[2]
    if variant != "smoke":
        line = cut(line, name, variant)
    if "--workdir" in line or "opecnet-" in line:
        return line
    folder = f"runs/{name}-{variant}" if variant else f"runs/{name}"
    return f"rm -rf {folder}; {line}"  # other pages have other trainings there


def cut(line: str, name: str, variant: str | None) -> str:
    """The training with settings that make it short."""
    config = documents.loaded(f"configs/{name}.py" + (f":{variant}" if variant else ""))
    own = set(re.findall(r"--config\.([\w.]+)(?==)", line))
    wanted = {**(FULL if variant in PAPERS else SMALL), **TESTED}
    more = [
        shlex.quote(f"--config.{key}={value}")
        for key, value in wanted.items()
        if key not in own and (config is None or documents.has(config, key))
    ]
    return " ".join([line, *more])


def together(lines: list[str]) -> Iterator[str]:
    """Processes of one job are started together, the first ones in the background."""
    waiting: list[str] = []
    for line in lines:
        match = re.search(r"--num_processes=(\d+) --process_id=(\d+)", line)
        waiting.append(line)
        if match is None or int(match[2]) == int(match[1]) - 1:
            yield " & ".join(waiting)
            waiting = []


class Walk:
    """A clone, and the log of what was typed there."""

    def __init__(self, place: pathlib.Path) -> None:
        self.clone, self.log = place / "occjax", place / "typed.json"
        if self.log.exists():
            self.typed = json.loads(self.log.read_text())
            return
        self.typed = {}
        source = str(documents.ROOT)
        subprocess.run(["git", "clone", "-q", source, self.clone], check=True)

    def type(self, line: str) -> tuple[float, str]:
        """Seconds of a command and how it ended, if it has not been typed already."""
        if line not in self.typed or self.typed[line][1] != WELL:
            self.typed[line] = self._type(line)
            self.log.write_text(json.dumps(self.typed))
        return self.typed[line]

    def failed(self) -> list[str]:
        """Commands that did not end well."""
        return [line for line, (_, end) in self.typed.items() if end != WELL]

    def _type(self, line: str) -> tuple[float, str]:
        path = f"{self.clone}/.venv/bin:{os.environ['PATH']}"
        kept = ("HOME", "TMPDIR", "JAX_PLATFORMS")
        own = {name: os.environ[name] for name in kept if name in os.environ}
        print(f"$ {line}", flush=True)
        begun = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.clone,
            env={**own, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        took = time.monotonic() - begun
        said = [x for x in done.stdout.splitlines() if x.strip()]
        last = said[-1].split("\r")[-1].strip() if said else ""
        print(f"  {took:.0f} s, status {done.returncode}: {last}", flush=True)
        if not done.returncode:
            return took, WELL
        print("\n".join(f"  | {x}" for x in said[-12:]), flush=True)
        return took, f"FAILED: {last}"

    def page(self, lines: list[str]) -> Iterator[str]:
        """Types a page's commands; a line of the log for each."""
        for line in lines:
            if why := left_out(line):
                yield f"- `{line}`: left out, {why}"
        for line in together([x for x in lines if not left_out(x)]):
            took, end = self.type(" & ".join(map(as_run, line.split(" & "))))
            for one in line.split(" & "):
                ran = re.sub(r"^rm -rf \S+; ", "", as_run(one))
                more = f" with `{ran.removeprefix(one).strip()}`"
                more = more if ran.startswith(one) else f" as `{ran}`"
                yield f"- `{one}`: {took:.0f} s, {end}{more if ran != one else ''}"


def main() -> None:
    """Walks, and writes the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=pathlib.Path, required=True)
    parser.add_argument("--log", type=pathlib.Path, default=f"docs/{LOG}")
    parser.add_argument("--keep", type=pathlib.Path, help="a folder to work in")
    flags = parser.parse_args()
    walk = Walk(flags.keep or pathlib.Path(tempfile.mkdtemp()))
    rows: list[str] = []
    for name, lines in all_commands().items():
        rows += [f"\n## {name}\n", *walk.page(lines)]
        if name == "install.md":
            layout(walk, flags.shared.resolve())
        flags.log.write_text("\n".join([HEAD, *rows]) + "\n", encoding="utf-8")
    sys.exit("\n".join(["failed:", *walk.failed()]) if walk.failed() else 0)


def layout(walk: Walk, shared: pathlib.Path) -> None:
    """Files of the names that pages use, and the runs that they name."""
    script = pathlib.Path(__file__).with_name("walk_files.py")
    walk.type("python -m pip install -q -r requirements-dev.txt")
    walk.type(f"PYTHONPATH=tests:tests/data_prep python {script} {shared}")
    for name, more in RUNS.items():
        line = f"python -m occjax.train --config configs/{name}.py {more}"
        walk.type(cut(f"{line}--workdir runs/{name}", name, None))


if __name__ == "__main__":
    main()
