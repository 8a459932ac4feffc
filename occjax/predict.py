"""Finds the people in pictures with a trained model.

    python -m occjax.predict --workdir DIR --input IMAGE|FOLDER --output OUT

reads the run that occjax.train left in DIR and writes

    OUT/poses.json         COCO result list; each item also has its file_name and, if
                           the method predicts them, visible and labelled: of each
                           joint the probability that it can be seen, and that
                           annotators would label it
    OUT/drawings/*.png     joints predicted to be occluded or unlabelled are hollow;
                           left side orange, right side blue, bones in a colour for
                           each person

Coordinates are pixels of the picture as it stands upright, turned as the camera's
orientation tag says. Files that are no readable image are counted and named at the end.
poses.json has every pose; drawings show those that score at least --min_score.
"""

import collections
import sys
from typing import Any

import tqdm
from absl import flags
from etils import epath

from occjax import draw, files
from occjax.data import folder, pipeline, sources
from occjax.errors import UserError
from occjax.evaluation import checks, coco
from occjax.runtime import cli, options, processes

FLAGS = flags.FLAGS
_DRAW_FROM = 0.1  # score; for runs that were never evaluated


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("workdir", None, "Folder of the run to use.")
    flags.DEFINE_string("input", None, "Image, or folder of images.")
    flags.DEFINE_string("output", None, "Folder to write to.")
    flags.DEFINE_float(
        "min_score",
        None,
        "Least score of a drawn pose; by default that which in the run's last "
        "evaluation as many poses reached as there were people, else "
        f"{_DRAW_FROM}.",
    )
    options.define_flags()
    cli.define_distributed_flags()


def main(argv: Any) -> None:
    """Looks at the pictures that the flags name."""
    del argv
    for name in ("workdir", "input", "output"):
        if not FLAGS[name].value:
            raise UserError(f"--{name} is missing; --help tells more.")
    chosen, paths = options.parsed(), folder.find(FLAGS.input)
    if len(chosen.scores) > 1 or "oracle" in chosen.scores:
        raise UserError("--score: expected one score, heatmap or oaks.")
    cli.start_jax()
    predict(FLAGS.workdir, paths, FLAGS.output, chosen, FLAGS.min_score)


def predict(
    workdir: str,
    paths: list[epath.Path],
    output: str,
    chosen: options.Options,
    min_score: float | None,
) -> None:
    """Finds the people in image files and writes what the module promises.

    Args:
        workdir: of the run.
        paths: of the images.
        output: folder to write to.
        chosen: how to look at the images.
        min_score: of a drawn pose; None for the run's own.

    Raises:
        UserError: the run or an argument is at fault, or no file can be read.
    """
    from occjax.runtime import trained  # late: a wrong flag needs no wait for JAX

    target = _target(output)
    step, config = trained.last(workdir, chosen.flip, chosen.changes)
    for score in chosen.scores:
        trained.rank_by(config, score)
    data = config.data.to_dict() | {"eval_images": 0}
    skeleton = sources.skeleton_of(data)
    pictures = folder.Folder(_shown(paths, "reading"), skeleton)
    if not len(pictures):
        raise UserError(f"no readable image; {pictures.unreadable[0]}")
    model = trained.load(workdir, step, config, skeleton)
    batch_size = min(model.batch_size, model.rounded(len(pictures)))
    share = processes.share()
    batches = pipeline.test_batches(pictures, data, batch_size, chosen.scales, **share)
    poses, image_ids = model.predict(batches, len(pictures))
    if not processes.first():
        return processes.wait()
    found = coco.detections(poses, image_ids.tolist(), skeleton)
    for item in found:
        item["file_name"] = pictures.paths[item["image_id"] - 1].name
    files.write_json(target / "poses.json", found)
    least = _least_score(workdir) if min_score is None else min_score
    shown = _draw_all(target / "drawings", pictures, found, least)
    print(f"{target}: {len(pictures)} images, {shown} people drawn, {len(found)} poses")
    if pictures.unreadable:
        print(f"{len(pictures.unreadable)} of {len(paths)} files could not be read:")
        print("\n".join(f"  {line}" for line in pictures.unreadable))
    processes.wait()


def _shown(items: Any, what: str) -> Any:
    """The same items, with a progress bar on a terminal."""
    return tqdm.tqdm(items, what, disable=not sys.stderr.isatty(), leave=False)


def _target(output: str) -> epath.Path:
    target = epath.Path(output)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={output}: {error.strerror or error}.") from error
    return target


def _least_score(workdir: str) -> float:
    path = epath.Path(workdir) / "metrics.json"
    if not path.exists():
        return _DRAW_FROM
    return checks.read_json(path).get("confident_score", _DRAW_FROM)


def _draw_all(
    target: epath.Path, pictures: folder.Folder, found: list[dict], least: float
) -> int:
    """Writes a drawing of each picture and counts the people on them."""
    people = collections.defaultdict(list)
    for item in found:
        people[item["image_id"]].append(item)
    shown = 0
    for index in _shown(range(len(pictures)), "drawing"):
        record = pictures[index]
        at = people[record["image_id"]]
        panel = draw.found_panel(record["image"], at, pictures.skeleton, "", least)
        drawn = draw.draw_people(
            panel.image, panel.joints, panel.visibility, pictures.skeleton
        )
        draw.save_png(target / f"{record['file_name']}.png", drawn)
        shown += len(panel.joints)
    return shown


if __name__ == "__main__":
    define_flags()
    cli.run(main)
