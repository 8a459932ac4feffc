"""Finds the people in pictures or in a video with a trained model.

    python -m occjax.predict --workdir DIR --input IMAGE|FOLDER|VIDEO --output OUT
        [--boxes FILE]

reads the run that occjax.train left in DIR and writes

    OUT/poses.json         COCO result list; each item also has its file_name and, if
                           the method predicts them, visible and labelled: of each
                           joint the probability that it can be seen, and that
                           annotators would label it
    OUT/drawings/*.png     joints predicted to be occluded or unlabelled are hollow;
                           left side orange, right side blue, bones in a colour for
                           each person
    OUT/NAME.mp4           the same of a video; its poses' image_id counts frames from 1

Coordinates are pixels of the picture as it stands upright, turned as the camera's
orientation tag says. Files that are no readable image are counted and named at the end.
poses.json has every pose; drawings show those that score at least --min_score. Models
that see a person at a time need --boxes: a COCO result list whose image_id counts the
pictures by name, or the frames, from 1; with `keypoints` for those that correct poses.
"""

import collections
import contextlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm
from absl import flags
from etils import epath

from occjax import draw, files, video
from occjax.data import folder, pictures, results
from occjax.errors import UserError
from occjax.evaluation import checks, coco
from occjax.runtime import cli, options, processes

FLAGS = flags.FLAGS
FRAMES = 32  # of a video that are looked at together
_DRAW_FROM = 0.1  # score; for runs that were never evaluated


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("workdir", None, "Folder of the run to use.")
    flags.DEFINE_string("input", None, "Image, folder of images, or video.")
    flags.DEFINE_string("output", None, "Folder to write to.")
    flags.DEFINE_string("boxes", None, "File of boxes or poses of people.")
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
    chosen, path = options.parsed(), epath.Path(FLAGS.input)
    if len(chosen.scores) > 1 or "oracle" in chosen.scores:
        raise UserError("--score: expected one score, heatmap or oaks.")
    film = path.is_file() and path.suffix.lower() in video.SUFFIXES
    given = path if film else folder.find(path)
    cli.start_jax()
    predict(FLAGS.workdir, given, FLAGS.output, chosen, FLAGS.min_score, FLAGS.boxes)


def predict(
    workdir: str,
    given: list[epath.Path] | epath.Path,
    output: str,
    chosen: options.Options,
    min_score: float | None,
    boxes: str | None = None,
) -> None:
    """Finds the people in image files or in a video; writes what the module promises.

    Args:
        workdir: of the run.
        given: paths of the images, or that of the video.
        output: folder to write to.
        chosen: how to look at the images.
        min_score: of a drawn pose; None for the run's own.
        boxes: file of the people's boxes or poses.

    Raises:
        UserError: the run or an argument is at fault, or nothing can be read.
    """
    from occjax.estimator import Estimator  # late: a wrong flag needs no wait for JAX

    target, model = _target(output), Estimator(workdir, chosen)
    least = _least_score(workdir) if min_score is None else min_score
    if isinstance(given, list):
        _look(given, target, model, least, boxes)
    else:
        _watch(given, target, model, least, boxes)
    processes.wait()


def _look(
    paths: list[epath.Path],
    target: epath.Path,
    model: Any,
    least: float,
    boxes: str | None,
) -> None:
    """The people on image files, found by an `Estimator`, written and drawn."""
    source = folder.Folder(_shown(paths, "reading"), model.skeleton)
    if not len(source):
        raise UserError(f"no readable image; {source.unreadable[0]}")
    source.boxes = _people(boxes, source, model.needs)
    poses, image_ids = model.look(source, show=True)
    if not processes.first():
        return
    found = coco.detections(poses, image_ids.tolist(), model.skeleton)
    for item in found:
        item["file_name"] = source.paths[item["image_id"] - 1].name
    files.write_json(target / "poses.json", found)
    shown = _draw_all(target / "drawings", source, found, least)
    print(f"{target}: {len(source)} images, {shown} people drawn, {len(found)} poses")
    if source.unreadable:
        print(f"{len(source.unreadable)} of {len(paths)} files could not be read:")
        print("\n".join(f"  {line}" for line in source.unreadable))


def _watch(
    path: epath.Path,
    target: epath.Path,
    model: Any,
    least: float,
    boxes: str | None,
) -> None:
    """The people of a video's frames, found by an `Estimator`, written and drawn."""
    from occjax.runtime import progress

    if processes.several():
        raise UserError(f"{path}: a video is for one process, not for several.")
    with contextlib.ExitStack() as stack:
        reader = video.Reader(stack.enter_context(files.local(path)))
        frames = pictures.Numbered(reader.announced, model.skeleton)
        people = _people(boxes, frames, model.needs)
        of_frame: dict[int, list[results.Result]] = collections.defaultdict(list)
        for one in people or ():
            of_frame[one.image].append(one)

        def find(images: Sequence[np.ndarray], first: int) -> Any:
            here = [
                one._replace(image=number)
                for number in range(len(images))
                for one in of_frame[first + number]
            ]
            here = None if people is None else here
            return model.people(pictures.Pictures(images, model.skeleton, here))

        drawing = video.Drawing(model.skeleton, least)
        show = stack.enter_context(progress.counted(reader.announced, "frame"))
        done = video.annotate(reader, target, find, drawing, FRAMES, show)
    print(
        f"{target}: {done.frames} frames, {done.drawn} people drawn, {done.poses} "
        f"poses, {done.frames / done.seconds:.1f} frames/s"
    )
    if done.frames < done.announced:
        print(f"{path}: only {done.frames} of {done.announced} frames can be read")


def _people(path: str | None, source: Any, needs: str) -> list[results.Result] | None:
    """Whom to look at: what a file has for a model that needs it."""
    if not needs:
        if path is not None:
            raise UserError("--boxes: this model finds people by itself.")
        return None
    if path is None:
        raise UserError(
            f"--boxes is missing: this model sees a person at a time and needs {needs}."
        )
    return results.read(path, "--boxes", source, poses=needs == "poses")[0]


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
    target: epath.Path, source: folder.Folder, found: list[dict], least: float
) -> int:
    """Writes a drawing of each picture and counts the people on them."""
    people = collections.defaultdict(list)
    for item in found:
        people[item["image_id"]].append(item)
    shown = 0
    for index in _shown(range(len(source)), "drawing"):
        record = source[index]
        at = people[record["image_id"]]
        panel = draw.found_panel(record["image"], at, source.skeleton, "", least)
        drawn = draw.draw_people(
            panel.image, panel.joints, panel.visibility, source.skeleton
        )
        draw.save_png(target / f"{record['file_name']}.png", drawn)
        shown += len(panel.joints)
    return shown


if __name__ == "__main__":
    define_flags()
    cli.run(main)
