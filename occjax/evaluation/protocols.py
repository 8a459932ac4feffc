"""How each dataset is scored by OKS: whose joints, which area, which detections count.

A protocol turns ground truth and detections into the form in which the evaluators,
and the view by occlusion, need no knowledge of the dataset: people have the `area` and
`num_keypoints` that count, and detections that do not count are gone.
"""

import dataclasses
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from occjax import skeletons
from occjax.errors import UserError
from occjax.evaluation import checks, coco, evaluators
from occjax.skeletons import Skeleton
from occjax.types import OCCLUDED, UNLABELLED, VISIBLE

LEVELS = (("easy", -math.inf, 0.2), ("medium", 0.2, 0.8), ("hard", 0.8, math.inf))
NEAR = 0.3  # box IoU from which a detection is of an annotated person
_NAMES = ("ground truth", "detections")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What makes OKS and AP of a dataset.

    Attributes:
        name: key of `BY_NAME`.
        skeleton: the joints that count, with their sigmas.
        file_skeleton: the joints of the ground truth's file, of which those of
            `skeleton` come first; None: the same.
        area: key of `AREAS`, the square of a person's scale.
        sizes: whether medium and large people are told apart.
        levels: crowd levels as (name, low, high), low <= crowd index < high.
        recount: whether joints labelled by somebody else (visibility 3) count, as
            occluded ones, and people are counted by them.
        kept: key of `KEPT`, the detections that count.
        limit: how many detections of an image count, the best.
    """

    name: str
    skeleton: Skeleton
    file_skeleton: Skeleton | None = None
    area: str = "annotated"
    sizes: bool = True
    levels: tuple[tuple[str, float, float], ...] = ()
    recount: bool = False
    kept: str = "all"
    limit: int = evaluators.LIMIT

    def truth(self, truth: Any, name: str = _NAMES[0]) -> dict:
        """Ground truth as it is scored.

        Args:
            truth: what a COCO json file held; it is not changed.
            name: of the file, for errors.

        Raises:
            UserError: an item is malformed, or lacks what the protocol asks for.
        """
        joints = self.file_skeleton or self.skeleton
        checks.check_ground_truth(truth, joints, name, area=self.area == "annotated")
        _check_levels(self, truth, name)
        people = truth["annotations"]
        if self.recount:
            people = [_recounted(item) for item in people]
        if self.area != "annotated":
            area_of = AREAS[self.area](truth, name)
            people = [item | {"area": area_of(item)} for item in people]
        people = _cut(people, self.skeleton)
        return truth if people is truth["annotations"] else _with(truth, people, self)

    def found(self, truth: dict, found: Any, name: str = _NAMES[1]) -> list[dict]:
        """Detections that count, with the joints that count.

        Where the file has more joints than count, detections may have either number.

        Args:
            truth: from `truth`.
            found: what a COCO result file held; it is not changed.
            name: of the file, for errors.

        Raises:
            UserError: an item is malformed.
        """
        checks.check_detections(found, truth, self._joints_of(found), name)
        return KEPT[self.kept](truth, _cut(found, self.skeleton), self.skeleton)

    def match(
        self,
        truth: Any,
        found: Any,
        names: tuple[str, str] = _NAMES,
        backend: str = evaluators.DEFAULT,
    ) -> tuple[dict, list[dict], coco.Matches]:
        """Ground truth and detections as they are scored, and their matches.

        Raises:
            UserError: as `truth` and `found`.
        """
        truth = self.truth(truth, names[0])
        found = self.found(truth, found, names[1])
        matches = coco.Matches(
            truth, found, self.skeleton, names, backend=backend, limit=self.limit
        )
        return truth, found, matches

    def metrics(self, truth: dict, matches: coco.Matches) -> dict[str, float]:
        """AP and AR as fractions, -1 where undefined: what the protocol reports.

        Those of `coco.Matches`, without sizes where the protocol has none, and AP and
        AR of its levels of crowding: `AP_crowd_easy`, ..., `AR_crowd_hard`.
        """
        metrics = matches.metrics()
        if not self.sizes:
            metrics = {n: v for n, v in metrics.items() if not n.endswith(_SIZES)}
        index = {image["id"]: image.get("crowdIndex") for image in truth["images"]}
        for level, low, high in self.levels:
            images = {i for i, value in index.items() if low <= value < high}
            part = matches.metrics(images)
            metrics |= {f"{kind}_crowd_{level}": part[kind] for kind in ("AP", "AR")}
        return metrics

    def stamp(self, backend: str = evaluators.DEFAULT) -> dict[str, Any]:
        """What has to agree for two results to be comparable."""
        return {
            "protocol": self.name,
            "evaluator": evaluators.version(backend),
            "measure": "OKS",
            "joints": self.skeleton.num_joints,
            "area": self.area,
            "thresholds": "0.50:0.05:0.95",
            "detections_an_image": self.limit,
            "detections_kept": self.kept,
        }

    def _joints_of(self, found: Any) -> Skeleton:
        """The skeleton of whichever file the first detection was made for."""
        first = found[0] if isinstance(found, list) and found else None
        flat = first.get("keypoints") if isinstance(first, dict) else None
        cut = isinstance(flat, list) and len(flat) == 3 * self.skeleton.num_joints
        return self.skeleton if cut else self.file_skeleton or self.skeleton


_SIZES = ("_medium", "_large")


def _check_levels(protocol: Protocol, truth: dict, name: str) -> None:
    for image in truth["images"] if protocol.levels else ():
        index = image.get("crowdIndex")
        if type(index) not in (int, float) or not index >= 0:
            raise UserError(
                f"{name}: image {image['id']}: {protocol.name} needs a crowdIndex of "
                f"0 or more, found {index!r}."
            )


def _with(truth: dict, people: list[dict], protocol: Protocol) -> dict:
    names = {"keypoints": list(protocol.skeleton.joints)}
    kinds = [item | names for item in truth["categories"]]
    return truth | {"annotations": people, "categories": kinds}


def _cut(items: list[dict], skeleton: Skeleton) -> list[dict]:
    """The items with the first joints alone; the same list if they have no more."""
    width = 3 * skeleton.num_joints
    if not items or len(items[0]["keypoints"]) == width:
        return items
    return [item | {"keypoints": item["keypoints"][:width]} for item in items]


def _recounted(item: dict) -> dict:
    """COCO-RE: joints that somebody labelled anew have visibility 3."""
    flags = [OCCLUDED if flag > VISIBLE else flag for flag in item["keypoints"][2::3]]
    flat = list(item["keypoints"])
    flat[2::3] = flags
    labelled = sum(flag > UNLABELLED for flag in flags)
    return item | {"keypoints": flat, "num_keypoints": labelled}


def _box_area(truth: dict, name: str) -> Callable[[dict], float]:
    """CrowdPose: people cover about half of their box."""
    del truth, name
    # In the order of CrowdPose's evaluator, so that figures agree to the last bit.
    return lambda item: float(item["bbox"][3] * item["bbox"][2] * 0.53)


def _mask_area(truth: dict, name: str) -> Callable[[dict], float]:
    """Pixels of the annotated mask; people who do not count keep what they have."""
    sizes = {item["id"]: item for item in truth["images"]}

    def area(item: dict) -> float:
        if item["iscrowd"] or not item["num_keypoints"]:
            return float(item.get("area", 0))
        try:
            return _pixels(item["segmentation"], sizes[item["image_id"]])
        except Exception as error:  # noqa: BLE001  the C code raises plain Exceptions
            raise UserError(
                f"{name}: annotation {item['id']}: expected polygons or run lengths as "
                f"segmentation, in an image with height and width: {error!r}."
            ) from error

    return area


def _pixels(shape: Any, image: dict) -> float:
    """Area of a COCO segmentation: polygons, or run lengths, packed or not."""
    mask: Any = importlib.import_module("pycocotools.mask")

    if not isinstance(shape, dict) or isinstance(shape["counts"], list):
        shape = mask.frPyObjects(shape, image["height"], image["width"])
    return float(mask.area(mask.merge(shape) if isinstance(shape, list) else shape))


AREAS = {"annotated": None, "box x 0.53": _box_area, "mask": _mask_area}


def _sure(truth: dict, found: list[dict], skeleton: Skeleton) -> list[dict]:
    """CrowdPose's evaluator skips poses in which no joint has a confidence above 0."""
    del truth, skeleton
    return [
        item for item in found if any(score > 0 for score in item["keypoints"][2::3])
    ]


def _near(truth: dict, found: list[dict], skeleton: Skeleton) -> list[dict]:
    """Detections whose box meets an annotated one with an IoU of `NEAR` or more.

    OCPose labels two people of each image; who stands behind them is no false alarm.
    Joints do not decide, unless the results have no boxes: then the box around all
    joints stands in, as in pycocotools.
    """
    del skeleton
    iou: Any = importlib.import_module("pycocotools.mask").iou
    targets = coco.by_image(x for x in truth["annotations"] if not x["iscrowd"])
    kept = []
    for item in found:
        boxes = [target["bbox"] for target in targets.get(item["image_id"], ())]
        if boxes and np.max(iou([_box(item)], boxes, [0] * len(boxes))) >= NEAR:
            kept.append(item)
    return kept


def _box(item: dict) -> Sequence[float]:
    if item.get("bbox"):
        return item["bbox"]
    x, y = item["keypoints"][0::3], item["keypoints"][1::3]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def _oracle(truth: dict, found: list[dict], skeleton: Skeleton) -> list[dict]:
    """For each person that counts, the detection of the largest OKS above 0."""
    places = coco.by_image(item | {"place": i} for i, item in enumerate(found))
    most = max(map(len, places.values()), default=1)
    matches = coco.Matches(truth, found, skeleton, limit=most)
    kept = set()
    for image, people in coco.by_image(truth["annotations"]).items():
        # Rows go by falling score, equal ones in the order of the list.
        rows = sorted(places.get(image, ()), key=lambda item: -item["score"])
        for category in {item["category_id"] for item in people}:
            of = [item for item in rows if item["category_id"] == category]
            there = [item for item in people if item["category_id"] == category]
            oks = matches.evaluator.oks(image, category)
            for person, values in zip(there, oks.T, strict=False):
                counts = person["num_keypoints"] > 0 and not person["iscrowd"]
                if counts and np.max(values) > 0:
                    kept.add(of[int(np.argmax(values))]["place"])
    return [found[place] for place in sorted(kept)]


KEPT = {
    "all": lambda truth, found, skeleton: found,
    "confident": _sure,
    "near targets": _near,
    "oracle": _oracle,
}

_CROWD = {"area": "box x 0.53", "sizes": False}
_OCPOSE = Protocol("ocpose", skeletons.OCPOSE, **_CROWD, kept="near targets")

# OCHuman's public files give a person the area of the box: larger than the mask, so OKS
# is kinder. OPEC-Net reads the first 12 joints of CrowdPose, without head and neck.
BY_NAME = {
    protocol.name: protocol
    for protocol in (
        Protocol("coco", skeletons.COCO),
        Protocol("coco-re", skeletons.COCO, recount=True),
        Protocol(
            "crowdpose", skeletons.CROWDPOSE, **_CROWD, levels=LEVELS, kept="confident"
        ),
        Protocol(
            **{"name": "crowdpose-12", "skeleton": skeletons.OCPOSE, "levels": LEVELS},
            **{"file_skeleton": skeletons.CROWDPOSE, "kept": "confident"} | _CROWD,
        ),
        Protocol("ochuman", skeletons.COCO),
        Protocol("ochuman-mask", skeletons.COCO, area="mask"),
        _OCPOSE,
        dataclasses.replace(_OCPOSE, name="ocpose-all", kept="all"),
        dataclasses.replace(_OCPOSE, name="ocpose-oracle", kept="oracle"),
    )
}
