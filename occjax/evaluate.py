"""Scores a trained model, or anybody's detections, by COCO's keypoint protocol.

A run that occjax.train left in DIR:

    python -m occjax.evaluate --workdir DIR [--split S] [--noflip] [--scales 0.5,1,2]

prints a table and writes to DIR (or --output):

    metrics.json     AP, AP50, ..., AR as fractions, AP by overlap, and the protocol
    detections.json  the poses, a COCO result list
    samples/*.png    poses found (left) beside the truth (right)

A detections file, whoever made it; no model and no JAX are needed:

    python -m occjax.evaluate --dataset coco --annotations A.json --detections D.json

--annotations is a COCO person_keypoints file, --detections a COCO result list; either
may be gzipped (.json.gz). --dataset tells the joints and their OKS sigmas.
"""

import pathlib
from typing import Any

from absl import flags

from occjax import skeletons
from occjax.errors import UserError
from occjax.evaluation import checks, coco, report
from occjax.runtime import cli, options

_SKELETONS = skeletons.BY_NAME | {
    "crowd": skeletons.COCO,
    "ochuman": skeletons.COCO,
}
_SAMPLES = 12  # images on the contact sheet

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run to score.")
_SPLIT = flags.DEFINE_string(
    "split", None, "Split to score on; by default the config's data.eval_split."
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder to write to; by default the run's own."
)
_DATASET = flags.DEFINE_enum(
    "dataset", None, sorted(_SKELETONS), "What --detections were made for."
)
_ANNOTATIONS = flags.DEFINE_string("annotations", None, "COCO ground truth file.")
_DETECTIONS = flags.DEFINE_string("detections", None, "COCO result list to score.")
options.define_flags()


def main(argv: Any) -> None:
    """Scores what the flags name."""
    del argv
    if _DETECTIONS.value or _ANNOTATIONS.value:
        stamp, metrics = score_file()
    elif _WORKDIR.value:
        stamp, metrics = score_run(_WORKDIR.value)
    else:
        raise UserError(
            "give --workdir DIR, or --dataset, --annotations and --detections; "
            "--help tells more."
        )
    print(report.text(stamp, metrics))


def score_file() -> tuple[dict, dict]:
    """Scores --detections against --annotations.

    Raises:
        UserError: a flag is missing or of the other use, or a file is unsound.
    """
    for flag in (_DATASET, _ANNOTATIONS, _DETECTIONS):
        if not flag.value:
            raise UserError(
                f"--{flag.name} is missing; scoring a file needs --dataset, "
                "--annotations and --detections."
            )
    for name in ("workdir", "split", "flip", "scales"):
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} does not go with --detections.")
    skeleton = _SKELETONS[str(_DATASET.value)]
    names = (str(_ANNOTATIONS.value), str(_DETECTIONS.value))
    truth, found = (checks.read_json(name) for name in names)
    metrics = report.score(truth, found, skeleton, names)
    base = {"annotations": names[0], "detections": names[1]}
    base = {key: pathlib.Path(name).name for key, name in base.items()}
    stamp = report.protocol(truth, str(_DATASET.value), **base)
    if _OUTPUT.value:
        report.save(_OUTPUT.value, stamp, metrics, found)
    return stamp, metrics


def score_run(workdir: str) -> tuple[dict, dict]:
    """Scores the last checkpoint of a run and writes what the module promises.

    Raises:
        UserError: the run, the data or a flag is at fault.
    """
    # Late, so that scoring a file needs no JAX.
    from occjax.data import pipeline, sources
    from occjax.runtime import trained

    flip, scales = options.parsed()
    cli.start_jax()
    step, config = trained.last(workdir, flip)
    split = _SPLIT.value or config.data.eval_split
    data = config.data.to_dict()
    source = sources.load(data, split)
    model = trained.load(workdir, step, config, source.skeleton)
    count = min(data["eval_images"] or len(source), len(source))
    batches = pipeline.test_batches(source, data, model.batch_size, scales)
    poses, image_ids = model.predict(batches, count)
    truth = coco.ground_truth(source, count)
    found = coco.detections(poses, image_ids.tolist(), source.skeleton)
    metrics = report.score(truth, found, source.skeleton)
    stamp = report.protocol_of_run(truth, config.to_dict(), split, step, scales)
    folder = pathlib.Path(_OUTPUT.value or workdir)
    report.save(folder, stamp, metrics, found)
    _draw(folder / "samples" / f"{split}.png", source, truth, found, metrics)
    return stamp, metrics


def _draw(
    path: pathlib.Path, source: Any, truth: dict, found: list, metrics: dict
) -> None:
    """Contact sheet of images spread evenly over the evaluated ones."""
    from occjax import draw
    from occjax.data import records

    count = len(truth["images"])
    shown = range(0, count, -(-count // _SAMPLES))
    images = {truth["images"][i]["id"]: records.pixels(source[i]) for i in shown}
    score = metrics["confident_score"]
    sheet = draw.comparison_sheet(images, truth, found, source.skeleton, score)
    draw.save_png(path, sheet)
    print(f"{path}: poses found (left) beside the truth (right)")


if __name__ == "__main__":
    cli.run(main)
