"""AP as a function of how much the people of an image cover one another."""

import collections

import numpy as np

from occjax.evaluation import coco

EDGES = (0.0, 0.3, 0.5, 0.7, 1.0)


def box_iou(boxes: np.ndarray) -> np.ndarray:
    """IoU of each box with each other one: [P, 4] (x, y, w, h) to [P, P].

    Zero on the diagonal and for boxes without extent.
    """
    low, size = boxes[:, :2], np.maximum(boxes[:, 2:], 0)
    high = low + size
    overlap = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    shared = np.prod(np.maximum(overlap, 0), axis=-1)  # [P, P]
    area = np.prod(size, axis=-1)
    union = area[:, None] + area - shared
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    np.fill_diagonal(iou, 0)
    return iou


def max_overlap(truth: dict) -> dict[int, float]:
    """Largest box IoU of two annotated people in each image, by image id.

    Crowd regions are no person, and an image with fewer than two people has 0.
    """
    boxes = collections.defaultdict(list)
    for item in truth["annotations"]:
        if not item["iscrowd"]:
            boxes[item["image_id"]].append(item["bbox"])
    return {
        image["id"]: float(
            np.max(box_iou(np.reshape(boxes[image["id"]], (-1, 4))), initial=0)
        )
        for image in truth["images"]
    }


def by_overlap(
    truth: dict, matches: coco.Matches, edges: tuple[float, ...] = EDGES
) -> list[dict]:
    """COCO's figures in bins of the images' largest box IoU.

    Args:
        truth: COCO ground truth.
        matches: of detections with it.
        edges: rising; a bin holds low <= IoU < high, the last one its upper edge too.

    Returns:
        For each bin `low`, `high`, `images`, `persons` (those that count: no crowd
        region, at least one joint) and the metrics of `coco.Matches`.
    """
    overlap = max_overlap(truth)
    counted = collections.Counter(
        item["image_id"]
        for item in truth["annotations"]
        if not item["iscrowd"] and item["num_keypoints"] > 0
    )
    inside = [set() for _ in edges[1:]]
    for image, value in overlap.items():
        where = np.searchsorted(edges, value, side="right") - 1
        inside[int(np.clip(where, 0, len(inside) - 1))].add(image)
    return [
        {"low": low, "high": high, "images": len(images)}
        | {"persons": sum(counted[image] for image in images)}
        | matches.metrics(images)
        for low, high, images in zip(edges[:-1], edges[1:], inside, strict=True)
    ]


def table(bins: list[dict]) -> str:
    """The bins for the screen: box IoU, images, persons, AP and AP50 in per cent."""
    lines = [f"{'box IoU':>9}{'images':>8}{'persons':>9}{'AP':>8}{'AP50':>8}"]
    for row in bins:
        values = [
            "-" if row[name] == coco.UNDEFINED else f"{100 * row[name]:.1f}"
            for name in ("AP", "AP50")
        ]
        span = f"{row['low']:.1f}-{row['high']:.1f}"
        counts = f"{row['images']:>8}{row['persons']:>9}"
        lines.append(f"{span:>9}{counts}{values[0]:>8}{values[1]:>8}")
    return "\n".join(lines)
