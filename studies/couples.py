"""Whether OPEC-Net and CoupleGraph correct poses of entangled people (Tables 2, 5, 6).

    python -m studies.couples [--seeds 0,1,2] [--workdir runs/study-couples]
        [--output docs/couples.md]

Trains the systems of configs/study_couples.py with each seed, scores them on the same
unseen scenes of two people and writes the page: mean and spread, and every seed as it
came out. Finished runs are not repeated, so the command goes on where it was stopped.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from configs import study_couples as systems
from occjax.runtime import cli
from studies import command, runs

FLAGS = flags.FLAGS
NAMES = {  # each after what it starts from
    "base": "base network",
    "opec": "+ OPEC-Net",
    "couple": "+ OPEC-Net + CoupleGraph",
    "opec_sure": "OPEC-Net, sure limbs kept",
    "couple_sure": "CoupleGraph, sure limbs kept",
    "couple_apart": "CoupleGraph without edges between the two",
    "no_image": "OPEC-Net (a) without image guidance",
    "one_stage": "OPEC-Net (b) not progressive: one stage",
    "last_pose": "OPEC-Net (b) not progressive: only the last stage answers",
    "one_scale": "OPEC-Net (c) the finest map alone",
    "no_adaption": "OPEC-Net (d) no feature adaption",
    "no_fusion": "OPEC-Net (e) adaption without fusion",
    "longer": "base network, trained on with couples for as long as OPEC-Net",
    "opec_long": "OPEC-Net, trained three times as long",
}
SURE = {"opec_sure": "opec", "couple_sure": "couple"}  # as the released code decides
COLUMNS: dict[str, Callable[[dict], float]] = {
    "AP": lambda m: m["AP"],
    "AP50": lambda m: m["AP50"],
    "AP75": lambda m: m["AP75"],
    "Inv@75": lambda m: m["occlusion"]["joints"]["matched"]["Inv75"],
    "V@75": lambda m: m["occlusion"]["joints"]["matched"]["V75"],
    "Inv@75 of all": lambda m: m["occlusion"]["joints"]["all"]["Inv75"],
    "V@75 of all": lambda m: m["occlusion"]["joints"]["all"]["V75"],
}

INTRODUCTION = """# OPEC-Net and CoupleGraph on entangled people

Made by `python -m studies.couples`. The built-in crowd in OCPose's style: two people an
image, mean box IoU 0.47; {test} unseen scenes with {people} people, {occluded} occluded
and {visible} visible joints. The base network is trained from scratch for {base} steps
on ordinary scenes (two or three people, mean box IoU 0.29) whose hidden joints have no
labels, as most of COCO's have none; OPEC-Net corrects that base, frozen, with a head
trained for {head} steps on couples, all labelled, and CoupleGraph that for {couple}
more. All have annotated boxes. Per cent: mean and, in brackets, lowest and highest of
the seeds {seeds}. Inv and V judge joints of people with a detection of OKS 0.3 or more,
as the paper is read; `of all` counts the others as missed. Every limb is corrected,
but where sure ones are kept: those that the base scores {keep} or higher, as in the
released code.
"""


def define_flags() -> None:
    """Declares the command's flags."""
    command.define_flags("couples")


def main(argv: Sequence[str]) -> None:
    """Trains what is missing and writes the page."""
    del argv
    for name, options in systems.DATASETS.items():
        datasets = pathlib.Path(FLAGS.workdir) / "datasets"
        runs.render(datasets, name, options, systems.SCENES)
    results: dict[str, list[dict]] = {name: [] for name in NAMES}
    for seed in FLAGS.seeds:  # whole comparisons first, should the study be stopped
        for system, scores in results.items():
            scores.append(metrics(system, int(seed), pathlib.Path(FLAGS.workdir)))
    pathlib.Path(FLAGS.output).write_text(page(results), encoding="utf-8")
    print(f"written: {FLAGS.output}")


def metrics(name: str, seed: int, workdir: pathlib.Path) -> dict[str, Any]:
    """The metrics of one row with one seed, trained if it is not yet."""
    system = SURE.get(name, name)
    config, where = f"configs/study_couples.py:{system}", workdir / f"{system}-{seed}"
    datasets = str(workdir / "datasets")
    settings: dict[str, Any] = {"seed": seed, "data__dir": datasets}
    if system in systems.ABLATIONS:
        settings["init_from"] = f"{workdir}/base-{seed}:^(trunk|head)/"
    elif system in systems.COUPLES:
        settings["init_from"] = f"{workdir}/opec-{seed}"
    elif system == "longer":
        settings["init_from"] = f"{workdir}/base-{seed}"
    run = runs.train(config, where, **settings)
    if name == "base":  # its own test is of ordinary scenes
        run = runs.evaluate(run, run / "couples", set="data.dataset=couples")
    elif name not in (*SURE, "longer"):
        run = runs.evaluate(run, run / "all", set="model.keep_above=2.0")
    return runs.score(run, datasets, "couples")


def page(results: dict[str, list[dict]]) -> str:
    """The study as a Markdown page."""
    shares = {
        NAMES[system]: [[f(one) for f in COLUMNS.values()] for one in scores]
        for system, scores in results.items()
    }
    joints = next(iter(results.values()))[0]["occlusion"]["joints"]["all"]
    text = INTRODUCTION.format(
        **joints,
        test=systems.SCENES["test"],
        base=systems.BASE_STEPS,
        head=systems.HEAD_STEPS,
        couple=systems.COUPLE_STEPS,
        seeds=", ".join(FLAGS.seeds),
        keep=systems.get_config("opec").model.keep_above,
    )
    lines = [text, *runs.tables(tuple(COLUMNS), shares, FLAGS.seeds)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    define_flags()
    cli.run(main)
