"""The two public evaluators of OKS behind one face.

pycocotools is the reference. faster-coco-eval does the same in C++ and is the default:
its OKS, matches and recall are equal bit for bit, its precision but for 2.2e-16, which
pycocotools adds to the divisor. Either matches once; figures of some of the images only
accumulate anew.
"""

import abc
import contextlib
import copy
import importlib.metadata
import io
from collections.abc import Container, Sequence
from typing import Any, NamedTuple

import numpy as np

LIMIT = 20  # detections an image, the best, as COCO has it


class Curves(NamedTuple):
    """T thresholds, R recalls, K categories, A sizes of people; -1 where undefined."""

    precision: np.ndarray  # [T, R, K, A]
    recall: np.ndarray  # [T, K, A]


class Evaluator(abc.ABC):
    """Detections matched to people by COCO's keypoint protocol."""

    package = ""  # whose code does it

    def __init__(
        self,
        truth: dict,
        found: list[dict],
        sigmas: Sequence[float],
        limit: int = LIMIT,
    ):
        """Matches sound input; neither ground truth nor detections are changed.

        Args:
            truth: COCO ground truth.
            found: COCO result list.
            sigmas: of the J joints.
            limit: how many detections of an image count.
        """
        coco, scorer = self._classes()
        with _silence():
            # Copies, because the evaluators write their own keys into each item.
            people = [dict(item) for item in truth["annotations"]]
            annotated = _indexed(coco, truth | {"annotations": people})
            results = _load_results(coco, annotated, found)
            self.scorer = scorer(annotated, results, "keypoints")
            self.scorer.params.kpt_oks_sigmas = np.asarray(sigmas)
            self.scorer.params.maxDets = [limit]
            # One of them would leave out categories of which nobody is labelled.
            self.scorer.params.catIds = sorted(annotated.getCatIds())
            self.scorer.evaluate()

    @property
    def thresholds(self) -> np.ndarray:
        """The OKS from which a match counts, [T]."""
        return np.round(self.scorer.params.iouThrs, 2)

    @property
    def sizes(self) -> list[str]:
        """Names of the A classes of size."""
        return self.scorer.params.areaRngLbl

    def oks(self, image: int, category: int) -> np.ndarray:
        """OKS [D, G] of an image's detections, best first, with its annotations."""
        values = self.scorer.ious[image, category]
        return values if len(values) else np.zeros((0, 0))

    def curves(self, images: Container | None = None) -> Curves:
        """Precision and recall over the images with these ids, or over all."""
        with _silence():
            values = self._accumulate(images)
        # Of the limits on detections there is one.
        return Curves(values["precision"][..., 0], values["recall"][..., 0])

    @abc.abstractmethod
    def _classes(self) -> tuple[Any, Any]:
        """The package's reader and scorer, imported when they are wanted."""

    @abc.abstractmethod
    def _accumulate(self, images: Container | None) -> dict[str, np.ndarray]:
        """The scorer's tables over the images with these ids, or over all."""


class Pycocotools(Evaluator):
    """The reference."""

    package = "pycocotools"

    def _classes(self) -> tuple[Any, Any]:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval

    def _accumulate(self, images: Container | None) -> dict[str, np.ndarray]:
        params = copy.copy(self.scorer.params)
        if images is not None:
            # It finds an image by its place, so the others stay as gaps.
            params.imgIds = [i if i in images else None for i in params.imgIds]
        self.scorer.accumulate(params)
        return self.scorer.eval


class FasterCocoEval(Evaluator):
    """The same in C++."""

    package = "faster-coco-eval"

    def _classes(self) -> tuple[Any, Any]:
        import functools

        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, functools.partial(COCOeval_faster, separate_eval=True)

    def _accumulate(self, images: Container | None) -> dict[str, np.ndarray]:
        params = copy.copy(self.scorer.params)
        matched = self.scorer._evalImgs_cpp  # noqa: SLF001  by category, size, image
        if images is not None:
            kept = [index for index, i in enumerate(params.imgIds) if i in images]
            blocks = range(0, len(matched), max(len(params.imgIds), 1))
            params.imgIds = [params.imgIds[index] for index in kept]
            matched = [matched[block + index] for block in blocks for index in kept]
        # Its scorer cannot change the images between matching and accumulating.
        part = copy.copy(self.scorer)
        part._paramsEval, part._evalImgs_cpp = params, matched  # noqa: SLF001
        part.accumulate()
        return part.eval


BY_NAME = {kind.package: kind for kind in (Pycocotools, FasterCocoEval)}
DEFAULT = FasterCocoEval.package


def version(backend: str = DEFAULT) -> str:
    """Name and version of the package, as results state it."""
    return f"{backend} {importlib.metadata.version(backend)}"


def _silence() -> contextlib.AbstractContextManager:
    """Keeps pycocotools from printing as it goes."""
    return contextlib.redirect_stdout(io.StringIO())


def _indexed(coco: Any, dataset: dict) -> Any:
    index = coco()
    index.dataset = dataset
    index.createIndex()
    return index


def _load_results(coco: Any, annotated: Any, found: list[dict]) -> Any:
    """What the packages' own loadRes makes of a result list, without its cost.

    A detection's area decides its size class: that of the box if the first detection
    has one, as loadRes has it, else of the box around all joints.
    """
    if found and found[0].get("bbox"):
        areas = [item["bbox"][2] * item["bbox"][3] for item in found]
    else:
        areas = _extents([item["keypoints"] for item in found])
    results = [
        {
            **{"id": index, "image_id": item["image_id"], "area": area},
            **{"category_id": item["category_id"], "score": item["score"]},
            "keypoints": item["keypoints"],
        }
        for index, (item, area) in enumerate(zip(found, areas, strict=True), 1)
    ]
    return _indexed(coco, annotated.dataset | {"annotations": results})


def _extents(poses: list[list[float]]) -> list[float]:
    """Area of the box around the joints of each pose, some at a time to save memory."""
    areas = []
    for start in range(0, len(poses), 10_000):
        part = np.asarray(poses[start : start + 10_000], float)
        joints = part.reshape(len(part), -1, 3)[..., :2]
        areas += np.prod(np.ptp(joints, axis=1), axis=-1).tolist()
    return areas
