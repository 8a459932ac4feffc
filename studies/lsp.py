"""Top-down baselines learn photographs from scratch: small crops, two cores, minutes.

    python -m studies.lsp --photographs DIR [--workdir runs/study-lsp]
        [--output docs/lsp.md]

DIR has the 3,800 crops of LSP Extended, see studies/crops.py. Each baseline of
configs/study_lsp.py is trained on 3,200 of them and scored by PCK on 600. A finished
training is not repeated.
"""

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from absl import flags
from matplotlib.figure import Figure

from occjax import files
from occjax.evaluation.screen import percent
from occjax.runtime import cli
from studies import command, crops, runs

FLAGS = flags.FLAGS
NAMES = {"simple_baseline": "SimpleBaseline", "hrnet": "HRNet"}


def define_flags() -> None:
    """Declares the command's flags."""
    command.define_flags(
        "lsp", photographs="the crops: images/, annotations/", seeds=False
    )


def main(argv: Sequence[str]) -> None:
    """Trains, and writes the page."""
    del argv
    workdir, output = pathlib.Path(FLAGS.workdir), pathlib.Path(FLAGS.output)
    crops.prepare(command.photographs(), workdir / "datasets")
    trained = {name: train(name, workdir) for name in NAMES}
    files.write_bytes(output.with_suffix(".png"), curves(trained))
    output.write_text(page(trained, output.stem), encoding="utf-8")
    print(f"written: {output}, {output.with_suffix('.png')}")


def train(name: str, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains and scores a baseline, unless that is done already.

    Returns:
        `minutes` on the clock with everything, `pck`, `parameters`, `curve`.
    """
    run = workdir / name
    if not (run / "minutes.json").exists():
        start = time.perf_counter()
        config = f"configs/study_lsp.py:{name}"
        runs.train(config, run, data__dir=workdir / "datasets")
        files.write_json(run / "minutes.json", (time.perf_counter() - start) / 60)
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "minutes": json.loads((run / "minutes.json").read_text(encoding="utf-8")),
        "config": json.loads((run / "config.json").read_text(encoding="utf-8")),
        "pck": json.loads((run / "metrics.json").read_text(encoding="utf-8"))["pck"],
        "curve": [json.loads(line) for line in lines],
    }


def curves(trained: dict[str, dict]) -> bytes:
    """Training loss and test PCK over the steps, as a PNG file."""
    figure = Figure((9, 3.2), layout="constrained")
    axes = figure.subplots(1, 2)
    for name, run in trained.items():
        for ax, key in zip(axes, ("loss", "test/PCK"), strict=True):
            points = [(row["step"], row[key]) for row in run["curve"] if key in row]
            ax.plot(*zip(*points, strict=True), label=NAMES[name], lw=1.5)
    axes[0].set(xlabel="step", ylabel="training loss", yscale="log")
    axes[1].set(xlabel="step", ylabel="PCK@0.2 of the test crops", ylim=(0, None))
    axes[1].legend()
    for ax in axes:
        ax.grid(alpha=0.3)
    return runs.png(figure)


def page(trained: dict[str, dict], stem: str) -> str:
    """The study as a Markdown page."""
    lines = [
        "# Top-down baselines on photographs, from scratch",
        "",
        "Made by `python -m studies.lsp --photographs DIR` on two CPU cores: the",
        "settings of `configs/study_lsp.py`, 3,200 crops of LSP Extended to train on,",
        "600 to test, annotated boxes, flip test; PCK@0.2 in per cent, the mean over",
        "all labelled joints of people whose torso is labelled. Minutes are on the",
        "clock, with compiling and all tests.",
        "",
        "| method | minutes | steps | all | head | shoulder | elbow | wrist | hip "
        "| knee | ankle |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, run in trained.items():
        figures = ("mean", "head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        cells = " | ".join(percent(run["pck"][figure]) for figure in figures)
        steps = run["config"]["steps"]
        lines.append(f"| {NAMES[name]} | {run['minutes']:.1f} | {steps} | {cells} |")
    return "\n".join([*lines, "", f"![Loss and PCK]({stem}.png)", ""])


if __name__ == "__main__":
    define_flags()
    cli.run(main)
