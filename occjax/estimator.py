"""A trained model as a function of images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from occjax.data import pipeline, views
from occjax.data.folder import Folder
from occjax.data.pictures import Pictures
from occjax.data.results import Result, around
from occjax.data.sources import skeleton_of
from occjax.errors import UserError
from occjax.runtime import processes, trained
from occjax.runtime.inference import Predictions
from occjax.runtime.options import Options
from occjax.types import Poses

_OWN = "data.detections", "data.eval_proposals"  # of the run's own test, not of ours


class Estimator:
    """Finds people on images with the last checkpoint of a run.

    Attributes:
        skeleton: the joints of its poses.
        needs: what it must be given beside images: "" for a model of whole images,
            "boxes" for one that sees a person at a time, "poses" for one that corrects
            the poses of another.
    """

    def __init__(self, workdir: epath.PathLike, chosen: Options):
        """Puts the weights on all devices.

        Args:
            workdir: of the run.
            chosen: how to look at images.

        Raises:
            UserError: there is no run, it is damaged, or a choice does not suit it.
        """
        for change in chosen.changes:
            if change.split("=")[0] in _OWN:
                raise UserError(f"--set={change}: boxes and poses come from --boxes.")
        number, config = trained.last(workdir, chosen.flip, chosen.changes)
        for score in chosen.scores:
            trained.rank_by(config, score)
        self._data: dict[str, Any] = config.data.to_dict() | {"eval_images": 0}
        for name in _OWN:
            self._data.pop(name.removeprefix("data."), None)
        self._scales = chosen.scales
        self.skeleton = skeleton_of(self._data)
        self._model = trained.load(workdir, number, config, self.skeleton)
        crops = "poses" if self._data.get("proposals") else "boxes"
        self.needs = crops if views.of_people(self._data) else ""

    def __call__(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        *,
        boxes: Sequence[Any] | None = None,
        poses: Sequence[Any] | None = None,
    ) -> Any:
        """The people on images, best first.

        Args:
            images: one [H, W, 3] uint8 RGB, or several of any sizes.
            boxes: for each image its people's boxes [N, 4], x, y, width and height.
            poses: for each image its people's poses [N, J, 3], x, y and confidence.

        Returns:
            NumPy `Poses` of an image, or of each: joints [N, J, 2] in its pixels,
            joint_score, visible and labelled [N, J], score [N].

        Raises:
            UserError: images, boxes or poses are not what they must be.
        """
        several = not isinstance(images, np.ndarray)
        pictures = list(images) if several else [images]
        _check_images(pictures)
        given = self._wanted(boxes=boxes, poses=poses)
        if given is not None and not several:
            given = [given]
        people = None if given is None else _people(given, self.needs, len(pictures))
        found = self.people(Pictures(pictures, self.skeleton, people))
        return found if several else found[0]

    def _wanted(self, **given: Sequence[Any] | None) -> Sequence[Any] | None:
        """What of boxes and poses this model needs; nothing else may be given."""
        for name, people in given.items():
            if people is not None and name != self.needs:
                needs = self.needs or "images alone"
                raise UserError(f"{name}: this model needs {needs}, found {name}.")
        return given.get(self.needs)

    def people(self, source: Pictures) -> list[Poses]:
        """The people of each image of a source, best first, as a call gives them.

        Raises:
            UserError: as `look`.
        """
        found = [self._nobody()] * len(source)
        if found and source.boxes != []:
            seen = self.look(source)
            for row, number in enumerate(seen.image_ids.tolist()):
                found[number - 1] = _best_first(seen.poses, row)
        return found

    def look(self, source: Pictures | Folder, show: bool = False) -> Predictions:
        """Padded poses of the images of a source; those without a box may be missing.

        All processes of a job must call it; each gets all poses.

        Args:
            source: the images.
            show: whether to show how far it is.

        Raises:
            UserError: boxes or poses are needed and there are none.
        """
        if self.needs and source.boxes is None:
            raise UserError(
                f"this model sees a person at a time: expected {self.needs} of people, "
                "found none."
            )
        count = len(source) if source.boxes is None else len(source.boxes)
        size = min(self._model.batch_size, 2 ** (count - 1).bit_length())
        batches = pipeline.test_batches(
            source,
            self._data,
            self._model.rounded(size),
            self._scales,
            **processes.share(),
        )
        return self._model.predict(batches, len(source) if show else 0)

    def _nobody(self) -> Poses:
        """Poses of no people."""
        shape = (0, self.skeleton.num_joints)
        one = np.zeros(shape, np.float32)
        return Poses(np.zeros((*shape, 2), np.float32), one, one, one, one[:, 0])


def _best_first(poses: Poses, row: int) -> Poses:
    """The people of one row [P, ...], without padding."""
    score = poses.score[row]
    order = np.argsort(-score, kind="stable")
    order = order[score[order] > -np.inf]
    return Poses._make(np.asarray(field[row])[order] for field in poses)


def _check_images(images: Sequence[Any]) -> None:
    """Raises UserError at what is no [H, W, 3] uint8."""
    for number, image in enumerate(images):
        shape, kind = np.shape(image), getattr(image, "dtype", type(image).__name__)
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or kind != np.uint8:
            raise UserError(
                f"image {number}: expected [H, W, 3] uint8 RGB, found {shape} {kind}."
            )


def _people(given: Sequence[Any], kind: str, images: int) -> list[Result]:
    """The boxes or poses of each image as one list."""
    if len(given) != images:
        raise UserError(f"{kind}: expected those of {images} images, got {len(given)}.")
    people = []
    for image, rows in enumerate(given):
        for row in np.asarray(rows, np.float64):
            pose = row if kind == "poses" else None
            box = row if pose is None else around(pose)
            if box.shape != (4,) or not np.isfinite(row).all() or max(box[2:]) <= 0:
                raise UserError(f"{kind} of image {image}: not usable: {row.tolist()}.")
            people.append(Result(image, box, 1.0, pose))
    return people
