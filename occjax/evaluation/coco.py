"""COCO's keypoint protocol: ground truth and detections, and what they score.

Ground truth and detections travel in COCO's own json forms, so that any public tool
reads what is written here and any public file can be scored. The skeleton brings the
sigmas, so that 12 or 14 joints are scored like 17.
"""

import functools
import hashlib
import json
from collections.abc import Container, Iterable, Sequence
from typing import Any

import numpy as np

from occjax.evaluation import checks, evaluators
from occjax.skeletons import Skeleton
from occjax.types import UNLABELLED, Poses

CATEGORY = 1  # COCO's id of "person"
UNDEFINED = -1.0  # what evaluators report where no person could be found

# Metric -> threshold (None: mean over .50:.05:.95) and person size.
_METRICS = {
    "AP": (None, "all"),
    "AP50": (0.5, "all"),
    "AP75": (0.75, "all"),
    "AP80": (0.8, "all"),
    "AP90": (0.9, "all"),
    "AP_medium": (None, "medium"),
    "AP_large": (None, "large"),
}


def ground_truth(source: Any, count: int = 0) -> dict:
    """COCO json of a dataset's records.

    Crowd regions and persons without labelled joints are kept: the protocol neither
    rewards nor punishes who finds them. Annotations are numbered from 1 in the order
    of the records, because pycocotools reads a match with annotation 0 as no match.
    Images have a `crowdIndex` where it is known, people a mask where there is one.

    Args:
        source: records by index, with a `skeleton`.
        count: how many records, from the first; 0 means all.
    """
    images, annotations = [], []
    for index in range(min(count or len(source), len(source))):
        record = source[index]
        images.append(_image(record))
        for annotation in _annotations(record):
            annotations.append({"id": len(annotations) + 1} | annotation)
    category = {
        "id": CATEGORY,
        "name": "person",
        "keypoints": list(source.skeleton.joints),
        "skeleton": [[a + 1, b + 1] for a, b in source.skeleton.bones],
    }
    return {"images": images, "annotations": annotations, "categories": [category]}


def _image(record: dict) -> dict:
    index = float(record["crowd_index"])
    # Records hold single precision, which would move 0.8 to the other side of 0.8.
    known = {"crowdIndex": round(index, 6)} if index >= 0 else {}
    return {
        "id": int(record["image_id"]),
        "file_name": record["file_name"],
        "height": int(record["height"]),
        "width": int(record["width"]),
        **known,
    }


def _annotations(record: dict) -> Iterable[dict]:
    persons, size = record["persons"], [int(record["height"]), int(record["width"])]
    for index, joints in enumerate(np.asarray(persons["joints"], float)):
        runs = bytes(persons["segmentation"][index]).decode()
        mask = {"segmentation": {"size": size, "counts": runs}} if runs else {}
        yield {
            "image_id": int(record["image_id"]),
            "category_id": CATEGORY,
            "keypoints": joints.reshape(-1).tolist(),
            "num_keypoints": int(np.sum(joints[:, 2] > UNLABELLED)),
            "area": float(persons["area"][index]),
            "bbox": np.asarray(persons["bbox"][index], float).tolist(),
            "iscrowd": int(persons["is_crowd"][index]),
            **mask,
        }


def detections(
    poses: Poses, image_ids: Sequence[int], skeleton: Skeleton
) -> list[dict]:
    """COCO result list of decoded poses, best first within an image.

    Rows with score -inf hold no person and images with id -1 are padding: both are
    left out. Coordinates are rounded to a thousandth of a pixel. The third number of
    a keypoint is its score; `visible` and `labelled`, extra keys, are the probabilities
    of each joint that it can be seen and that annotators would label it. Methods that
    do not predict one of them give NaN, and no such key.

    Args:
        poses: joints [N, P, J, 2], joint_score, visible and labelled [N, P, J] and
            score [N, P], as arrays.
        image_ids: [N].
        skeleton: the J joints.

    Raises:
        ValueError: the shapes disagree.
    """
    expected = (len(image_ids), np.shape(poses.score)[1], skeleton.num_joints, 2)
    if np.shape(poses.joints) != expected:
        raise ValueError(f"joints {np.shape(poses.joints)}; expected {expected}.")
    found = []
    for image, image_id in enumerate(image_ids):
        if image_id < 0:
            continue
        score = np.asarray(poses.score[image], float)
        for person in np.argsort(-score, kind="stable"):
            if score[person] == -np.inf:
                continue
            pose = Poses(*(np.asarray(field[image][person], float) for field in poses))
            joints = [np.round(pose.joints, 3), pose.joint_score[:, None]]
            item = {
                "image_id": int(image_id),
                "category_id": CATEGORY,
                "keypoints": np.concatenate(joints, axis=-1).reshape(-1).tolist(),
                "score": float(pose.score),
            }
            for name in ("visible", "labelled"):
                told = getattr(pose, name)
                if not np.isnan(told).any():
                    item[name] = np.round(told, 4).tolist()
            found.append(item)
    return found


class Matches:
    """Detections matched to the people of each image by COCO's keypoint protocol.

    OKS thresholds .50:.05:.95, 101 recall points. Matching is done once.
    """

    def __init__(
        self,
        truth: dict,
        found: list[dict],
        skeleton: Skeleton,
        names: tuple[str, str] = ("ground truth", "detections"),
        *,
        backend: str = evaluators.DEFAULT,
        limit: int = evaluators.LIMIT,
    ):
        """Checks and matches; neither ground truth nor detections are changed.

        Args:
            truth: COCO ground truth, as from `ground_truth` or a file.
            found: COCO result list, as from `detections` or a file.
            skeleton: the joints of both, and their sigmas.
            names: what error messages call the two, such as their paths.
            backend: whose code does it, a key of `evaluators.BY_NAME`.
            limit: how many detections of an image count, the best.

        Raises:
            UserError: an item is malformed, not finite, or of an unknown image.
        """
        checks.check_ground_truth(truth, skeleton, names[0])
        checks.check_detections(found, truth, skeleton, names[1])
        kind = evaluators.BY_NAME[backend]
        self.evaluator = kind(truth, found, skeleton.sigmas, limit)

    def metrics(self, images: Container | None = None) -> dict[str, float]:
        """AP and AR over the images with these ids, or over all, as fractions.

        -1 where undefined, because no person is there to be found.
        """
        curves = self.evaluator.curves(images)
        mean = functools.partial(_mean, self.evaluator)
        precision = {n: mean(curves.precision, *w) for n, w in _METRICS.items()}
        recall = {n: mean(curves.recall, *w) for n, w in _METRICS.items()}
        return precision | {n.replace("AP", "AR"): v for n, v in recall.items()}


def evaluate(truth: dict, found: list[dict], skeleton: Skeleton) -> dict[str, float]:
    """AP and AR of COCO's keypoint protocol, as fractions; see `Matches`."""
    return Matches(truth, found, skeleton).metrics()


def _mean(
    evaluator: evaluators.Evaluator,
    values: np.ndarray,
    threshold: float | None,
    size: str,
) -> float:
    """Mean over the defined entries of values [T, ..., size]."""
    values = values[..., evaluator.sizes.index(size)]
    if threshold is not None:
        values = values[evaluator.thresholds.tolist().index(threshold)]
    defined = values[values > UNDEFINED]
    return float(np.mean(defined)) if defined.size else UNDEFINED


def by_image(items: Iterable[dict]) -> dict[int, list[dict]]:
    """Annotations or detections by image id, in their order."""
    found: dict[int, list[dict]] = {}
    for item in items:
        found.setdefault(item["image_id"], []).append(item)
    return found


def confident_score(truth: dict, found: list[dict]) -> float:
    """The score that as many detections reach as there are people to be found.

    Above it a method says as often that somebody is there as somebody is, so it parts
    the poses worth showing from the long tail that AP asks for. 0 if nothing is found.
    """
    people = sum(
        item["num_keypoints"] > 0 and not item["iscrowd"]
        for item in truth["annotations"]
    )
    scores = sorted((item["score"] for item in found), reverse=True)
    return float(scores[: max(people, 1)][-1]) if scores else 0.0


def fingerprint(truth: dict) -> str:
    """SHA-256 of all that scoring reads of a ground truth, whatever its formatting."""
    people = [
        [
            *(item["id"], item["image_id"], int(item["iscrowd"])),
            *(item["num_keypoints"], float(item["area"])),
            *map(float, item["bbox"]),
            *map(float, item["keypoints"]),
        ]
        for item in truth["annotations"]
    ]
    images = sorted([i["id"], i.get("crowdIndex", -1)] for i in truth["images"])
    return hashlib.sha256(json.dumps([images, people]).encode()).hexdigest()


def table(metrics: dict[str, float]) -> str:
    """The metrics in per cent, AP above AR, for the screen; - where undefined."""
    names = [name for name in metrics if name.startswith("AP")]
    heads = [name.split("_")[-1].removeprefix("AP") or "all" for name in names]
    lines = ["".join(["   ", *(f"{head:>8}" for head in heads)])]
    for kind in ("AP", "AR"):
        values = [metrics[name.replace("AP", kind)] for name in names]
        cells = ["       -" if v == UNDEFINED else f"{100 * v:8.1f}" for v in values]
        lines.append("".join([f"{kind} ", *cells]))
    return "\n".join(lines)
