r"""Scores a trained model, or anybody's detections, by the dataset's protocol.

A run that occjax.train left in DIR:

    python -m occjax.evaluate --workdir DIR [--split S] [--noflip] [--scales 0.5,1,2]
        [--boxes BOXES.json] [--set model.nms=0.8]

prints tables and writes to DIR (or --output):

    metrics.json     AP, AP50, ..., AR as fractions, the occlusion view, the protocol
    detections.json  the poses, a COCO result list
    report.html      the same with plots, and the worst images; needs no other file
    samples/*.png    poses found (left) beside the truth (right)

A detections file, whoever made it; no model and no JAX are needed:

    python -m occjax.evaluate --dataset coco --annotations A.json --detections D.json \
        [--output DIR] [--images FOLDER] [--backend pycocotools]

--dataset tells joints, sigmas and rules. --annotations is a COCO person_keypoints file,
--detections a COCO result list; either may be gzipped (.json.gz). With --images the
report shows the worst images, found in FOLDER by their file_name.

Beside other detections of the same images, with bootstrap intervals of the difference:

    python -m occjax.evaluate --dataset coco --annotations A.json --detections D.json \
        --compare E.json

or --workdir DIR --compare OTHER. A folder that this command wrote to stands for its
detections.json.

Poses of a run with KS-net (configs/ksnet.py) ranked by several scores side by side,
"oracle" being the true OKS:

    python -m occjax.evaluate --workdir DIR --score heatmap,oaks,oracle

PCK of people whose place is known, in the order of the annotations:

    python -m occjax.evaluate --dataset mpii --annotations T.npz --detections P.npz

T holds joints [N, J, 3] (x, y, visibility 0, 1, 2) and for mpii head [N], P holds
joints [N, J, 2]: .npz, .mat or .json, also HRNet's gt_valid.mat and pred.mat.
docs/evaluation.md tells all formats and every key of metrics.json.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from etils import epath

from occjax import files
from occjax.errors import UserError
from occjax.evaluation import (
    checks,
    compare,
    evaluators,
    pairs,
    pck,
    ranking,
    report,
    single,
)
from occjax.runtime import cli, options, processes

FLAGS = flags.FLAGS
DATASETS = sorted([*report.PROTOCOLS, *pck.BY_NAME])


class How(NamedTuple):
    """Choices about scoring, whatever is scored."""

    backend: str = evaluators.DEFAULT  # whose code matches
    coco_analyze_compat: bool = False  # see `corrections.progression`
    compare: str | None = None  # other detections of the same images
    images: str | None = None  # folder of the images of a detections file
    page: bool = True  # write report.html
    boxes: str | None = None  # what a run crops; None: as its config says


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("workdir", None, "Folder of the run to score.")
    flags.DEFINE_string(
        "split", None, "Split to score on; by default the config's data.eval_split."
    )
    flags.DEFINE_string(
        "boxes",
        None,
        "COCO result list for runs that crop people: of boxes, or of poses where the "
        "config has data.eval_proposals.",
    )
    options.define_flags()
    flags.DEFINE_string("output", None, "Folder to write to; by default the run's own.")
    flags.DEFINE_enum(
        "dataset",
        None,
        DATASETS,
        "Whose protocol; a run has that of its own dataset by default.",
    )
    flags.DEFINE_string("annotations", None, "COCO ground truth file.")
    flags.DEFINE_string("detections", None, "COCO result list to score.")
    flags.DEFINE_string(
        "compare", None, "Other detections of the same images, a file or a folder."
    )
    flags.DEFINE_string("images", None, "Folder of the images of --annotations.")
    flags.DEFINE_enum(
        "backend", evaluators.DEFAULT, sorted(evaluators.BY_NAME), "Whose code matches."
    )
    flags.DEFINE_bool("report", True, "Write report.html where files are written.")
    flags.DEFINE_bool(
        "coco_analyze_compat",
        False,
        "Correct errors with the numbers of the public tool coco-analyze.",
    )
    cli.define_distributed_flags()


def main(argv: Any) -> None:
    """Scores what the flags name."""
    del argv
    compat, page = FLAGS.coco_analyze_compat, FLAGS.report
    how = How(FLAGS.backend, compat, FLAGS.compare, FLAGS.images, page, FLAGS.boxes)
    if FLAGS.detections or FLAGS.annotations:
        _check_file_flags()
        given = (FLAGS.dataset, FLAGS.annotations, FLAGS.detections, FLAGS.output)
        if FLAGS.dataset in pck.BY_NAME:
            score_people(*given, page)
        else:
            score_file(*given, how)
    elif FLAGS.workdir:
        if FLAGS.images:
            raise UserError("--images does not go with --workdir; a run has its own.")
        chosen = options.parsed()
        cli.start_jax()
        score_run(FLAGS.workdir, FLAGS.split, chosen, FLAGS.output, how, FLAGS.dataset)
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
    for name in ("workdir", "split", "boxes", "score", "flip", "scales", "set"):
        if FLAGS[name].present:
            raise UserError(f"--{name} does not go with --detections.")
    if FLAGS.images and not FLAGS.output:
        raise UserError("--images is for report.html; give --output too.")
    if FLAGS.dataset in pck.BY_NAME:
        for name in ("compare", "images", "backend", "coco_analyze_compat"):
            if FLAGS[name].present:
                raise UserError(f"--{name} does not go with --dataset {FLAGS.dataset}.")


def score_file(
    dataset: str,
    annotations: str,
    detections: str,
    output: str | None,
    how: How = How(),  # noqa: B008  it cannot be changed
) -> None:
    """Scores a detections file by OKS.

    Args:
        dataset: key of `report.PROTOCOLS`.
        annotations: path of the COCO ground truth.
        detections: path of the COCO result list, or a folder that holds one.
        output: folder for metrics.json, detections.json and report.html, if any.
        how: see there.

    Raises:
        UserError: a file is unsound.
    """
    pixels = _folder_reader(how.images)
    path, saved = _detections(detections)
    names = (annotations, str(path))
    truth, found = (checks.read_json(name) for name in names)
    scored = report.score(
        *(truth, found, report.PROTOCOLS[dataset], names),
        backend=how.backend,
        whole=True,
        coco_analyze_compat=how.coco_analyze_compat,
    )
    bases = {"annotations": epath.Path(annotations).name, "detections": path.name}
    stamp = report.stamp(scored, dataset, **bases)
    told = _compare(scored, saved, how)
    if output:
        report.save(output, stamp, scored.metrics, scored.given)
        told += f"\nwritten to {output}: metrics.json, detections.json"
        if how.page:
            _write_page(output, stamp, scored, pixels)
            told += ", report.html"
    print(report.text(stamp, scored.metrics) + told)


def score_people(
    dataset: str,
    annotations: str,
    predictions: str,
    output: str | None,
    page: bool = True,
) -> None:
    """Scores predictions of single people by PCK.

    Args:
        dataset: key of `pck.BY_NAME`.
        annotations: path of the people; see `single`.
        predictions: path of their poses.
        output: folder for metrics.json and report.html, if any.
        page: whether to write report.html.

    Raises:
        UserError: a file is unsound.
    """
    protocol = pck.BY_NAME[dataset]
    metrics, facts = single.score(protocol, annotations, predictions)
    stamp = {"dataset": dataset, **facts, **protocol.stamp()}
    text = single.table(metrics)
    if output:
        path = epath.Path(output)
        files.write_json(path / "metrics.json", {"protocol": stamp} | metrics, 2)
        if page:
            from occjax.evaluation import page as pages

            html = pages.page_of_pck(stamp, metrics)
            files.write_bytes(path / "report.html", html.encode())
    print(f"{report.headline(stamp)}\n{text}")


def score_run(
    workdir: str,
    split: str | None,
    chosen: options.Options,
    output: str | None,
    how: How = How(),  # noqa: B008  it cannot be changed
    dataset: str | None = None,
) -> None:
    """Scores the last checkpoint of a run and writes what the module promises.

    Args:
        workdir: of the run.
        split: of the dataset it is tested on; None takes the config's.
        chosen: how to look at the images.
        output: folder to write to; None takes the run's.
        how: see there.
        dataset: whose protocol; None takes that of the run's dataset.

    Raises:
        UserError: the run, the data or an argument is at fault.
    """
    # Late, so that scoring a file needs no JAX.
    from occjax import scoring
    from occjax.data import sources
    from occjax.runtime import trained

    step, config = trained.last(workdir, chosen.flip, chosen.changes)
    split = split or str(config.data.eval_split)
    if how.boxes:
        scoring.take_boxes(config, how.boxes)
    source = sources.load_test(config.data.to_dict(), split)
    name = report.tested_on(config.data)
    protocol = report.chosen_protocol(dataset, name, source.skeleton)
    found = {}
    for score in [x for x in chosen.scores if x != ranking.ORACLE][::-1] or [""]:
        if score:
            trained.rank_by(config, score)
        model = trained.load(workdir, step, config, source.skeleton)
        found = {score: _score(model, source, chosen, how, protocol)} | found
    if not processes.first():
        return processes.wait()
    scored = next(iter(found.values()))
    stamp = report.stamp_of_run(scored, config.to_dict(), split, step, chosen.scales)
    told = _ranked(found, chosen.scores) + _compare(scored, stamp, how)
    folder = output or workdir
    text = scoring.save(folder, source, scored, stamp)
    if how.page:
        _write_page(folder, stamp, scored, scoring.pixels_of_source(source, scored))
        text += ", report.html"
    print(text + told)
    processes.wait()


def _score(
    model: Any, source: Any, chosen: options.Options, how: How, protocol: Any
) -> report.Scored:
    """The poses of a `trained.Trained` model on a source, scored by process 0."""
    from occjax import scoring
    from occjax.data import pipeline

    data = model.config.data.to_dict()
    count = min(data["eval_images"] or len(source), len(source))
    share = processes.share()
    batches = pipeline.test_batches(
        source, data, model.batch_size, chosen.scales, **share
    )
    poses, image_ids = model.predict(batches, count)
    scored: Any = None
    if processes.first():
        scored = scoring.score(
            *(source, data, count, poses, image_ids.tolist()),
            protocol=protocol,
            backend=how.backend,
            whole=True,
            coco_analyze_compat=how.coco_analyze_compat,
        )
    processes.wait()
    return scored


def _ranked(found: Mapping[str, report.Scored], scores: Sequence[str]) -> str:
    """Adds what each score makes of the poses to the first one's metrics; a table."""
    if not scores:
        return ""
    skeleton = next(iter(found.values())).protocol.skeleton
    gathered = {
        name or "given": pairs.gather(scored.truth, scored.found, skeleton)
        for name, scored in found.items()
    }
    if ranking.ORACLE in scores:
        first = next(iter(gathered.values()))
        gathered[ranking.ORACLE] = first.with_scores(first.best())
    figures = ranking.side_by_side(gathered)
    next(iter(found.values())).metrics["scores"] = figures
    title = "AP, AP75 by a person's labelled joints, and calibration, by score"
    return f"\n\n{title}\n{ranking.table(figures)}"


def _detections(given: str) -> tuple[epath.Path, dict | None]:
    """Path of a detections file, and the stamp beside it if this command wrote both."""
    path = epath.Path(given)
    if path.is_dir():
        path /= "detections.json"
    beside = path.with_name("metrics.json")
    if path.name != "detections.json" or not beside.is_file():
        return path, None
    saved = checks.read_json(beside)
    stamp = saved.get("protocol") if isinstance(saved, dict) else None
    return path, stamp if isinstance(stamp, dict) else None


def _compare(scored: report.Scored, stamp: dict | None, how: How) -> str:
    """Adds the comparison asked for to the metrics; returns its table."""
    if not how.compare:
        return ""
    path, other = _detections(how.compare)
    told = compare.differences(stamp, other, str(path))
    names = ("ground truth", str(path))
    found = scored.protocol.found(scored.truth, checks.read_json(path), names[1])
    skeleton = scored.protocol.skeleton
    these = pairs.gather(scored.truth, scored.found, skeleton)
    others = pairs.gather(scored.truth, found, skeleton, names)
    figures = compare.compare(these, others, scored.truth)
    facts = {"with": str(path), "resamples": compare.RESAMPLES, "seed": 0}
    scored.metrics["comparison"] = {**facts, "told": told, "figures": figures}
    return "\n\n" + "\n".join(
        [f"beside {path}, bootstrap of images:", *told, compare.table(figures)]
    )


def _write_page(
    folder: str,
    stamp: Mapping[str, Any],
    scored: report.Scored,
    pixels: Callable[[dict], Any] | None,
) -> None:
    """Writes report.html, with drawings if pixels of images can be had."""
    from occjax.evaluation import page  # loads matplotlib

    drawings = {}
    if pixels:
        from occjax import scoring

        drawings = scoring.drawings(scored, pixels)
    html = page.page(stamp, scored.metrics, drawings)
    files.write_bytes(epath.Path(folder) / "report.html", html.encode())


def _folder_reader(images: str | None) -> Callable[[dict], Any] | None:
    if not images:
        return None
    from occjax import scoring

    return scoring.pixels_of_folder(images)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
