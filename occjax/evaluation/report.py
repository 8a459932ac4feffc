"""What an evaluation leaves behind: `metrics.json`, `detections.json` and a table.

`metrics.json` holds `protocol` (what was scored, how and by which evaluator), the
metrics of `coco.Matches` as fractions (-1 where undefined) and `occlusion`, whose
`box_iou` lists the same metrics by the largest box IoU of an image. As many detections
reach `confident_score` as there are people; drawings show those.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from occjax import files
from occjax.evaluation import coco, evaluators, occlusion
from occjax.skeletons import Skeleton


def score(
    truth: dict,
    found: list[dict],
    skeleton: Skeleton,
    names: tuple[str, str] = ("ground truth", "detections"),
) -> dict[str, Any]:
    """The metrics of `coco.Matches`, `occlusion` and `confident_score`.

    Raises:
        UserError: as `coco.Matches`.
    """
    matches = coco.Matches(truth, found, skeleton, names)
    bins = occlusion.by_overlap(truth, matches)
    threshold = coco.confident_score(truth, found)
    more = {"occlusion": {"box_iou": bins}, "confident_score": threshold}
    return matches.metrics() | more


def protocol(truth: dict, dataset: str, **facts: Any) -> dict[str, Any]:
    """What makes two results comparable.

    Args:
        truth: the ground truth; a hash of all that is read of it is kept.
        dataset: its name.
        facts: split, flip, scales, seed, step, training data: whatever applies.
    """
    evaluator = f"{evaluators.version()}, keypoints, {evaluators.LIMIT} detections"
    return {
        "dataset": dataset,
        "ground_truth_sha256": coco.fingerprint(truth),
        "images": len(truth["images"]),
        "persons": len(truth["annotations"]),
        "evaluator": f"{evaluator} an image",
        **facts,
    }


def protocol_of_run(
    truth: dict,
    config: Mapping[str, Any],
    split: str,
    step: int,
    scales: Sequence[float] = (1.0,),
) -> dict[str, Any]:
    """`protocol` of a model that occjax.train has trained.

    Args:
        truth: the ground truth.
        config: of the run, as nested dictionaries.
        split: that was scored.
        step: how many steps the model was trained for.
        scales: of the test.
    """
    data = config["data"]
    return protocol(
        truth,
        data["dataset"],
        split=split,
        method=config["method"],
        trained_on=f"{data['dataset']}/{data['split']}",
        seed=config["seed"],
        step=step,
        weights="moving average" if config["optim"].get("ema") else "last",
        box_source="none",
        flip=bool(config["model"].get("flip_test", True)),
        scales=list(scales),
    )


def save(
    directory: str | pathlib.Path,
    stamp: dict[str, Any],
    metrics: dict[str, Any],
    found: list[dict],
) -> None:
    """Writes `detections.json` and then `metrics.json`, each whole or not at all."""
    directory = pathlib.Path(directory)
    files.write_json(directory / "detections.json", found)
    files.write_json(directory / "metrics.json", {"protocol": stamp} | metrics, 2)


def text(stamp: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Protocol in a line, table of AP and AR in per cent, AP by overlap."""
    where = "/".join(str(stamp[key]) for key in ("dataset", "split") if key in stamp)
    how = [f"{key} {stamp[key]}" for key in ("step", "flip", "scales") if key in stamp]
    counts = f"{stamp['images']} images, {stamp['persons']} persons"
    head = ", ".join([where, counts, *how, stamp["evaluator"]])
    bins = occlusion.table(metrics["occlusion"]["box_iou"])
    return f"{head}\n{coco.table(metrics)}\n\n{bins}"
