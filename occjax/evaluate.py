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
from occjax.evaluation import checks, report
from occjax.runtime import cli, options

FLAGS = flags.FLAGS
SKELETONS = skeletons.BY_NAME | {"crowd": skeletons.COCO, "ochuman": skeletons.COCO}


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("workdir", None, "Folder of the run to score.")
    flags.DEFINE_string(
        "split", None, "Split to score on; by default the config's data.eval_split."
    )
    options.define_flags()
    flags.DEFINE_string("output", None, "Folder to write to; by default the run's own.")
    flags.DEFINE_enum(
        "dataset", None, sorted(SKELETONS), "What --detections were made for."
    )
    flags.DEFINE_string("annotations", None, "COCO ground truth file.")
    flags.DEFINE_string("detections", None, "COCO result list to score.")


def main(argv: Any) -> None:
    """Scores what the flags name."""
    del argv
    if FLAGS.detections or FLAGS.annotations:
        _check_file_flags()
        score_file(FLAGS.dataset, FLAGS.annotations, FLAGS.detections, FLAGS.output)
    elif FLAGS.workdir:
        chosen = options.parsed()
        cli.start_jax()
        score_run(FLAGS.workdir, FLAGS.split, chosen, FLAGS.output)
    else:
        raise UserError(
            "give --workdir DIR, or --dataset, --annotations and --detections; "
            "--help tells more."
        )


def _check_file_flags() -> None:
    for name in ("dataset", "annotations", "detections"):
        if not FLAGS[name].value:
            raise UserError(
                f"--{name} is missing; scoring a file needs --dataset, "
                "--annotations and --detections."
            )
    for name in ("workdir", "split", "flip", "scales"):
        if FLAGS[name].present:
            raise UserError(f"--{name} does not go with --detections.")


def score_file(
    dataset: str, annotations: str, detections: str, output: str | None
) -> None:
    """Scores a detections file.

    Args:
        dataset: key of SKELETONS.
        annotations: path of the COCO ground truth.
        detections: path of the COCO result list.
        output: folder for metrics.json and detections.json, if any.

    Raises:
        UserError: a file is unsound.
    """
    names = (annotations, detections)
    truth, found = (checks.read_json(name) for name in names)
    metrics = report.score(truth, found, SKELETONS[dataset], names)
    base = [pathlib.Path(name).name for name in names]
    stamp = report.protocol(truth, dataset, annotations=base[0], detections=base[1])
    if output:
        report.save(output, stamp, metrics, found)
    print(report.text(stamp, metrics))


def score_run(
    workdir: str, split: str | None, chosen: options.Options, output: str | None
) -> None:
    """Scores the last checkpoint of a run and writes what the module promises.

    Args:
        workdir: of the run.
        split: of its dataset; None takes the config's.
        chosen: how to look at the images.
        output: folder to write to; None takes the run's.

    Raises:
        UserError: the run, the data or an argument is at fault.
    """
    # Late, so that scoring a file needs no JAX.
    from occjax import scoring
    from occjax.data import pipeline, sources
    from occjax.runtime import trained

    step, config = trained.last(workdir, chosen.flip)
    split = split or str(config.data.eval_split)
    data = config.data.to_dict()
    source = sources.load(data, split)
    model = trained.load(workdir, step, config, source.skeleton)
    count = min(data["eval_images"] or len(source), len(source))
    batches = pipeline.test_batches(source, data, model.batch_size, chosen.scales)
    poses, image_ids = model.predict(batches, count)
    scored = scoring.score(source, count, poses, image_ids.tolist())
    folder = output or workdir
    print(
        scoring.save(
            folder, source, scored, config.to_dict(), split, step, chosen.scales
        )
    )


if __name__ == "__main__":
    define_flags()
    cli.run(main)
