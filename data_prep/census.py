"""Counts how crowded and how hidden the people of a dataset are."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import tqdm

from data_prep import importer, persons
from data_prep.account import Account
from occjax.data import records, sources
from occjax.evaluation import occlusion
from occjax.skeletons import Skeleton
from occjax.types import OCCLUDED, UNLABELLED, VISIBLE

# Overlap as OPEC-Net's Table 1 has it: of an image, the largest IoU of two boxes.
_IOUS = (0.3, 0.5, 0.75)
# Labelled joints to a person, almost all hidden to none, as OAKS groups them.
_LABELLED = ((1, 5), (6, 10), (11, 15), (16, math.inf))
# Easy, medium and hard images, as CrowdPose's evaluator splits them.
_CROWDING = (0.2, 0.8)
_MARKS = {UNLABELLED: "unlabelled", OCCLUDED: "occluded", VISIBLE: "visible"}


class Scene(NamedTuple):
    """What counts of one image."""

    people: Mapping[str, Any]  # columns of a record
    crowd_index: float  # as stored; -1 unknown


class Census(NamedTuple):
    """How crowded and how hidden the people of a split are; N images.

    Attributes:
        persons: single people, crowd regions left out.
        labelled: [L] labelled joints of each of these who has any.
        joints: of those people, by visibility.
        marked: images with a visible joint: in the others nothing tells which joints
            are hidden.
        box_iou: [N] the largest IoU of two annotated boxes, crowd regions included;
            0 with fewer than two.
        people_iou: [N] the same of single people with joints.
        stored: [N] crowd index of the file; -1 unknown.
        crowd_index: [N] the same from boxes and joints.
        dropped: annotations that cannot be used.
    """

    persons: int
    labelled: np.ndarray
    joints: dict[str, int]
    marked: int
    box_iou: np.ndarray
    people_iou: np.ndarray
    stored: np.ndarray
    crowd_index: np.ndarray
    dropped: int = 0


def of_source(source: sources.Source) -> Census:
    """Counts a split on disk or the built-in crowd."""
    order = tqdm.trange(len(source), unit=" images", disable=None)
    found = (source[index] for index in order)
    scenes = (Scene(one["persons"], float(one["crowd_index"])) for one in found)
    return take(scenes, source.skeleton)


def of_file(content: Mapping[str, Any], skeleton: Skeleton) -> Census:
    """Counts the content of a COCO-format file, whose images need not be there."""
    account = Account()
    found = take(_scenes(content, skeleton, account), skeleton)
    return found._replace(dropped=sum(account.dropped["persons"].values()))


def take(scenes: Iterable[Scene], skeleton: Skeleton) -> Census:
    """Counts people, joints and overlaps of images."""
    joints = dict.fromkeys(_MARKS.values(), 0)
    everyone = marked = 0
    labelled, box_iou, people_iou, stored, index = [], [], [], [], []
    for people, crowd_index in scenes:
        boxes = np.asarray(people["bbox"], float)
        places = np.asarray(people["joints"])
        single = ~np.asarray(people["is_crowd"], bool)
        chosen = single & records.labelled(people)
        everyone += int(single.sum())
        marks = places[chosen, :, 2]
        marked += bool(np.any(marks == VISIBLE))
        labelled += np.sum(marks > 0, axis=1).tolist()
        for value, name in _MARKS.items():
            joints[name] += int(np.sum(marks == value))
        box_iou.append(np.max(occlusion.box_iou(boxes), initial=0))
        people_iou.append(np.max(occlusion.box_iou(boxes[chosen]), initial=0))
        stored.append(crowd_index)
        counted = single & _has_limbs(places, skeleton)
        index.append(records.crowd_index(places[counted], boxes[counted]))
    return Census(
        persons=everyone,
        labelled=np.array(labelled, int),
        joints=joints,
        marked=marked,
        box_iou=np.array(box_iou, float),
        people_iou=np.array(people_iou, float),
        stored=np.array(stored, float),
        crowd_index=np.array(index, float),
    )


def table(found: Census) -> str:
    """The counts, for people."""
    images, people = len(found.stored), len(found.labelled)
    lines = [
        f"{'images':32}{images:8}",
        _row("  with a joint marked visible", found.marked, images),
        f"{'people':32}{found.persons:8}",
        f"{'people with joints':32}{people:8}",
    ]
    if found.dropped:
        lines.append(f"{'annotations that are damaged':32}{found.dropped:8}")
    for low, high in _LABELLED:
        count = np.sum((found.labelled >= low) & (found.labelled <= high))
        span = f"{low} or more" if high == math.inf else f"{low} to {high}"
        lines.append(_row(f"  with {span} joints", count, people))
    total = sum(found.joints.values())
    lines += [_row(f"joints {name}", n, total) for name, n in found.joints.items()]
    for title, overlap in (("boxes", found.box_iou), ("people", found.people_iou)):
        lines.append(f"{f'largest IoU of {title}, mean':32}{_mean(overlap):8.3f}")
        lines += [
            _row(f"  images above {limit}", np.sum(overlap > limit), images)
            for limit in _IOUS
        ]
    known = found.stored >= 0
    columns = {"crowd index, computed": found.crowd_index}
    if known.any():
        columns["crowd index, stored"] = found.stored[known]
        # NumPy rounds ties as CrowdPose's tools did.
        same = np.round(found.crowd_index[known], 2) == found.stored[known].round(2)
    for title, values in columns.items():
        lines.append(f"{f'{title}, mean':32}{_mean(values):8.3f}")
        low, high = _CROWDING
        groups = {
            f"  easy, below {low}": values < low,
            f"  medium, below {high}": (values >= low) & (values < high),
            "  hard": values >= high,
        }
        lines += [_row(name, np.sum(group), len(values))
                  for name, group in groups.items()]  # fmt: skip
    if known.any():
        lines.append(_row("  stored and computed are equal", np.sum(same), len(same)))
    return "\n".join(lines)


def _row(title: str, count: Any, total: int) -> str:
    return f"{title:32}{int(count):8}  {count / max(total, 1):6.1%}"


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _has_limbs(joints: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """People [P] whom CrowdPose's index counts: head and neck alone are none."""
    counted = [name not in ("head", "neck") for name in skeleton.joints]
    return np.any(joints[:, counted, 2] > 0, axis=1)


def _scenes(
    content: Mapping[str, Any], skeleton: Skeleton, account: Account
) -> Iterator[Scene]:
    """The images of a file with their usable people, checked as for a dataset."""
    for task in importer.tasks(content, account):
        size = task["entry"].get("height"), task["entry"].get("width")
        shape: Any = size if all(map(persons.is_number, size)) else (math.inf, math.inf)
        people = []
        for annotation in task["annotations"]:
            # Segments take most of the time and count for nothing here.
            bare = {**annotation, "segmentation": None}
            try:
                people.append(persons.check(bare, shape, skeleton.num_joints, account))
            except persons.Unusable as reason:
                account.drop("persons", str(reason))
        columns = persons.columns(people, skeleton.num_joints)
        yield Scene(columns, importer.crowd_index(task["entry"]))
