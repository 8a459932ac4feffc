"""What an evaluation leaves behind: figures, what they are of, files and tables.

`metrics.json` holds `protocol` (what was scored, how and by which evaluator), the
metrics of the dataset's protocol as fractions (-1 where undefined), `pck` where poses
belong to known people of a dataset that is scored so, `occlusion` and
`confident_score`: as many detections reach it as there are people, and drawings show
those. `occlusion` is what `view.occlusion_view` returns, or of it the bins of box IoU
alone where the view was not asked for. docs/evaluation.md tells every key.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from occjax import files
from occjax.errors import UserError
from occjax.evaluation import coco, evaluators, occlusion, protocols, single, view
from occjax.skeletons import Skeleton

PROTOCOLS = protocols.BY_NAME | {
    "crowd": dataclasses.replace(protocols.BY_NAME["coco"], name="crowd")
}
# What the stamp of a detections file does not know, as nobody wrote it down.
UNKNOWN = dict.fromkeys(
    ("box_source", "trained_on", "flip", "scales", "score", "seed", "step", "split")
)


class Scored(NamedTuple):
    """Detections and what they score."""

    protocol: protocols.Protocol
    backend: str  # whose code matched, a key of `evaluators.BY_NAME`
    given: list[dict]  # COCO result list as it came
    truth: dict  # COCO ground truth as the protocol has it
    found: list[dict]  # the detections that count
    matches: coco.Matches
    metrics: dict[str, Any]  # what `metrics.json` holds beside the stamp


def tested_on(data: Mapping[str, Any]) -> str:
    """The dataset that a run is tested on: `eval_dataset`, or the one it learns."""
    return str(data.get("eval_dataset") or data["dataset"])


def protocol_of(dataset: str, skeleton: Skeleton) -> protocols.Protocol:
    """How a prepared dataset is scored.

    By its own name's protocol; datasets of other names or joints by COCO's rules with
    the joints they have.
    """
    known = PROTOCOLS.get(dataset)
    if known and skeleton in (known.skeleton, known.file_skeleton):
        return known
    return protocols.Protocol(dataset, skeleton)


def chosen_protocol(
    name: str | None, dataset: str, skeleton: Skeleton
) -> protocols.Protocol:
    """The protocol of a name, or where that is None of a prepared dataset itself.

    Raises:
        UserError: there is no such protocol of OKS, or it is of other joints.
    """
    if name is None:
        return protocol_of(dataset, skeleton)
    known = PROTOCOLS.get(name)
    if known is None or skeleton not in (known.skeleton, known.file_skeleton):
        raise UserError(
            f"--dataset={name}: no protocol for the {skeleton.num_joints} joints of "
            f"{dataset}, on which this run is scored."
        )
    return known


def score(
    truth: Any,
    found: Any,
    protocol: protocols.Protocol,
    names: tuple[str, str] = ("ground truth", "detections"),
    *,
    backend: str = evaluators.DEFAULT,
    whole: bool = False,
    coco_analyze_compat: bool = False,
) -> Scored:
    """Scores detections by a protocol.

    Args:
        truth: what a COCO ground truth file held.
        found: what a COCO result file held.
        protocol: of the dataset.
        names: what error messages call the two, such as their paths.
        backend: whose code matches.
        whole: make the whole occlusion view, which takes as long as the rest.
        coco_analyze_compat: see `corrections.progression`.

    Raises:
        UserError: an item of one of the two cannot be scored.
    """
    given = found
    truth, found, matches = protocol.match(truth, found, names, backend)
    metrics: dict[str, Any] = dict(protocol.metrics(truth, matches))
    if whole:
        metrics["occlusion"] = view.occlusion_view(
            truth, found, protocol.skeleton, matches, names, coco_analyze_compat
        )
    else:
        bins = occlusion.by_overlap(truth, matches)
        metrics["occlusion"] = {"bins": {"box_iou": bins}}
    metrics["confident_score"] = coco.confident_score(truth, found)
    return Scored(protocol, backend, given, truth, found, matches, metrics)


def stamp(scored: Scored, dataset: str, **facts: Any) -> dict[str, Any]:
    """What makes two results comparable.

    Args:
        scored: what was scored; a hash of all that is read of its truth is kept.
        dataset: its name.
        facts: split, flip, scales, seed, step, training data: whatever is known.
    """
    return {
        "dataset": dataset,
        "ground_truth_sha256": coco.fingerprint(scored.truth),
        "images": len(scored.truth["images"]),
        "persons": len(scored.truth["annotations"]),
        **scored.protocol.stamp(scored.backend),
        **UNKNOWN,
        **facts,
    }


def stamp_of_run(
    scored: Scored,
    config: Mapping[str, Any],
    split: str,
    step: int,
    scales: Sequence[float] = (1.0,),
) -> dict[str, Any]:
    """`stamp` of a model that occjax.train has trained.

    Args:
        scored: what was scored.
        config: of the run, as nested dictionaries.
        split: that was scored.
        step: how many steps the model was trained for.
        scales: of the test.
    """
    data = config["data"]
    return stamp(
        scored,
        tested_on(data),
        split=split,
        method=config["method"],
        trained_on=f"{data['dataset']}/{data['split']}",
        seed=config["seed"],
        step=step,
        weights="moving average" if config["optim"].get("ema") else "last",
        box_source=_box_source(data),
        flip=bool(config["model"].get("flip_test", True)),
        score=config.get("score", "heatmap"),
        scales=list(scales),
    )


def _box_source(data: Mapping[str, Any]) -> str:
    if data.get("view", "image") == "image":
        return "none"
    return data.get("detections") or data.get("eval_proposals") or "annotated"


def save(
    directory: epath.PathLike,
    stamp: dict[str, Any],
    metrics: dict[str, Any],
    found: list[dict],
) -> None:
    """Writes `detections.json` and then `metrics.json`, each whole or not at all."""
    directory = epath.Path(directory)
    files.write_json(directory / "detections.json", found)
    files.write_json(directory / "metrics.json", {"protocol": stamp} | metrics, 2)


def headline_figures(metrics: dict[str, Any]) -> dict[str, float]:
    """AP, AR and their kind, and PCK where there is one: what a curve is drawn of."""
    figures = {k: v for k, v in metrics.items() if k.startswith(("AP", "AR"))}
    if "pck" in metrics:
        figures["PCK"] = metrics["pck"]["mean"]
    return figures


def text(stamp: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Protocol in a line, tables of AP, AR and PCK in per cent, the occlusion view."""
    found = metrics["occlusion"]
    whole = "joints" in found
    tables = view.text(found) if whole else occlusion.table(found["bins"]["box_iou"])
    lines = [headline(stamp), coco.table(metrics)]
    if "pck" in metrics:
        measure = metrics["pck"]["protocol"]["measure"]
        lines += ["", measure, single.table(metrics["pck"])]
    return "\n".join([*lines, "", tables])


def headline(stamp: dict[str, Any]) -> str:
    """What was scored and how, in a line."""
    names = [stamp[key] for key in ("dataset", "split") if stamp.get(key)]
    facts = [key for key in ("step", "flip", "scales") if stamp.get(key) is not None]
    return ", ".join(
        [
            "/".join(names),
            *(f"{stamp[key]} {key}" for key in ("images", "persons") if key in stamp),
            *(f"{key} {stamp[key]}" for key in facts),
            f"{stamp['measure']}, {stamp['joints']} joints, {stamp['evaluator']}",
        ]
    )
