"""Whether parts, refinement and fusion help where people overlap (PINet, Table 1).

    python -m studies.parts [--seeds 0,1,2] [--steps N] [--workdir runs/study-parts]

Trains the three systems of configs/study_parts.py with each seed, scores them on the
same unseen scenes and writes docs/study-parts.md: mean and spread, and every seed as it
came out. Finished runs are not repeated, so the command goes on where it was stopped.
"""

import json
import pathlib
from collections.abc import Sequence

from absl import app, flags

from configs import study_parts
from occjax.data import sources
from occjax.evaluation import coco, occlusion
from studies import command, runs

EDGES = (0.0, 0.3, 0.5, 1.0)  # of the largest box IoU in an image
NAMES = {
    "center": "centre point (SPM)",
    "parts": "parts",
    "pinet": "parts + refinement + fusion (PINet)",
}

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Declares the command's flags."""
    command.define_flags("parts", output="docs/study-parts.md")
    flags.DEFINE_integer("steps", 2000, "Training steps of each run.")


def main(argv: Sequence[str]) -> None:
    """Trains what is missing, scores all and writes the page."""
    del argv
    results: dict[str, list[list[dict]]] = {name: [] for name in study_parts.SYSTEMS}
    for seed in FLAGS.seeds:  # whole comparisons first, should the study be stopped
        for system, scores in results.items():
            scores.append(score(run(system, int(seed))))
    pathlib.Path(FLAGS.output).write_text(page(results), encoding="utf-8")
    print(f"written: {FLAGS.output}")


def run(system: str, seed: int) -> pathlib.Path:
    """Trains one system with one seed, if it is not trained yet; gives its folder."""
    return runs.train(
        f"configs/study_parts.py:{system}",
        pathlib.Path(FLAGS.workdir) / f"{system}-{seed}",
        seed=seed,
        steps=FLAGS.steps,
    )


def score(workdir: pathlib.Path) -> list[dict]:
    """AP of a run over all test scenes, and in each bin of overlap."""
    config = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    source = sources.load(config["data"], config["data"]["eval_split"])
    truth = coco.ground_truth(source)
    found = json.loads((workdir / "detections.json").read_text(encoding="utf-8"))
    matches = coco.Matches(truth, found, source.skeleton)
    everything = {"low": EDGES[0], "high": EDGES[-1], "images": len(source)}
    return [
        everything | matches.metrics(),
        *occlusion.by_overlap(truth, matches, EDGES),
    ]


def page(results: dict[str, list[list[dict]]]) -> str:
    """The study as a Markdown page."""
    first = next(iter(results.values()))[0]
    heads = [
        ("all" if i == 0 else f"IoU {row['low']:.1f}-{row['high']:.1f}")
        + f" ({row['images']} scenes)"
        for i, row in enumerate(first)
    ]
    shares = {
        NAMES[system]: [[row["AP"] for row in rows] for rows in seeds]
        for system, seeds in results.items()
    }
    lines = [
        "# Parts, refinement and fusion where people overlap",
        "",
        "Made by `python -m studies.parts`. Three systems, trained from scratch on the",
        "built-in crowd with the same scenes, backbone, steps, batch and schedule;",
        f"{FLAGS.steps} steps, seeds {', '.join(FLAGS.seeds)}. AP in per cent (COCO",
        "keypoint protocol) on unseen scenes, by the largest box IoU of two people in",
        "the scene: mean and, in brackets, lowest and highest of the seeds.",
        "",
        *runs.tables(heads, shares, FLAGS.seeds),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    define_flags()
    app.run(main)
