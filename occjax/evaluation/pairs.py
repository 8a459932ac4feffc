"""Every detection beside every annotated person of its image, as flat arrays.

The occlusion view asks many questions about the same detections and people. Their
similarities are computed here once. Shape letters: N images, D detections, G annotated
people, M pairs, J joints; rows of one array are named by indices in another.
"""

import dataclasses

import numpy as np

from occjax.errors import UserError
from occjax.evaluation import oks
from occjax.skeletons import Skeleton
from occjax.types import UNLABELLED

MOST = 20  # detections of an image that COCO's protocol looks at


@dataclasses.dataclass(frozen=True)
class People:
    """Annotated people, sorted by image.

    Attributes:
        image: [G] row of the image.
        slot: [G] place of the person within the image.
        joints: [G, J, 3] x, y, visibility.
        area: [G] square pixels.
        boxes: [G, 4] x, y, width, height.
        crowd: [G] bool, a region instead of a person.
        counts: [G] bool, has to be found; the others are neither missed nor false.
    """

    image: np.ndarray
    slot: np.ndarray
    joints: np.ndarray
    area: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    counts: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """[G, J] bool, which joints have a label."""
        return self.joints[..., 2] > UNLABELLED


@dataclasses.dataclass(frozen=True)
class Found:
    """The best detections of each image, sorted by image, then as in their list.

    Attributes:
        index: [D] place in the list they came from.
        image: [D] row of the image.
        joints: [D, J, 2].
        score: [D].
        area: [D] square pixels, of the box if there is one or else of the joints.
        joint_score: [D, J].
        visible: [D, J] predicted probability of being seen, NaN where not predicted.
        labelled: [D, J] that of having a label, likewise.
    """

    index: np.ndarray
    image: np.ndarray
    joints: np.ndarray
    score: np.ndarray
    area: np.ndarray
    joint_score: np.ndarray
    visible: np.ndarray
    labelled: np.ndarray

    @property
    def rank(self) -> np.ndarray:
        """[D] place by score within the image; equals keep their order."""
        rank = np.empty(len(self.score), int)
        order = np.lexsort((-self.score, self.image))
        rank[order] = _slots(self.image)
        return rank


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Detections, people, and how similar they are within each image.

    Attributes:
        skeleton: of both.
        images: [N] ids, rising.
        people: everybody annotated.
        found: everybody detected, at most 20 in an image.
        detection, person: [M] rows of the two of a pair, sorted by detection.
        similarity: [M, J] of each joint; see `oks.oks`.
        oks: [M].
    """

    skeleton: Skeleton
    images: np.ndarray
    people: People
    found: Found
    detection: np.ndarray
    person: np.ndarray
    similarity: np.ndarray
    oks: np.ndarray

    def with_scores(self, score: np.ndarray) -> "Pairs":
        """The same detections with other scores [D]."""
        return dataclasses.replace(
            self, found=dataclasses.replace(self.found, score=score)
        )

    def with_joints(self, joints: np.ndarray) -> "Pairs":
        """The same with other joints [D, J, 2] and so another OKS; areas stay."""
        found = dataclasses.replace(self.found, joints=joints)
        return join(self.skeleton, self.images, self.people, found)

    def best(self) -> np.ndarray:
        """[D] highest OKS of each detection with a person that counts, else 0."""
        best = np.zeros(len(self.found.score))
        counts = self.people.counts[self.person]
        np.maximum.at(best, self.detection[counts], self.oks[counts])
        return best


def gather(
    truth: dict,
    found: list[dict],
    skeleton: Skeleton,
    names: tuple[str, str] = ("ground truth", "detections"),
) -> Pairs:
    """All pairs of ground truth and detections that `coco.Matches` has accepted.

    Args:
        truth: COCO ground truth; its `area` and `num_keypoints` are those that the
            protocol wants.
        found: COCO result list; `visible` and `labelled` [J] of an item are read if
            they are there.
        skeleton: the joints of both.
        names: what error messages call the two, such as their paths.

    Raises:
        UserError: there is more than one category, or a `visible` or `labelled` is no
            list of J numbers from 0 to 1.
    """
    if len(truth["categories"]) != 1:
        kinds = sorted(item["id"] for item in truth["categories"])
        raise UserError(f"{names[0]}: expected one category, got {kinds}.")
    images = np.unique([item["id"] for item in truth["images"]])
    return join(
        skeleton,
        images,
        _people(truth["annotations"], images, skeleton.num_joints),
        _found(found, images, skeleton.num_joints, names[1]),
    )


def join(skeleton: Skeleton, images: np.ndarray, people: People, found: Found) -> Pairs:
    """Pairs of all detections and people who share an image."""
    held = np.bincount(people.image, minlength=len(images))  # people of an image
    first = np.cumsum(held) - held
    partners = held[found.image]
    detection = np.repeat(np.arange(len(found.score)), partners)
    before = np.repeat(np.cumsum(partners) - partners, partners)
    start = np.repeat(first[found.image], partners)
    person = start + np.arange(len(detection)) - before
    values, similarity = oks.oks(
        found.joints[detection],
        people.joints[person],
        people.area[person],
        people.boxes[person],
        np.asarray(skeleton.sigmas),
    )
    return Pairs(skeleton, images, people, found, detection, person, similarity, values)


def _people(annotations: list[dict], images: np.ndarray, count: int) -> People:
    image = np.searchsorted(images, [item["image_id"] for item in annotations])
    order = np.argsort(image, kind="stable")
    items = [annotations[row] for row in order]
    crowd = np.array([bool(item["iscrowd"]) for item in items], bool)
    labelled = np.array([item["num_keypoints"] > 0 for item in items], bool)
    return People(
        image=image[order],
        slot=_slots(image),
        joints=_array([item["keypoints"] for item in items], count, 3),
        area=np.array([item["area"] for item in items], float),
        boxes=_array([item["bbox"] for item in items], 4),
        crowd=crowd,
        counts=labelled & ~crowd,
    )


def _found(items: list[dict], images: np.ndarray, count: int, name: str) -> Found:
    keypoints = _array([item["keypoints"] for item in items], count, 3)
    joints = keypoints[..., :2]
    area = np.prod(np.ptp(joints, axis=1), axis=-1)
    if items and items[0].get("bbox"):  # pycocotools then takes everybody's box
        area = np.prod(_array([item["bbox"] for item in items], 4)[:, 2:], axis=-1)
    found = Found(
        index=np.arange(len(items)),
        image=np.searchsorted(images, [item["image_id"] for item in items]),
        joints=joints,
        score=np.array([item["score"] for item in items], float),
        area=area,
        joint_score=keypoints[..., 2],
        visible=_probability("visible", items, count, name),
        labelled=_probability("labelled", items, count, name),
    )
    order = np.argsort(found.image, kind="stable")
    order = order[_take(found, order).rank < MOST]
    return _take(found, order)


def _take(found: Found, rows: np.ndarray) -> Found:
    return Found(**{key: value[rows] for key, value in vars(found).items()})


def _probability(key: str, items: list[dict], count: int, name: str) -> np.ndarray:
    """What items predict of each joint [D, J], NaN where an item has no such key."""
    found = np.full((len(items), count), np.nan)
    for index, item in enumerate(items):
        if key not in item:
            continue
        try:
            values = np.array(item[key], float)
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.shape != (count,) or not np.all((values >= 0) & (values <= 1)):
            raise UserError(
                f"{name}: item {index}: expected {key} to be {count} numbers "
                f"from 0 to 1, got {str(item[key])[:60]}."
            )
        found[index] = values
    return found


def _array(rows: list, *shape: int) -> np.ndarray:
    """Lists of numbers as [len(rows), *shape], also where there is no row."""
    return np.array(rows, float).reshape(len(rows), *shape)


def _slots(image: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each image, for image rows in rising order."""
    image = np.sort(image)
    return np.arange(len(image)) - np.searchsorted(image, image)
