"""Poses of a dataset, scored, and what that leaves: train and evaluate share it."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from occjax import draw
from occjax.data import records
from occjax.data.sources import Source
from occjax.evaluation import coco, report
from occjax.types import Poses

SAMPLES = 12  # images on the contact sheet


class Scored(NamedTuple):
    """What came out of the first images of a source."""

    truth: dict  # COCO ground truth
    found: list[dict]  # COCO result list
    metrics: dict[str, Any]  # of `report.score`


def score(source: Source, count: int, poses: Poses, image_ids: Sequence[int]) -> Scored:
    """Scores poses of the first `count` images of a source; 0 means all."""
    truth = coco.ground_truth(source, count)
    found = coco.detections(poses, image_ids, source.skeleton)
    return Scored(truth, found, report.score(truth, found, source.skeleton))


def save(
    folder: str | pathlib.Path,
    source: Source,
    scored: Scored,
    config: Mapping[str, Any],
    split: str,
    step: int,
    scales: Sequence[float] = (1.0,),
) -> str:
    """Writes metrics.json, detections.json and samples/SPLIT.png.

    Args:
        folder: where to.
        source: that was scored.
        scored: from `score`.
        config: of the run, as nested dictionaries.
        split: that was scored.
        step: how many steps the model was trained for.
        scales: of the test.

    Returns:
        The table for the screen, and where the files are.
    """
    folder = pathlib.Path(folder)
    stamp = report.protocol_of_run(scored.truth, config, split, step, scales)
    report.save(folder, stamp, scored.metrics, scored.found)
    _draw(folder / "samples" / f"{split}.png", source, scored)
    files = f"metrics.json, detections.json, samples/{split}.png"
    return f"{report.text(stamp, scored.metrics)}\nwritten to {folder}: {files}"


def _draw(path: pathlib.Path, source: Source, scored: Scored) -> None:
    """Contact sheet of images spread evenly over the scored ones."""
    images = scored.truth["images"]
    shown = range(0, len(images), -(-len(images) // SAMPLES))
    pictures = {images[i]["id"]: records.pixels(source[i]) for i in shown}
    least = scored.metrics["confident_score"]
    sheet = draw.comparison_sheet(
        pictures, scored.truth, scored.found, source.skeleton, least
    )
    draw.save_png(path, sheet)
