"""Datasets and trainings of studies, made once; tables over their seeds, and plots."""

import functools
import io
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from data_prep import crowd
from occjax.data import sources
from occjax.errors import UserError
from occjax.evaluation import coco, protocols, report


def prepared(out: pathlib.Path, name: str, split: str) -> bool:
    """Whether a folder of datasets has a split."""
    try:
        return bool(len(sources.load({"dir": str(out), "dataset": name}, split)))
    except UserError:
        return False


def render(
    out: pathlib.Path, name: str, options: Mapping[str, Any], scenes: Mapping[str, int]
) -> None:
    """Renders scenes of the built-in crowd, those splits that are not there yet.

    Args:
        out: folder of datasets to write to.
        name: of the dataset.
        options: of the crowd.
        scenes: how many of each split.
    """
    for split, number in scenes.items():
        if not prepared(out, name, split):
            count = {"num_scenes": number, "test_scenes": number}
            crowd.write(str(out), name, split, {**options, **count})


def train(config: str, workdir: pathlib.Path, **settings: Any) -> pathlib.Path:
    """Trains and scores, unless that is done already, and gives the run's folder.

    Args:
        config: as `--config` takes it.
        workdir: of the run.
        settings: of the config, such as seed=1; a dot is written as two underscores.

    Raises:
        subprocess.CalledProcessError: the training failed.
    """
    if not (workdir / "metrics.json").exists():
        command = [sys.executable, "-m", "occjax.train", f"--config={config}"]
        command += [f"--workdir={workdir}"]
        for key, value in settings.items():
            command.append(f"--config.{key.replace('__', '.')}={value}")
        subprocess.run(command, check=True)
    return workdir


def evaluate(run: pathlib.Path, output: pathlib.Path, **flags: str) -> pathlib.Path:
    """Scores a run, unless that is done already, and gives the folder of the figures.

    Args:
        run: folder of the run.
        output: folder to write to.
        flags: of `occjax.evaluate`, such as split="val".

    Raises:
        subprocess.CalledProcessError: the run cannot be scored.
    """
    if not (output / "metrics.json").exists():
        command = [sys.executable, "-m", "occjax.evaluate", f"--workdir={run}"]
        command += [f"--output={output}", "--noreport"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        subprocess.run(command, check=True)
    return output


def score(run: pathlib.Path, datasets: str, name: str) -> dict[str, Any]:
    """Metrics of the detections that stand in a folder, on a dataset's test split."""
    found = json.loads((run / "detections.json").read_text(encoding="utf-8"))
    truth, protocol = _truth(datasets, name)
    return report.score(truth, found, protocol, whole=True).metrics


@functools.cache
def _truth(datasets: str, name: str) -> tuple[dict, protocols.Protocol]:
    """Ground truth of a dataset's test split, and how it is scored."""
    source = sources.load({"dir": datasets, "dataset": name}, "test")
    return coco.ground_truth(source), report.protocol_of(name, source.skeleton)


def tables(
    columns: Sequence[str],
    shares: Mapping[str, Sequence[Sequence[float]]],
    seeds: Sequence[str],
) -> list[str]:
    """Two tables in Markdown: mean and range of the seeds, and every seed.

    Args:
        columns: what the shares are of.
        shares: by system, for each seed one of every column, as fractions.
        seeds: their names.
    """
    head, rule = " | ".join(columns), "---|" * len(columns)
    lines = [f"| system | {head} |", f"|---|{rule}"]
    for system, rows in shares.items():
        cells = " | ".join(map(spread, zip(*rows, strict=True)))
        lines.append(f"| {system} | {cells} |")
    lines += ["", "Every seed:", "", f"| system | seed | {head} |", f"|---|---|{rule}"]
    for system, rows in shares.items():
        for seed, row in zip(seeds, rows, strict=True):
            cells = " | ".join(f"{100 * share:.1f}" for share in row)
            lines.append(f"| {system} | {seed} | {cells} |")
    return lines


def spread(shares: Sequence[float]) -> str:
    """Mean of the seeds in per cent and, in brackets, lowest and highest."""
    values = [100 * share for share in shares]
    mean = statistics.mean(values)
    return f"{mean:.1f} ({min(values):.1f}-{max(values):.1f})"


def png(figure: Figure) -> bytes:
    """A drawing as a PNG file."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
