"""Finds the people in pictures with a trained model.

    python -m occjax.predict --workdir DIR --input IMAGE|FOLDER --output OUT

reads the run that occjax.train left in DIR and writes

    OUT/poses.json         COCO result list; each item also has its file_name and
                           visible, the probability of each joint that it can be seen
    OUT/drawings/*.png     visible joints solid, occluded ones hollow; left side orange,
                           right side blue, bones in a colour for each person

Coordinates are pixels of the picture as it stands upright, turned as the camera's
orientation tag says. Files that are no readable image are counted and named at the end.
poses.json has every pose; drawings show those that score at least --min_score.
"""

import collections
import pathlib
from typing import Any

from absl import flags

from occjax import draw, files
from occjax.data import folder, pipeline, sources
from occjax.errors import UserError
from occjax.evaluation import checks, coco
from occjax.runtime import cli, options

_DRAW_FROM = 0.1  # score; for runs that were never evaluated

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run to use.")
_INPUT = flags.DEFINE_string("input", None, "Image, or folder of images.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write to.")
_MIN_SCORE = flags.DEFINE_float(
    "min_score",
    None,
    "Least score of a drawn pose; by default that which in the run's last evaluation "
    f"as many poses reached as there were people, else {_DRAW_FROM}.",
)
options.define_flags()


def main(argv: Any) -> None:
    """Looks at the pictures that the flags name."""
    del argv
    for flag in (_WORKDIR, _INPUT, _OUTPUT):
        if not flag.value:
            raise UserError(f"--{flag.name} is missing; --help tells more.")
    workdir, output = str(_WORKDIR.value), pathlib.Path(str(_OUTPUT.value))
    chosen = options.parsed()
    paths = folder.find(str(_INPUT.value))
    if output.exists() and not output.is_dir():
        raise UserError(f"--output={output}: is a file; expected a folder.")
    predict(workdir, paths, output, chosen)


def predict(
    workdir: str, paths: list[pathlib.Path], output: pathlib.Path, chosen: Any
) -> None:
    """Finds the people in image files and writes what the module promises.

    Raises:
        UserError: the run is at fault, or no file can be read.
    """
    from occjax.runtime import trained  # late: a wrong flag needs no wait for JAX

    cli.start_jax()
    step, config = trained.last(workdir, chosen.flip)
    data = config.data.to_dict()
    skeleton = sources.skeleton_of(data)
    pictures = folder.Folder(paths, skeleton)
    if not len(pictures):
        raise UserError(f"no readable image; {pictures.unreadable[0]}")
    model = trained.load(workdir, step, config, skeleton)
    batch_size = min(model.batch_size, model.rounded(len(pictures)))
    data["eval_images"] = 0
    batches = pipeline.test_batches(pictures, data, batch_size, chosen.scales)
    poses, image_ids = model.predict(batches, len(pictures))
    found = coco.detections(poses, image_ids.tolist(), skeleton)
    for item in found:
        item["file_name"] = pictures.paths[item["image_id"] - 1].name
    files.write_json(output / "poses.json", found)
    shown = _draw_all(output / "drawings", pictures, found, _least_score(workdir))
    print(f"{output}: {len(pictures)} images, {shown} people drawn, {len(found)} poses")
    if pictures.unreadable:
        print(f"{len(pictures.unreadable)} files could not be read:")
        print("\n".join(f"  {line}" for line in pictures.unreadable))


def _least_score(workdir: str) -> float:
    if _MIN_SCORE.value is not None:
        return _MIN_SCORE.value
    path = pathlib.Path(workdir) / "metrics.json"
    if not path.exists():
        return _DRAW_FROM
    return checks.read_json(path).get("confident_score", _DRAW_FROM)


def _draw_all(
    output: pathlib.Path, pictures: folder.Folder, found: list[dict], least: float
) -> int:
    """Writes a drawing of each picture and counts the people on them."""
    people = collections.defaultdict(list)
    for item in found:
        people[item["image_id"]].append(item)
    shown = 0
    for index in range(len(pictures)):
        record = pictures[index]
        at = people[record["image_id"]]
        panel = draw.found_panel(record["image"], at, pictures.skeleton, "", least)
        drawn = draw.draw_people(
            panel.image, panel.joints, panel.visibility, pictures.skeleton
        )
        draw.save_png(output / f"{record['file_name']}.png", drawn)
        shown += len(panel.joints)
    return shown


if __name__ == "__main__":
    cli.run(main)
