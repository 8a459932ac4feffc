"""Whether OASNet's parts help where joints are occluded (its Table 5 and Figure 6).

    python -m studies.mimicry --photographs DIR [--seeds 0,1,2]
        [--workdir runs/study-mimicry] [--output docs/mimicry.md]

Trains the rows of configs/study_mimicry.py with each seed on the built-in crowd and on
the crops of LSP Extended, which DIR has (studies/crops.py), and writes the page: mean
and spread, and every seed as it came out. Finished runs are not repeated, so the
command goes on where it was stopped.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from configs import common
from configs import study_mimicry as systems
from occjax.runtime import cli
from studies import command, covered, crops, imitation, runs

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
CROWD: dict[str, Callable[[dict], float]] = {
    "AP": lambda m: m["AP"],
    "AP75": lambda m: m["AP75"],
    "occluded joints": lambda m: m["occlusion"]["joints"]["all"]["Inv75"],
    "visible joints": lambda m: m["occlusion"]["joints"]["all"]["V75"],
}

INTRODUCTION = """# OASNet's parts one by one

Made by `python -m studies.mimicry --photographs DIR`. With each seed a plain network is
trained from scratch for {crowd[0]} steps on the crowd, {lsp[0]} on photographs; all
rows go on from it for {crowd[1]} and {lsp[1]} steps of 32 views: 32 crops, or 16 both
with and without patches. Per cent: mean and, in brackets, lowest and highest of the
seeds {seeds}.
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
over joints ({covered} joints covered, {free} not).
"""
IMITATION_TEXT = """
## Imitation

The mimicry of the first seed's trainings, mean of the first and of the last tenth of
their steps, and of unseen crops with patches: to their own clean twin, and to that of
another crop.
"""


def define_flags() -> None:
    """Declares the command's flags."""
    command.define_flags("mimicry", photographs="the crops: images/, annotations/")


def main(argv: Sequence[str]) -> None:
    """Trains what is missing and writes the page."""
    del argv
    datasets = pathlib.Path(FLAGS.workdir) / "datasets"
    folder, measures = command.photographs(), {"crowd": on_crowd, "lsp": covered.pck}
    runs.render(datasets, "ordinary", dict(common.CROWD), systems.SCENES)
    crops.prepare(folder, datasets)
    covered.prepare(folder, datasets)
    results: dict[str, dict[str, list]] = {
        name: {row: [] for row in NAMES} for name in measures
    }
    for seed in FLAGS.seeds:  # whole comparisons first, should the study be stopped
        for name, rows in results.items():
            train(name, "base", int(seed))
            for row, scores in rows.items():
                scores.append(measures[name](train(name, row, int(seed))))
    lines = [page(results), *imitations(pathlib.Path(FLAGS.workdir), tuple(results))]
    text = "\n".join(lines) + "\n"
    pathlib.Path(FLAGS.output).write_text(text, encoding="utf-8")
    print(f"written: {FLAGS.output}")


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
    return runs.score(run, f"{FLAGS.workdir}/datasets", "ordinary")


def imitations(workdir: pathlib.Path, sets: Sequence[str]) -> list[str]:
    """A table of how the features of both views came together, by set and mimicry."""
    lines = [
        IMITATION_TEXT,
        "| | mimicry | start | end | own twin | another's twin |",
        "|---|---|---|---|---|---|",
    ]
    for name in sets:
        for row in ("transport", "l2", "cosine", "kl"):
            found = imitation.measure(workdir / f"{name}-{row}-{FLAGS.seeds[0]}")
            cells = " | ".join(f"{value:.3g}" for value in found.values())
            lines.append(f"| {name} | {row} | {cells} |")
    return lines


def page(results: dict[str, dict[str, list]]) -> str:
    """The study as a Markdown page."""
    seeds = ", ".join(FLAGS.seeds)
    text = INTRODUCTION.format(**systems.STEPS, seeds=seeds)
    lines = [text]
    for name, rows in results.items():
        first = next(iter(rows.values()))[0]
        if name == "crowd":
            figures, joints = CROWD, first["occlusion"]["joints"]["all"]
            lines.append(CROWD_TEXT.format(**joints, test=systems.SCENES["test"]))
        else:
            figures, joints = covered.COLUMNS, first[covered.SPLIT]
            hidden, free = (joints[k]["count"] for k in ("occluded", "visible"))
            lines.append(PHOTOGRAPHS_TEXT.format(covered=hidden, free=free))
        shares = {
            NAMES[row]: [[f(one) for f in figures.values()] for one in scores]
            for row, scores in rows.items()
        }
        lines += runs.tables(tuple(figures), shares, FLAGS.seeds)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    define_flags()
    cli.run(main)
