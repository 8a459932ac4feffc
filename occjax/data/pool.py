"""People cut out of images, to be pasted over others.

The rules for whom to cut are those of the spec of DAG, section 2.3: big enough, with
joints, and with nobody near who could hide a part.
"""

import functools
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
from etils import epath
from faster_coco_eval.core import mask as run_lengths

from occjax import files, skeletons
from occjax.data import convert, records, staging
from occjax.errors import UserError
from occjax.skeletons import Skeleton

MIN_JOINTS, MIN_AREA, MIN_FILLED = 6, 64 * 64, 0.3
MARGIN, MAX_IOU = 3, 0.1
_DAMAGE = (OSError, EOFError, zipfile.BadZipFile)
_LONGEST = 320  # pixels of a stored person: more than a crop can show
_QUALITY = 95  # of the stored JPEG
_CROWD = 200  # scenes of the built-in crowd to cut from; some people are refused
_SEED = 7_000_000  # even, so of a training split, and not likely anybody's


class Instance(NamedTuple):
    """One person without surroundings. Coordinates are pixels of the image."""

    image: np.ndarray  # [h, w, 3] uint8 RGB, with what is behind the person
    mask: np.ndarray  # [h, w] uint8, 255 on the person
    joints: np.ndarray  # [J, 3] float32 x, y, visibility
    whole: bool  # knees or ankles are labelled


def refusals(record: records.Record) -> list[str]:
    """Why each of the P people of a record cannot be cut out; "" for those who can."""
    persons = record["persons"]
    boxes = np.asarray(persons["bbox"], np.float64)
    size = np.array([record["width"], record["height"]])
    counts = np.sum(persons["joints"][:, :, 2] > 0, axis=1)
    inside = np.all(boxes[:, :2] >= MARGIN, axis=1)
    inside &= np.all(boxes[:, :2] + boxes[:, 2:] <= size - MARGIN, axis=1)
    alone = _largest_iou(boxes) < MAX_IOU
    reasons = []
    for row, counted in enumerate(counts):
        filled = _area(persons["segmentation"][row], size)
        reason = ""
        if persons["is_crowd"][row]:
            reason = "crowd region"
        elif counted < MIN_JOINTS:
            reason = f"fewer than {MIN_JOINTS} labelled joints"
        elif not persons["segmentation"][row]:
            reason = "without segmentation"
        elif filled < MIN_AREA:
            reason = f"segment of less than {MIN_AREA} pixels"
        elif not inside[row]:
            reason = f"box within {MARGIN} pixels of the image's border"
        elif not alone[row]:
            reason = f"box IoU with another person of {MAX_IOU} or more"
        elif filled < MIN_FILLED * boxes[row, 2] * boxes[row, 3]:
            reason = f"segment fills less than {MIN_FILLED} of its box"
        reasons.append(reason)
    return reasons


def is_whole(joints: np.ndarray, skeleton: Skeleton) -> bool:
    """Whether a knee or ankle is among a person's labelled joints [J, 3]."""
    low = [name.endswith(("knee", "ankle")) for name in skeleton.joints]
    return bool(np.any(joints[low, 2] > 0))


def cut(record: records.Record, row: int, skeleton: Skeleton) -> Instance:
    """Cuts one person out, at most 320 pixels long.

    Raises:
        UserError: the image cannot be read.
    """
    image = records.pixels(record)
    counts = bytes(record["persons"]["segmentation"][row])
    mask = run_lengths.decode({"size": list(image.shape[:2]), "counts": counts})
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask))
    # The nearest surroundings go along, so that scaling mixes in no black.
    x, y = max(left - 2, 0), max(top - 2, 0)
    window = np.s_[y : top + height + 2, x : left + width + 2]
    part, shape = image[window], 255 * mask[window]
    joints = np.array(record["persons"]["joints"][row], np.float32)
    joints[:, :2] -= (x, y)
    factor = min(1.0, _LONGEST / max(shape.shape))
    if factor < 1:
        size = tuple(max(1, round(factor * side)) for side in shape.shape[::-1])
        ratio = np.array(size) / shape.shape[::-1]
        part, shape = (cv2.resize(a, size, None, 0, 0, cv2.INTER_AREA)
                       for a in (part, shape))  # fmt: skip
        # Pixel centres are on integers, so pixel edges are what scales.
        joints[:, :2] = (joints[:, :2] + 0.5) * ratio - 0.5
    joints[joints[:, 2] == 0] = 0
    return Instance(part, shape, joints, is_whole(joints, skeleton))


class Pool:
    """Random access to people, kept encoded.

    Attributes:
        skeleton: J joints of its people.
        facts: where they come from.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        columns: Mapping[str, np.ndarray],
        facts: Mapping[str, Any],
    ):
        """Takes what `save` wrote; see `of` and `load`."""
        self.skeleton, self.facts = skeleton, dict(facts)
        self._columns = dict(columns)

    @classmethod
    def of(
        cls,
        instances: Iterable[Instance],
        skeleton: Skeleton,
        facts: Mapping[str, Any],
        image_ids: Iterable[int] = (),
    ) -> "Pool":
        """Encodes people; `image_ids` are of the images they come from."""
        images, masks, joints, whole = [], [], [], []
        for one in instances:
            images.append(_encoded(one.image[..., ::-1], ".jpg"))
            masks.append(_encoded(one.mask, ".png"))
            joints.append(one.joints)
            whole.append(one.whole)
        columns = {
            "images": np.concatenate([*images, np.zeros(0, np.uint8)]),
            "image_ends": np.cumsum([len(data) for data in images], dtype=np.int64),
            "masks": np.concatenate([*masks, np.zeros(0, np.uint8)]),
            "mask_ends": np.cumsum([len(data) for data in masks], dtype=np.int64),
            "joints": np.array(joints, np.float32).reshape(-1, skeleton.num_joints, 3),
            "whole": np.array(whole, bool),
            "image_ids": np.array(list(image_ids), np.int64),
        }
        return cls(skeleton, columns, facts)

    @classmethod
    def load(cls, path: str, skeleton: Skeleton) -> "Pool":
        """Opens a pool for people with the joints of `skeleton`.

        Args:
            path: of a file that `python -m data_prep.instances` wrote, or "crowd" for
                people of the built-in crowd.
            skeleton: what the pool's joints are turned into; joints that it lacks
                become unlabelled.

        Raises:
            UserError: the file is not there, damaged or empty.
        """
        if path == "crowd":
            return _crowd(skeleton)
        if not epath.Path(path).exists():
            raise UserError(
                f"pool {path}: there is no such file; make it with: python -m "
                f"data_prep.instances --dataset coco --split train --output {path}"
            )
        try:
            file = io.BytesIO(epath.Path(path).read_bytes())
            columns = dict(np.load(file, allow_pickle=False))
            facts = json.loads(str(columns.pop("facts")))
            source = skeletons.BY_NAME[facts["skeleton"]]
            joints = columns["joints"]
            columns["joints"] = convert.reorder(joints, source.joints, skeleton.joints)
        except (*_DAMAGE, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"pool {path} is damaged ({error}); make it again."
            ) from error
        if not len(joints):
            raise UserError(f"pool {path} has nobody in it.")
        return cls(skeleton, columns, facts)

    def save(self, path: epath.PathLike) -> None:
        """Writes one .npz file, whole or not at all.

        Raises:
            UserError: it cannot be written.
        """
        facts = json.dumps({**self.facts, "skeleton": self.skeleton.name})
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, facts=np.array(facts), **self._columns)
        try:
            files.write_bytes(path, buffer.getvalue())
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error.strerror or error}."
            ) from error

    def __len__(self) -> int:
        """How many people there are."""
        return len(self._columns["whole"])

    def __getitem__(self, index: int) -> Instance:
        """One of them, decoded."""
        columns = self._columns
        image = cv2.imdecode(self._part("image", index), cv2.IMREAD_COLOR_RGB)
        mask = cv2.imdecode(self._part("mask", index), cv2.IMREAD_GRAYSCALE)
        whole = bool(columns["whole"][index])
        return Instance(
            np.asarray(image), np.asarray(mask), columns["joints"][index], whole
        )

    def _part(self, kind: str, index: int) -> np.ndarray:
        ends = self._columns[f"{kind}_ends"]
        start = ends[index - 1] if index else 0
        return self._columns[f"{kind}s"][start : ends[index]]


@functools.lru_cache(maxsize=1)
def _crowd(skeleton: Skeleton) -> Pool:
    """People of the built-in crowd, each from a scene of their own."""
    from occjax.data.crowd import Crowd

    scenes = Crowd(
        num_scenes=_CROWD,
        seed=_SEED,
        size=(256, 256),
        people=(1, 1),
        height=(0.6, 0.9),
        objects=(0, 0),
        skeleton=skeleton.name,
    )
    found = [record for record in map(scenes.__getitem__, range(_CROWD))
             if not refusals(record)[0]]  # fmt: skip
    instances = (cut(record, 0, skeleton) for record in found)
    ids = [record["image_id"] for record in found]
    return Pool.of(instances, skeleton, {"dataset": "crowd"}, ids)


def _encoded(image: np.ndarray, kind: str) -> np.ndarray:
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if kind == ".jpg" else []
    return cv2.imencode(kind, image, options)[1].ravel()


def _area(counts: Any, size: np.ndarray) -> int:
    """Pixels of a segment in COCO's compressed run lengths."""
    if not counts:
        return 0
    shape = [int(size[1]), int(size[0])]
    return int(run_lengths.area({"size": shape, "counts": bytes(counts)}))


def _largest_iou(boxes: np.ndarray) -> np.ndarray:
    """Largest IoU [P] of each box [P, 4] with another."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    iou = staging.box_iou(corners[:, None], corners)
    np.fill_diagonal(iou, 0)
    return iou.max(axis=1, initial=0)
