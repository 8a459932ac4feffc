"""The record: one image and its people, the same for every dataset.

A record is a dictionary: `image` (encoded bytes as downloaded, or a uint8 RGB array
[H, W, 3]), `image_id`, `file_name`, `height`, `width`, `crowd_index` (-1 unknown) and
`persons`, a dictionary of arrays with one row for each of its P people:

    id            [P] int64
    bbox          [P, 4] float32: x, y, width, height
    joints        [P, J, 3] float32: x, y, visibility (0, 1, 2 as in `types`)
    area          [P] float32, source pixels: segment area or what stands for it
    is_crowd      [P] bool: a region of many people
    is_target     [P] bool: a person that single-person methods are trained on
    segmentation  [P] bytes: COCO's compressed run lengths, empty if there is none
    head_size     [P] float32: MPII's head box diagonal, else 0
"""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from etils import epath
from faster_coco_eval.core import mask as run_lengths

from occjax.errors import UserError
from occjax.skeletons import Skeleton

Record = Mapping[str, Any]

VERSION = "1.0.0"  # of the schema above, the folder name below a prepared dataset

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"
_END_OF_JPEG, _END_OF_PNG, _SCAN = b"\xff\xd9", b"IEND\xaeB`\x82", 0xDA


def person_columns(num_joints: int) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Type and shape of one row of each array of `persons`, for J joints."""
    return {
        "id": (np.int64, ()),
        "bbox": (np.float32, (4,)),
        "joints": (np.float32, (num_joints, 3)),
        "area": (np.float32, ()),
        "is_crowd": (np.bool_, ()),
        "is_target": (np.bool_, ()),
        "segmentation": (np.object_, ()),
        "head_size": (np.float32, ()),
    }


def load(path: epath.Path, *, upright: bool = False) -> np.ndarray:
    """Pixels of an image file, see `decode`.

    Raises:
        UserError: the file cannot be read, is no image, or was cut short.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read: {reason}.") from error
    return decode(data, str(path), upright=upright)


def decode(data: bytes, name: str, *, upright: bool = False) -> np.ndarray:
    """Pixels [H, W, 3] uint8 RGB of an encoded image, orientation tags ignored.

    Labels were drawn on the pixels as stored, so a camera's rotation tag must not
    turn them (spec of PINet, section 5.1). `upright` turns a picture without labels
    as its tag says.

    Raises:
        UserError: `name` is no image, or its file was cut short.
    """
    if not data:
        raise UserError(f"{name}: the image file is empty.")
    if not _is_whole(data):
        raise UserError(f"{name}: the image file is cut short ({len(data)} bytes).")
    flags = cv2.IMREAD_COLOR_RGB | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # more pixels than OpenCV takes
        image = None
    if image is None:
        raise UserError(f"{name}: {len(data)} bytes that are no readable image.")
    return image


def pixels(record: Record) -> np.ndarray:
    """Pixels [H, W, 3] uint8 RGB of a record, decoded if they are still encoded.

    Raises:
        UserError: the image cannot be read, or is not of the size that is recorded.
    """
    image, name = record["image"], describe(record)
    if not isinstance(image, np.ndarray):
        image = decode(image, name)
    if image.shape != (record["height"], record["width"], 3):
        raise UserError(
            f"{name}: expected {record['height']} x {record['width']} x 3 pixels, "
            f"found {' x '.join(map(str, image.shape))}."
        )
    return image


def describe(record: Record) -> str:
    """Names a record in messages: its image id and file."""
    return f"image {int(record['image_id'])} ({record['file_name']})"


def labelled(persons: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which people [P] have at least one labelled joint."""
    return np.any(persons["joints"][:, :, 2] > 0, axis=1)


def trained_on(persons: Mapping[str, np.ndarray], skeleton: Skeleton) -> np.ndarray:
    """Which people [P] training looks at: labelled, and no mere crowd region.

    The official filter keeps a crowd region if its `num_keypoints` is not 0, a number
    that leaves out CrowdPose's head and neck (spec of PINet, section 6.1).
    """
    counted = [name not in ("head", "neck") for name in skeleton.joints]
    seen = persons["joints"][:, :, 2] > 0
    single = ~persons["is_crowd"].astype(bool)
    return seen.any(axis=1) & (single | seen[:, counted].any(axis=1))


def crowd_index(joints: np.ndarray, boxes: np.ndarray) -> float:
    """CrowdPose's measure of crowding (Li et al. 2019, equation 1).

    Of the people that its evaluation counts, it gives the stored index of all but a
    few images. 0 if there is nobody.

    Args:
        joints: [P, J, 3] x, y, visibility.
        boxes: [P, 4] x, y, width, height.

    Returns:
        The mean over people of: labelled joints of others inside the person's box,
        divided by the person's own labelled joints, wherever these are.
    """
    if not len(boxes):
        return 0.0
    labelled_joints = joints[..., 2] > 0
    at = joints[None, :, :, :2]  # [1, P, J, 2]
    low = boxes[:, None, None, :2]
    high = low + boxes[:, None, None, 2:]
    inside = np.all((at >= low) & (at <= high), axis=-1) & labelled_joints
    count = inside.sum(axis=-1)  # [P, P]: of whose joints in whose box
    others = count.sum(axis=1) - np.diagonal(count)
    return float(np.mean(others / np.maximum(labelled_joints.sum(axis=1), 1)))


def clean_boxes(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes [P, 4] float64 within their image, as HRNet's code clips annotated ones.

    The last pixel counts as the far edge, so a box loses a pixel of width and height.
    """
    first = np.maximum(np.asarray(boxes, np.float64)[:, :2], 0)
    extent = np.maximum(np.asarray(boxes, np.float64)[:, 2:] - 1, 0)
    last = np.minimum(first + extent, (width - 1, height - 1))
    return np.concatenate([first, last - first], axis=1)


def targets(record: Record) -> np.ndarray:
    """Which people [P] can be the one of a person crop.

    Labelled targets with an area whose box lies on the image; a crowd is no target.
    """
    persons = record["persons"]
    boxes = clean_boxes(persons["bbox"], record["height"], record["width"])
    extent = boxes[:, 2:]
    found = np.all(extent >= 0, axis=1) & np.any(extent > 0, axis=1)
    chosen = persons["is_target"].astype(bool) & ~persons["is_crowd"].astype(bool)
    return chosen & labelled(persons) & found & (np.asarray(persons["area"]) > 0)


def kept_pixels(record: Record) -> np.ndarray:
    """Where a loss may look: [H, W] uint8, 255, or 0 on people without labels.

    Crowd regions and segments of people without joints are left out. Datasets that
    give no such segments (OCHuman, CrowdPose) leave out nothing, as official training
    does (spec of PINet, section 6.3).
    """
    size = [int(record["height"]), int(record["width"])]
    persons = record["persons"]
    hidden = persons["is_crowd"].astype(bool) | ~labelled(persons)
    segments = np.asarray(persons["segmentation"], object)[hidden]
    runs = [{"size": size, "counts": bytes(counts)} for counts in segments if counts]
    if not runs:
        return np.full(size, 255, np.uint8)
    lengths = _lengths(run_lengths.merge(runs)["counts"])
    shown = np.uint8(255) * (np.arange(len(lengths)) % 2 == 0)
    # Runs go down columns; OpenCV wants rows.
    return cv2.transpose(np.repeat(shown, lengths).reshape(size[::-1]))


def _lengths(counts: bytes) -> np.ndarray:
    """Run lengths of COCO's compressed form, the first one outside the region.

    A number is written in digits of base 32, lowest first, with 32 added to all but
    the last, whose bit 16 is the sign; from the fourth on it is the difference to the
    last but one. The COCO tools' decoders take half as long as decoding a photograph.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(digits < 32)
    first = np.append(0, last[:-1] + 1)
    count = last - first + 1
    place = np.arange(len(digits)) - np.repeat(first, count)
    values = np.add.reduceat((digits & 31) << (5 * place), first)
    values -= np.where(digits[last] & 16, 1 << (5 * count), 0)
    for chain in (slice(1, None, 2), slice(2, None, 2)):
        values[chain] = np.cumsum(values[chain])
    return values


def _is_whole(data: bytes) -> bool:
    """False for a JPEG or PNG without its end, which OpenCV pads with grey."""
    if data.startswith(_PNG):
        return _END_OF_PNG in data[-64:]
    if not data.startswith(_JPEG) or data.endswith(_END_OF_JPEG):
        return True
    # Thumbnails in the header have an end marker too: look behind the first scan.
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == _SCAN:
            return _END_OF_JPEG in data[at:]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False
