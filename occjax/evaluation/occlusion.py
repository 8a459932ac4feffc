"""AP as a function of how much of the people is hidden, and how crowded they are.

Two kinds of bins. Bins of images (box IoU, crowd index) hold the figures of these
images alone. Bins of people (labelled joints, crowding) score all images, but the other
people are ignored: who finds them is neither rewarded nor punished.
"""

import collections
from collections.abc import Callable

import numpy as np

from occjax.evaluation import coco, matching
from occjax.evaluation.pairs import Pairs
from occjax.evaluation.screen import percent

EDGES = (0.0, 0.3, 0.5, 0.7, 1.0)
LEVELS = {"easy": (0.0, 0.2), "medium": (0.2, 0.8), "hard": (0.8, np.inf)}
BESIDE = 0.1  # box IoU from which another person counts as crowding
NEIGHBOURS = ((0, 0), (1, 2), (3, None))
SMALLEST = (32.0**2, 1e10)  # people that OAKS's benchmarks look at, square pixels


def box_iou(boxes: np.ndarray) -> np.ndarray:
    """IoU of each box with each other one: [P, 4] (x, y, w, h) to [P, P].

    Zero on the diagonal and for boxes without extent.
    """
    boxes = np.asarray(boxes, float)  # CrowdPose's are whole numbers
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
    figures = _of_images(truth, matches)
    return [
        {"low": low, "high": high} | figures(images)
        for low, high, images in overlap_bins(truth, edges)
    ]


def overlap_bins(
    truth: dict, edges: tuple[float, ...] = EDGES
) -> list[tuple[float, float, set[int]]]:
    """Low, high and the image ids of each bin of `by_overlap`."""
    inside = [set() for _ in edges[1:]]
    for image, value in max_overlap(truth).items():
        where = np.searchsorted(edges, value, side="right") - 1
        inside[int(np.clip(where, 0, len(inside) - 1))].add(image)
    return list(zip(edges[:-1], edges[1:], inside, strict=True))


def by_crowd_index(truth: dict, matches: coco.Matches) -> list[dict]:
    """COCO's figures in CrowdPose's levels of the crowd index.

    Returns:
        For `name` easy (below 0.2), medium (below 0.8) and hard: `images`, `persons`
        and metrics as in `by_overlap`.
    """
    index = crowd_index(truth)
    figures = _of_images(truth, matches)
    return [
        {"name": name}
        | figures({image for image, value in index.items() if low <= value < high})
        for name, (low, high) in LEVELS.items()
    ]


def crowd_index(truth: dict) -> dict[int, float]:
    """Crowd index of each image by its id (CrowdPose, Li et al. 2019).

    The one stored as `crowdIndex`, or else: for each person with labelled joints, the
    labelled joints of the others that lie in its box, divided by its own; the mean of
    that over the people, rounded to two decimals; 0 where there is nobody.
    """
    people = collections.defaultdict(list)
    for item in truth["annotations"]:
        if _counts(item):
            people[item["image_id"]].append(item)
    return {
        image["id"]: float(image["crowdIndex"])
        if "crowdIndex" in image
        else _crowd_index(people[image["id"]])
        for image in truth["images"]
    }


def _crowd_index(people: list[dict]) -> float:
    if not people:
        return 0.0
    joints = np.array([item["keypoints"] for item in people], float)
    joints = joints.reshape(len(people), -1, 3)
    boxes = np.array([item["bbox"] for item in people], float)[:, None, None]
    labelled = joints[..., 2] > 0
    place = joints[..., :2] - boxes[..., :2]  # [box, person, joint, 2]
    inside = np.all((place >= 0) & (place <= boxes[..., 2:]), axis=-1) & labelled
    held = inside.sum(axis=-1)
    others = held.sum(axis=1) - np.diagonal(held)
    own = np.maximum(labelled.sum(axis=1), 1)
    return round(float(np.mean(others / own)), 2)


def by_joint_count(pairs: Pairs) -> list[dict]:
    """Figures in bins of a person's labelled joints, occluded ones included.

    For 17 joints the bins are those of OAKS (Zhao et al. 2020): 1-5, 6-10, 11-15 and
    16-17; for J joints the edges are 5 J / 17, 10 J / 17, J - 2 and J, rounded down.

    Returns:
        For each bin `low` and `high` (both inside), `images`, `persons`, `AP`, `AP50`,
        `AP75`, `AR`, and `AP75_from_32`: AP75 of people and detections of 32² pixels
        or more, the paper's benchmark.
    """
    return [
        {"low": low, "high": high}
        | _of_people(pairs, only)
        | {"AP75_from_32": matching.score(pairs, only, SMALLEST)["AP75"]}
        for low, high, only in joint_count_bins(pairs)
    ]


def joint_count_bins(pairs: Pairs) -> list[tuple[int, int, np.ndarray]]:
    """Lowest and highest count of each bin of labelled joints, and its people [G]."""
    joints = pairs.skeleton.num_joints
    count = pairs.people.labelled.sum(axis=1)
    edges = (0, 5 * joints // 17, 10 * joints // 17, joints - 2, joints)
    return [
        (low + 1, high, pairs.people.counts & (count > low) & (count <= high))
        for low, high in zip(edges[:-1], edges[1:], strict=True)
    ]


def by_crowding(pairs: Pairs) -> list[dict]:
    """Figures in bins of how many others a person's box overlaps by IoU > 0.1.

    Crowd regions are nobody; all others in the image do count, as in `max_overlap`.

    Returns:
        For each bin `low` and `high` (both inside; None: no end), `images`, `persons`,
        `AP`, `AP50`, `AP75` and `AR`.
    """
    beside = neighbours(pairs)
    return [
        {"low": low, "high": high}
        | _of_people(
            pairs,
            (beside >= low) & (beside <= (np.inf if high is None else high)),
        )
        for low, high in NEIGHBOURS
    ]


def neighbours(pairs: Pairs) -> np.ndarray:
    """[G] how many other people's boxes overlap a person's by IoU > 0.1."""
    people = pairs.people
    beside = np.zeros(len(people.area), int)
    rows = np.flatnonzero(~people.crowd)
    _, starts = np.unique(people.image[rows], return_index=True)
    for group in np.split(rows, starts[1:]):
        beside[group] = np.sum(box_iou(people.boxes[group]) > BESIDE, axis=1)
    return beside


def _of_people(pairs: Pairs, only: np.ndarray) -> dict:
    chosen = pairs.people.counts & only
    images = len(np.unique(pairs.people.image[chosen]))
    counts = {"images": images, "persons": int(chosen.sum())}
    return counts | matching.score(pairs, only)


def _of_images(truth: dict, matches: coco.Matches) -> Callable[[set], dict]:
    """What gives the counts and metrics of a set of image ids."""
    persons = collections.Counter(
        item["image_id"] for item in truth["annotations"] if _counts(item)
    )

    def figures(images: set) -> dict:
        counts = {"images": len(images), "persons": sum(persons[i] for i in images)}
        return counts | matches.metrics(images)

    return figures


def _counts(item: dict) -> bool:
    """Whether COCO's protocol wants the person of an annotation found."""
    return not item["iscrowd"] and item["num_keypoints"] > 0


def table(bins: list[dict], title: str = "box IoU") -> str:
    """Bins for the screen: range, images, persons, AP and AP50 in per cent."""
    lines = [f"{title:>9}{'images':>8}{'persons':>9}{'AP':>8}{'AP50':>8}"]
    for row in bins:
        counts = f"{row['images']:>8}{row['persons']:>9}"
        values = "".join(f"{percent(row[name]):>8}" for name in ("AP", "AP50"))
        lines.append(f"{span(row):>9}{counts}{values}")
    return "\n".join(lines)


def span(row: dict) -> str:
    """What a bin holds, in a few characters: 0.3-0.5, hard, 3- or 11-15."""
    if "name" in row:
        return row["name"]
    low, high = row["low"], row["high"]
    if isinstance(low, float):
        return f"{low:.1f}-{high:.1f}"
    return f"{low}-" if high is None else f"{low}" if low == high else f"{low}-{high}"
