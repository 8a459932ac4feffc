"""Whether OASNet's parts help where joints are occluded (its Table 5 and Figure 6).

    python -m studies.mimicry --photographs DIR [--seeds 0,1,2]
        [--workdir runs/study-mimicry] [--output docs/mimicry.md]

Trains the rows of configs/study_mimicry.py with each seed on the built-in crowd and on
the crops of LSP Extended, which DIR has (studies/crops.py), and writes the page: mean
and spread, and every seed as it came out. Runs whose figures are kept beside the page
are not repeated, so the command goes on where it was stopped.
"""

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from configs import common
from configs import study_mimicry as systems
from occjax.runtime import cli
from studies import command, covered, crops, imitation, kept, runs

FLAGS = flags.FLAGS
NAMES = {
    "plain": "baseline, without patches",
    "patches": "baseline, with patches",
    "reconstruct": "+ reconstruction",
    "erase": "+ erasing",
    "transport": "+ mimicry by optimal transport (OASNet)",
    "l2": "+ mimicry by L2 instead",
    "cosine": "+ mimicry by cosine instead",
    "kl": "+ mimicry by KL instead",
}
CROWD = ("AP", "AP75", "occluded joints", "visible joints")
MIMICRY = ("transport", "l2", "cosine", "kl")

INTRODUCTION = """# OASNet's parts one by one

Made by `python -m studies.mimicry --photographs DIR`. With each seed a plain network is
trained from scratch for {crowd[0]} steps on the crowd, {lsp[0]} on photographs; all
rows go on from it for {crowd[1]} and {lsp[1]} steps of 32 views: 32 crops, or 16 both
with and without patches. No network has converged after so few. Per cent: mean and, in
brackets, lowest and highest of the seeds {seeds}.
"""
CROWD_TEXT = """
## The built-in crowd

{test} unseen scenes of two or three people; {occluded} occluded and {visible} visible
joints. Joints are found if their OKS is 0.75 or more, those of people without a
detection counting as missed.
"""
PHOTOGRAPHS_TEXT = """
## Photographs

3,200 crops of LSP Extended to train on, whose natural occlusion is not labelled;
PCK@0.2 of 600 others, as they are and with two to four patches of the same photograph
over joints ({occluded} joints covered, {visible} not).
"""
IMITATION_TEXT = """
## Imitation

Means of the seeds: the mimicry of the first and of the last tenth of training, and of
unseen crops with patches: to their own clean twin, and to that of another crop.
"""


def define_flags() -> None:
    """Declares the command's flags."""
    command.define_flags("mimicry", photographs="the crops: images/, annotations/")


def main(argv: Sequence[str]) -> None:
    """Trains what is missing and writes the page."""
    del argv
    datasets = pathlib.Path(FLAGS.workdir) / "datasets"
    folder = command.photographs()
    runs.render(datasets, "ordinary", dict(common.CROWD), systems.SCENES)
    crops.prepare(folder, datasets)
    covered.prepare(folder, datasets)
    figures = kept.Figures(FLAGS.output)
    results: dict[str, dict[str, list]] = {
        name: {row: [] for row in NAMES} for name in systems.SETS
    }
    for seed in FLAGS.seeds:  # whole comparisons first, should the study be stopped
        for name, rows in results.items():
            for row, scores in rows.items():
                scores.append(measured(figures, name, row, int(seed)))
    pathlib.Path(FLAGS.output).write_text(page(results), encoding="utf-8")
    print(f"written: {FLAGS.output}")


def measured(figures: kept.Figures, name: str, row: str, seed: int) -> dict[str, Any]:
    """Figures of a row of a set, trained if they are not kept yet.

    Returns:
        `shares` by column, `joints` that are occluded and visible and, of rows with
        mimicry, `imitation`.
    """
    config, base = (systems.get_config(f"{name}_{one}") for one in (row, "base"))

    def measure() -> dict[str, Any]:
        train(name, "base", seed)
        run = train(name, row, seed)
        found = MEASURES[name](run)
        if row in MIMICRY:
            found["imitation"] = imitation.measure(run)
        return found

    both = ConfigDict({"row": config, "base": base})
    return figures.of(f"{name}-{row}-{seed}", both, measure)


def train(name: str, row: str, seed: int) -> pathlib.Path:
    """Trains a row, if that is not done yet; gives its folder."""
    workdir = pathlib.Path(FLAGS.workdir)
    settings: dict[str, Any] = {"seed": seed, "data__dir": workdir / "datasets"}
    if row != "base":
        settings["init_from"] = (
            f"{workdir}/{name}-base-{seed}:^(trunk|head|repair/read)/"
        )
    config = f"configs/study_mimicry.py:{name}_{row}"
    return runs.train(config, workdir / f"{name}-{row}-{seed}", **settings)


def on_crowd(run: pathlib.Path) -> dict[str, Any]:
    """Figures of the unseen scenes."""
    found = runs.score(run, f"{FLAGS.workdir}/datasets", "ordinary")
    joints = found["occlusion"]["joints"]["all"]
    shares = (found["AP"], found["AP75"], joints["Inv75"], joints["V75"])
    return {
        "shares": dict(zip(CROWD, shares, strict=True)),
        "joints": {key: joints[key] for key in ("occluded", "visible")},
    }


def on_photographs(run: pathlib.Path) -> dict[str, Any]:
    """Figures of the test crops, as they are and with patches."""
    found = covered.pck(run)
    joints = found[covered.SPLIT]
    return {
        "shares": {words: read(found) for words, read in covered.COLUMNS.items()},
        "joints": {key: joints[key]["count"] for key in ("occluded", "visible")},
    }


MEASURES = {"crowd": on_crowd, "lsp": on_photographs}


def page(results: Mapping[str, Mapping[str, Sequence[dict[str, Any]]]]) -> str:
    """The study as a Markdown page."""
    lines = [INTRODUCTION.format(**systems.STEPS, seeds=", ".join(FLAGS.seeds))]
    texts = CROWD_TEXT, PHOTOGRAPHS_TEXT
    for rows, text in zip(results.values(), texts, strict=True):
        first = next(iter(rows.values()))[0]
        lines.append(text.format(**first["joints"], test=systems.SCENES["test"]))
        shares = {
            NAMES[row]: [list(one["shares"].values()) for one in scores]
            for row, scores in rows.items()
        }
        lines += runs.tables(tuple(first["shares"]), shares, FLAGS.seeds)
    lines += [
        IMITATION_TEXT,
        "| | mimicry | start | end | own twin | another's twin |",
        "|---|---|---|---|---|---|",
    ]
    for name, rows in results.items():
        for row in MIMICRY:
            found = [one["imitation"].values() for one in rows[row]]
            means = [statistics.mean(values) for values in zip(*found, strict=True)]
            cells = " | ".join(f"{value:.3g}" for value in means)
            lines.append(f"| {name} | {row} | {cells} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    define_flags()
    cli.run(main)
