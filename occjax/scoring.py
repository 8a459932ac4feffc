"""Poses of a dataset, scored, and what that leaves: train and evaluate share it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from occjax import draw
from occjax.data import records, views
from occjax.data.sources import Source
from occjax.errors import UserError
from occjax.evaluation import coco, pck, report
from occjax.evaluation.report import Scored
from occjax.types import Poses

SAMPLES = 12  # images on the contact sheet
_PANEL = 480  # pixels, the width of a drawing in a report


def score(
    source: Source,
    data: Mapping[str, Any],
    count: int,
    poses: Poses,
    image_ids: Sequence[int],
    **how: Any,
) -> Scored:
    """Scores poses of the first `count` images of a source; 0 means all.

    Args:
        source: of the images.
        data: `config.data`: the dataset's name, and how poses were asked for.
        count: how many of them.
        poses: [N, P, ...], see `coco.detections`.
        image_ids: [N].
        how: `protocol`, by default the dataset's own, and what `report.score` takes.
    """
    truth = coco.ground_truth(source, count)
    found = coco.detections(poses, image_ids, source.skeleton)
    how.setdefault(
        "protocol", report.protocol_of(report.tested_on(data), source.skeleton)
    )
    scored = report.score(truth, found, **how)
    if views.of_annotated_people(data):
        scored.metrics.update(_pck(source, count, poses, image_ids))
    return scored


def _pck(
    source: Source, count: int, poses: Poses, image_ids: Sequence[int]
) -> dict[str, Any]:
    """PCK of poses whose person is known, if there is a protocol for these joints.

    The poses of an image are those of its people that can be cropped, in their order.
    """
    protocol = next(
        (p for p in pck.BY_NAME.values() if p.skeleton == source.skeleton), None
    )
    if protocol is None:
        return {}
    row_of = {image: row for row, image in enumerate(image_ids)}
    people, heads, found = [], [], []
    for index in range(min(count or len(source), len(source))):
        record = source[index]
        persons, chosen = record["persons"], records.targets(record)
        if chosen.any():
            people.append(np.asarray(persons["joints"], float)[chosen])
            heads.append(np.asarray(persons["head_size"], float)[chosen])
            row = row_of[int(record["image_id"])]
            found.append(np.asarray(poses.joints[row], float)[: chosen.sum()])
    joints = np.concatenate(people)
    unit = protocol.unit_of(joints, np.concatenate(heads))
    figures = pck.evaluate(
        protocol, joints[..., :2], joints[..., 2], np.concatenate(found), unit
    )
    return {"pck": {"protocol": protocol.stamp()} | figures}


def take_boxes(config: Any, boxes: str) -> None:
    """Makes a run's config crop the boxes, or correct the poses, of a file.

    Raises:
        UserError: the run sees whole images.
    """
    if not views.of_people(config.data):
        raise UserError("--boxes: this run sees whole images, it crops nobody.")
    with config.unlocked():
        posed = config.data.get("eval_proposals")
        config.data["eval_proposals" if posed else "detections"] = boxes


def save(
    folder: epath.PathLike, source: Source, scored: Scored, stamp: dict[str, Any]
) -> str:
    """Writes metrics.json, detections.json and samples/SPLIT.png.

    Args:
        folder: where to.
        source: that was scored.
        scored: from `score`.
        stamp: from `report.stamp_of_run`.

    Returns:
        The table for the screen, and where the files are.
    """
    folder, sample = epath.Path(folder), f"samples/{stamp['split']}.png"
    report.save(folder, stamp, scored.metrics, scored.given)
    save_samples(folder / sample, source, scored)
    files = f"metrics.json, detections.json, {sample}"
    return f"{report.text(stamp, scored.metrics)}\nwritten to {folder}: {files}"


def save_samples(path: epath.Path, source: Source, scored: Scored) -> None:
    """Writes a contact sheet of images spread evenly over the scored ones."""
    images = scored.truth["images"]
    shown = range(0, len(images), -(-len(images) // SAMPLES))
    pictures = {images[i]["id"]: records.pixels(source[i]) for i in shown}
    least = scored.metrics["confident_score"]
    skeleton = scored.protocol.skeleton
    sheet = draw.comparison_sheet(pictures, scored.truth, scored.found, skeleton, least)
    draw.save_png(path, sheet)


def drawings(scored: Scored, pixels: Callable[[dict], np.ndarray]) -> dict[int, bytes]:
    """JPEG drawings of the worst images, what was found beside the truth.

    Args:
        scored: with the whole view.
        pixels: what gives [H, W, 3] uint8 RGB of an item of the truth's `images`.

    Returns:
        Image id -> drawing.
    """
    least, skeleton = scored.metrics["confident_score"], scored.protocol.skeleton
    people, found = map(coco.by_image, (scored.truth["annotations"], scored.found))
    images = {item["id"]: item for item in scored.truth["images"]}
    drawn = {}
    for row in scored.metrics["occlusion"]["worst"]:
        number = row["image"]
        image, hits = pixels(images[number]), found.get(number, [])
        left = draw.found_panel(image, hits, skeleton, "", least)
        left = left._replace(caption=f"{len(left.joints)} found")
        right = draw.truth_panel(image, people[number], skeleton, "truth")
        sheet = draw.contact_sheet([[left, right]], skeleton, _PANEL)
        drawn[number] = draw.encoded(sheet, ".jpg")
    return drawn


def pixels_of_source(source: Source, scored: Scored) -> Callable[[dict], np.ndarray]:
    """What finds the pixels of an image in the source that was scored."""
    places = {item["id"]: at for at, item in enumerate(scored.truth["images"])}
    return lambda image: records.pixels(source[places[image["id"]]])


def pixels_of_folder(folder: str) -> Callable[[dict], np.ndarray]:
    """What reads the pixels of an image from a folder, by its `file_name`.

    Raises:
        UserError: there is no such folder; later, an image is missing or damaged.
    """
    if not epath.Path(folder).is_dir():
        raise UserError(f"{folder}: there is no such folder of images.")

    def read(image: dict) -> np.ndarray:
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            raise UserError(
                f"image {image['id']} of the ground truth has no file_name; "
                "--images needs one."
            )
        return records.load(epath.Path(folder) / name)

    return read
