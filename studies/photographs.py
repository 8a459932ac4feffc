r"""Whether labels, warps, masks, decoding and back-projection agree on photographs.

    python -m studies.photographs --data FOLDER [--output docs/photographs.md] \
        [--workdir runs/study-photographs]

FOLDER holds coco/, crowdpose/ and ochuman/, each with images/ and annotations/. Twice:
the labels' own targets are decoded in place of a network's maps (studies/oracle.py), on
every photograph with two labelled persons or more; and a small model learns sixteen of
them by heart (studies/overfit.py, configs/study_photographs.py). What was prepared and
trained below --workdir is not done again.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from configs import pinet, study_photographs
from occjax.evaluation import coco
from occjax.runtime import cli, step
from studies import albums, oracle, overfit

SIZE = 512
FOUND = 1.0  # source pixels: who is found has every labelled joint as close as this
METRICS = ("AP", "AP50", "AP75", "AP90", "AR")
# Name of a way to read -> whether mirrored too, whether joints without label are set.
READINGS = {
    "flip test": (True, True),
    "upright alone": (False, True),
    "upright, zeros where labels ask nothing": (False, False),
}

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("data", None, "Folder of the photographs.", required=True)
    flags.DEFINE_string("output", "docs/photographs.md", "Page to write.")
    flags.DEFINE_string("workdir", "runs/study-photographs", "Folder of what is made.")


def main(argv: Sequence[str]) -> None:
    """Runs both parts and writes the page."""
    del argv
    cli.start_jax()
    folder, workdir = pathlib.Path(FLAGS.data), pathlib.Path(FLAGS.workdir)
    results = {
        name: read_album(folder, workdir / "oracle", name) for name in albums.ALBUMS
    }
    fates = results["coco"]["flip test"].fates
    lost = {fate.image_id for fate in fates if fate.reason}
    source = overfit.prepare(folder, workdir / "chosen", lost)
    metrics = overfit.train(workdir / "chosen", workdir / "overfit")
    truth = coco.ground_truth(source)
    text = [*heading(), *oracle_page(results), *overfit_page(truth, metrics)]
    pathlib.Path(FLAGS.output).write_text("\n".join(text) + "\n", encoding="utf-8")
    print(f"written: {FLAGS.output}")


def read_album(
    folder: pathlib.Path, out: pathlib.Path, name: str
) -> dict[str, oracle.Result]:
    """The oracle's results on the crowded photographs of an album, by reading."""
    source = albums.prepare(folder, name, out, albums.crowded)
    results = {}
    for reading, (flip, complete) in READINGS.items():
        config = pinet.get_config(name)
        config.model.flip_test = flip
        _, model = step.build_model(config, source.skeleton)
        results[reading] = oracle.run(model, source, SIZE, complete=complete)
        print(f"{name}, {reading}: AP {results[reading].everyone['AP']:.4f}")
    return results


def heading() -> list[str]:
    """Title, command and versions."""
    facts = cli.environment()
    names = ("jax", "flax", "optax", "numpy")
    versions = ", ".join(f"{name} {facts['packages'][name]}" for name in names)
    return [
        "# Real photographs, twice",
        "",
        "Made by `python -m studies.photographs --data FOLDER` (FOLDER: `coco/`,",
        "`crowdpose/` and `ochuman/`, each with `images/` and `annotations/`) with",
        f"occjax {facts['occjax']}, Python {facts['python']}, {versions}. AP and AR",
        "are COCO's keypoint protocol (pycocotools, 20 detections an image, areas as",
        "annotated) in per cent, with each dataset's own joints.",
    ]


def oracle_page(results: dict[str, dict[str, oracle.Result]]) -> list[str]:
    """What the labels' own maps give, and whom they cannot tell of."""
    lines = [
        "",
        "## The labels in place of the network",
        "",
        "Every photograph with at least two labelled persons, in the test's resize to",
        f"{SIZE} pixels. The targets that the losses compare with are put in place of",
        "the keypoint maps, part maps and offsets, and decoded as in a test: peaks,",
        "offsets at the peaks, grouping, fusion, back to the photo. `whole` persons",
        "are those whom targets and decoding can tell of; the others, counted below,",
        "are then ignored as the protocol ignores people without joints. `found`: a",
        f"pose has each labelled joint of the person within {FOUND:g} pixel.",
        "",
        "| dataset | images | reading | persons | AP | AP50 | AR | found "
        "| whole persons | AP | AP50 | AP90 | AR | found |",
        f"|---|{'---|' * 13}",
    ]
    for name, readings in results.items():
        lines += [row(name, *item) for item in readings.items()]
    lines += [
        "",
        "Labels say nothing about joints without a label, where a network may answer",
        "anything. In the first two readings all parts of a person agree: the",
        "middle of the labelled joints. In the third each part answers its own pixel,",
        "the zero of the target map that the loss does not look at: the parts then",
        "disagree by more than the grouping allows, so that a person without some",
        "labels is found several times, and the further poses count as false.",
        "",
        "Persons who cannot be told of, by the first reason that applies (flip test);",
        "in brackets those among them who were found nevertheless:",
        "",
        f"| reason | {' | '.join(results)} |",
        f"|---|{'---|' * len(results)}",
    ]
    mirrored = [readings["flip test"] for readings in results.values()]
    for reason in (*oracle.REASONS, ""):
        cells = " | ".join(count(result, reason) for result in mirrored)
        lines.append(f"| {reason or 'none: whole persons'} | {cells} |")
    most = max(result.detections for result in mirrored)
    return [
        *lines,
        "",
        "- No labelled joint in any part: the parts are head, torso and legs, so a",
        "  person of whom elbows and wrists alone are labelled has no part to detect.",
        "- Box below the size limit: PINet gives no part centre to boxes of less than",
        "  1024 pixels^2 of the input (CrowdPose has no limit).",
        "- Off the map: targets leave out joints outside the map. The mirrored input",
        "  is shifted by 3 pixels so that map pixels mirror onto map pixels, which",
        "  puts joints of the photograph's last columns outside.",
        "- Pose alike: an OKS above 0.7 is one person to the grouping.",
        "- Shared: two persons' part centres are so close that they claim the same",
        "  pixels; the smaller, or joint by joint the later, person owns them.",
        f"- More than 20 detections in an image: none, at most {most}.",
    ]


def row(name: str, reading: str, result: oracle.Result) -> str:
    """One line of figures."""
    whole = [fate for fate in result.fates if not fate.reason]
    cells = [name, str(result.images), reading]
    for fates, metrics, keys in (
        (result.fates, result.everyone, ("AP", "AP50", "AR")),
        (whole, result.whole, ("AP", "AP50", "AP90", "AR")),
    ):
        cells += [str(len(fates)), *(f"{100 * metrics[key]:.1f}" for key in keys)]
        cells.append(str(sum(fate.distance <= FOUND for fate in fates)))
    return f"| {' | '.join(cells)} |"


def count(result: oracle.Result, reason: str) -> str:
    """Persons of a reason, and how many of them were found."""
    fates = [fate for fate in result.fates if fate.reason == reason]
    found = sum(fate.distance <= FOUND for fate in fates)
    return f"{len(fates)} ({found})" if fates else "0"


def overfit_page(truth: dict, metrics: dict) -> list[str]:
    """What the trained model reached."""
    config = study_photographs.get_config()
    images = [image["id"] for image in truth["images"]]
    persons = sum(p["num_keypoints"] > 0 for p in truth["annotations"])
    return [
        "",
        "## Learnt by heart",
        "",
        f"The first {len(images)} photographs of COCO, by id, in which two persons or",
        f"more are labelled, each with {overfit.JOINTS} joints or more and a box of",
        f"{overfit.BOX:.0%} of the photograph or more, with nobody who cannot be told of",
        f"(above): {persons} persons. `configs/study_photographs.py`: backbone",
        f"`{config.model.backbone.name}` from scratch, {config.data.size} pixels,",
        f"{config.steps} steps of {config.batch_size}, views moved and mirrored at",
        "random at the test's scale.",
        "Scored on the same photographs by the usual test (flip test):",
        "",
        f"| {' | '.join(METRICS)} |",
        f"|{'---|' * len(METRICS)}",
        f"| {' | '.join(f'{100 * metrics[key]:.1f}' for key in METRICS)} |",
        "",
        f"Image ids: {', '.join(map(str, images))}.",
    ]


if __name__ == "__main__":
    define_flags()
    cli.run(main)
