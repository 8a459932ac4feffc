"""Poses onto images: visible joints solid, occluded ones hollow, sides by colour.

Images are [H, W, 3] uint8 RGB and are never changed in place. Joints stand in their
pixels, x before y, pixel centres on integers.
"""

import colorsys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from etils import epath

from occjax import files
from occjax.skeletons import Skeleton
from occjax.types import OCCLUDED, UNLABELLED, VISIBLE

LEFT, RIGHT, MIDDLE = (255, 159, 28), (61, 165, 255), (245, 245, 245)
_DARK = (24, 24, 28)
_SHIFT = 4  # OpenCV draws at 1 / 16 of a pixel


class Panel(NamedTuple):
    """One picture of a contact sheet."""

    image: np.ndarray  # [H, W, 3] uint8, RGB
    joints: np.ndarray  # [P, J, 2]
    visibility: np.ndarray  # [P, J], as in occjax.types
    caption: str = ""


def truth_panel(
    image: np.ndarray, annotations: Sequence[dict], skeleton: Skeleton, caption: str
) -> Panel:
    """Panel of COCO annotations; crowd regions have no pose."""
    people = [a["keypoints"] for a in annotations if not a["iscrowd"]]
    joints = np.asarray(people, float).reshape(-1, skeleton.num_joints, 3)
    return Panel(image, joints[..., :2], joints[..., 2], caption)


def found_panel(
    image: np.ndarray,
    detections: Sequence[dict],
    skeleton: Skeleton,
    caption: str,
    min_score: float,
) -> Panel:
    """Panel of COCO results that score at least `min_score`, best on top.

    Joints are solid where `visible` is at least a half; where it is not given,
    `labelled`; where neither is, all of them.
    """
    sure = [item for item in detections if item["score"] >= min_score]
    sure.sort(key=lambda item: -item["score"])
    count = skeleton.num_joints
    joints = np.asarray([i["keypoints"] for i in sure], float).reshape(-1, count, 3)
    plain = [1.0] * count
    told = [item.get("visible", item.get("labelled", plain)) for item in sure]
    seen = np.asarray(told, float)
    return Panel(image, joints[..., :2], visibility(seen.reshape(-1, count)), caption)


def comparison_sheet(
    images: Mapping[int, np.ndarray],
    truth: dict,
    found: Sequence[dict],
    skeleton: Skeleton,
    min_score: float,
) -> np.ndarray:
    """Contact sheet of detections beside the truth, two images in a row.

    Args:
        images: image id -> [H, W, 3] uint8 RGB, of those to show.
        truth: COCO ground truth.
        found: COCO result list.
        skeleton: the joints of both.
        min_score: detections that score less are not drawn.
    """
    pairs = []
    for image_id, image in images.items():
        people = [a for a in truth["annotations"] if a["image_id"] == image_id]
        hits = [item for item in found if item["image_id"] == image_id]
        right = truth_panel(image, people, skeleton, f"image {image_id}: truth")
        left = found_panel(image, hits, skeleton, "", min_score)
        left = left._replace(caption=f"image {image_id}: {len(left.joints)} found")
        pairs.append([left, right])
    rows = [sum(pairs[at : at + 2], []) for at in range(0, len(pairs), 2)]
    return contact_sheet(rows, skeleton, 360)


def visibility(probability: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Visibility codes of predicted probabilities of being visible, same shape."""
    return np.where(np.asarray(probability) >= threshold, VISIBLE, OCCLUDED)


def person_color(person: int) -> tuple[int, int, int]:
    """A bright RGB colour for each person, neighbours far apart in hue."""
    hue = (0.33 + person * 0.618033988749895) % 1  # the golden ratio never repeats
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.3 * (person % 2), 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_pose(
    image: np.ndarray,
    joints: np.ndarray,
    visible: np.ndarray,
    skeleton: Skeleton,
    person: int = 0,
    size: float | None = None,
) -> np.ndarray:
    """The image with one person's pose over it.

    Bones have the person's colour: solid between two visible joints, thin and dashed
    towards an occluded one. Joints have the colour of their side: a disc when
    visible, a ring when occluded. Unlabelled joints and their bones are left out.

    Args:
        image: [H, W, 3] uint8, RGB.
        joints: [J, 2] pixels.
        visible: [J], visibility as in occjax.types.
        skeleton: the J joints.
        person: which colour.
        size: radius of a joint in pixels; by default it follows the image and person.

    Raises:
        ValueError: joints or visible do not fit the skeleton.
    """
    expected = (skeleton.num_joints, 2)
    if np.shape(joints) != expected or np.shape(visible) != expected[:1]:
        raise ValueError(
            f"draw_pose needs joints {expected} and visible {expected[:1]}; "
            f"got {np.shape(joints)} and {np.shape(visible)}."
        )
    canvas = np.ascontiguousarray(image).copy()
    drawn = (np.asarray(visible) != UNLABELLED) & np.isfinite(joints).all(axis=-1)
    radius = _radius(image, np.asarray(joints)[drawn]) if size is None else size
    # Far outside the picture OpenCV's fixed-point coordinates would overflow.
    points = np.clip(np.nan_to_num(np.asarray(joints, float)), -1e4, 1e4)
    color = person_color(person)
    for first, second in skeleton.bones:
        if drawn[first] and drawn[second]:
            solid = visible[first] == VISIBLE and visible[second] == VISIBLE
            _bone(canvas, points[first], points[second], color, radius, bool(solid))
    for joint in np.flatnonzero(drawn):
        side = _side(skeleton.joints[joint])
        _joint(canvas, points[joint], side, radius, visible[joint] == VISIBLE)
    return canvas


def _radius(image: np.ndarray, joints: np.ndarray) -> float:
    """Joint radius, small on small people so that their bones remain to be seen."""
    if not len(joints):
        return 1.0
    extent = np.max(np.ptp(joints, axis=0))
    return float(np.clip(extent / 35, 2.0, max(2.5, max(image.shape[:2]) / 160)))


def draw_people(
    image: np.ndarray,
    joints: np.ndarray,
    visible: np.ndarray,
    skeleton: Skeleton,
    size: float | None = None,
) -> np.ndarray:
    """The image with all poses [P, J, 2] of it, the first person on top."""
    for person in reversed(range(len(joints))):
        image = draw_pose(
            image, joints[person], visible[person], skeleton, person, size
        )
    return image


def _side(name: str) -> tuple[int, int, int]:
    if name.startswith("left"):
        return LEFT
    return RIGHT if name.startswith("right") else MIDDLE


def _fixed(point: np.ndarray) -> tuple[int, int]:
    x, y = np.round(point * 2**_SHIFT).astype(int)
    return int(x), int(y)


def _line(canvas, start, end, color, thickness: float) -> None:
    width = max(1, round(thickness))
    cv2.line(canvas, _fixed(start), _fixed(end), color, width, cv2.LINE_AA, _SHIFT)


def _bone(canvas, start, end, color, radius: float, solid: bool) -> None:
    if solid:
        _line(canvas, start, end, _DARK, 1.2 * radius + 2)
        _line(canvas, start, end, color, 1.2 * radius)
        return
    length = float(np.hypot(*(end - start)))
    dashes = int(np.clip(length / (2.5 * radius), 1, 100))
    marks = np.linspace(start, end, 2 * dashes + 1)
    for tail, head in zip(marks[:-1:2], marks[1::2], strict=True):
        _line(canvas, tail, head, _DARK, 0.45 * radius + 2)
        _line(canvas, tail, head, color, 0.45 * radius)


def _joint(canvas, center, color, radius: float, solid: bool) -> None:
    def circle(color, radius: float, thickness: int) -> None:
        size = round(radius * 2**_SHIFT)
        where = _fixed(center)
        cv2.circle(canvas, where, size, color, thickness, cv2.LINE_AA, _SHIFT)

    if solid:
        circle(_DARK, radius + 1, cv2.FILLED)
        circle(color, radius, cv2.FILLED)
    else:
        # A little wider than a disc, so that the hole stays open on small people.
        radius, thickness = 1.15 * radius, max(1, round(0.4 * radius))
        circle(_DARK, radius, thickness + 2)
        circle(color, radius, thickness)


def fit(
    image: np.ndarray, joints: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scales an image to fit a cell, centred on a dark ground, and its joints along.

    Args:
        image: [H, W, 3] uint8, larger or smaller than the cell.
        joints: [..., 2] pixels of the image.
        width: of the cell, pixels.
        height: of the cell, pixels.

    Returns:
        Cell [height, width, 3] and the joints in its pixels.
    """
    factor = min(width / image.shape[1], height / image.shape[0])
    size = [max(1, round(factor * side)) for side in image.shape[1::-1]]
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(image, size, interpolation=method)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    cell = np.full((height, width, 3), _DARK, np.uint8)
    cell[top : top + size[1], left : left + size[0]] = scaled
    # Corners fall on corners, so pixel centres move by half a pixel of each grid.
    stretch = np.asarray(size) / np.asarray(image.shape[1::-1])
    return cell, (np.asarray(joints, float) + 0.5) * stretch - 0.5 + [left, top]


def contact_sheet(
    rows: Sequence[Sequence[Panel]],
    skeleton: Skeleton,
    width: int = 360,
    heads: Sequence[str] = (),
) -> np.ndarray:
    """One image of all panels with their poses, row by row, small images enlarged.

    Args:
        rows: of panels; shorter rows are filled up with dark cells.
        skeleton: the joints of every panel.
        width: of a panel, pixels; a row is as high as its tallest image needs.
        heads: titles of the columns.

    Raises:
        ValueError: there is no panel.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise ValueError("contact_sheet needs at least one panel.")
    strips = []
    if heads:
        titles = [_caption(head, width, 0.6) for head in heads]
        strips.append(_fill(titles, columns))
    for row in rows:
        shapes = [panel.image.shape for panel in row]
        height = max((round(width * h / w) for h, w, _ in shapes), default=1)
        height = min(height, 2 * width)
        strips.append(_fill([_cell(p, skeleton, width, height) for p in row], columns))
    return np.concatenate(strips)


def _fill(cells: list[np.ndarray], columns: int) -> np.ndarray:
    blank = np.full_like(cells[0], _DARK)
    cells = cells + [blank] * (columns - len(cells))
    return np.concatenate([np.pad(c, ((1, 1), (1, 1), (0, 0))) for c in cells], axis=1)


def _cell(panel: Panel, skeleton: Skeleton, width: int, height: int) -> np.ndarray:
    cell, joints = fit(panel.image, panel.joints, width, height)
    cell = draw_people(cell, joints, panel.visibility, skeleton)
    return np.concatenate([cell, _caption(panel.caption, width, 0.42)])


def _caption(text: str, width: int, scale: float) -> np.ndarray:
    font = cv2.FONT_HERSHEY_SIMPLEX
    (length, high), base = cv2.getTextSize(text, font, scale, 1)
    scale = min(scale, scale * (width - 12) / max(length, 1))
    strip = np.full((high + base + 8, width, 3), _DARK, np.uint8)
    place = (6, high + 4)
    cv2.putText(strip, text, place, font, scale, MIDDLE, 1, cv2.LINE_AA)
    return strip


def save_png(path: epath.PathLike, image: np.ndarray) -> None:
    """Writes an RGB image [H, W, 3] so that no reader ever finds half of it."""
    files.write_bytes(path, encoded(image, ".png"))


def encoded(image: np.ndarray, kind: str) -> bytes:
    """Bytes of an RGB image [H, W, 3] as a file of a kind: ".png" or ".jpg".

    Raises:
        ValueError: OpenCV cannot write such an image.
    """
    done, data = cv2.imencode(kind, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"an image {image.shape} cannot be written as {kind}.")
    return data.tobytes()
