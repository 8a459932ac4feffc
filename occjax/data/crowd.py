"""The built-in crowd: an endless supply of crowded scenes with exact labels, no files.

Scene i of a seed is always the same bytes. Labels are those of a perfect annotator:

- `joints`: v is 2 where the pixel nearest to the joint shows the person's own piece
  that carries the joint, 1 where anything else covers it (another person, a thing,
  another part of the own body, or the own body's near side), 0 only outside the image
  (x and y are then 0, as in COCO).
- `bbox`: around the whole person, hidden parts included, clipped to the image.
- `segmentation`: the visible pixels, COCO run lengths.
- `area`: the whole silhouette within the image, hidden pixels included. OKS measures
  errors relative to sqrt(area); with COCO's visible area a half hidden person would
  need a finer answer than the same person in the open, and AP as a function of
  occlusion would mix two things. CrowdPose (0.53 times the box) does the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from occjax import skeletons
from occjax.data import convert, figure, flesh, paint, palette, scenery, staging
from occjax.errors import UserError

# Mean over images of the largest box IoU between two people.
OVERLAPS = {"crowdpose": 0.29, "ochuman": 0.67}
_ATTEMPTS = 60
_MIN_JOINTS = 7  # within the image
_MIN_VISIBLE_JOINTS = 2
_MIN_VISIBLE = 0.1  # share of the silhouette
_MIN_AREA = 0.002  # visible share of the image


class Scene(NamedTuple):
    """One rendered scene with all that is known about it."""

    image: np.ndarray  # [H, W, 3] uint8, RGB
    instances: np.ndarray  # [H, W] int32: 0 backdrop, person p is p + 1, things < 0
    pieces: np.ndarray  # [H, W] int32: index of the piece seen, -1 none
    joints: np.ndarray  # [P, 19, 3] x, y, v in the order of figure.JOINTS
    depth: np.ndarray  # [P, 19] depth of the joints, pixels
    carries: np.ndarray  # [pieces, 19] bool, joints that a piece shows
    silhouettes: np.ndarray  # [P, H, W] bool, hidden parts included


def _visibility(
    cast: flesh.Cast, numbers: np.ndarray, owner: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """v [P, 19] of each joint, and what each of the pieces carries [pieces, 19].

    Args:
        numbers: [H, W] index of the piece seen, -1 none.
        owner: [pieces].
    """
    people = len(cast.scale)
    worn = cast.present
    carries = np.zeros((len(owner), figure.NUM_JOINTS), bool)
    limit = np.zeros(len(owner))
    mine = owner > 0
    carries[mine] = np.broadcast_to(flesh.CARRIES, (people, *flesh.CARRIES.shape))[worn]
    limit[mine] = cast.limit[worn]
    nearest = np.rint(cast.joints[..., :2]).astype(int)
    x, y = nearest[..., 0], nearest[..., 1]
    inside = (x >= 0) & (y >= 0) & (x < size[1]) & (y < size[0])
    piece = numbers[np.where(inside, y, 0), np.where(inside, x, 0)]
    person = np.arange(people)[:, None]
    shown = (piece >= 0) & (owner[piece] == person + 1)
    shown &= carries[piece, np.arange(figure.NUM_JOINTS)]
    shown &= cast.joints[..., 2] <= limit[piece]
    return np.where(inside, np.where(shown, 2, 1), 0), carries


def _draw_things(rng, colors, ground: np.ndarray, cast: flesh.Cast, number: int):
    """Objects before and between the people."""
    who = rng.integers(len(ground), size=number)
    shift = rng.uniform(-0.3, 0.3, (number, 2)) * (1.0, 0.15)
    spots = ground[who].copy()
    spots[:, :2] += (shift + (0.0, 0.04)) * cast.scale[who, None]
    nearest = cast.depth.min()
    between = rng.uniform(size=number) < 0.3
    depths = np.where(between, spots[:, 2] - 0.2 * cast.scale[who], nearest - 1.0)
    depths = depths - 0.1 * np.arange(number)
    spots = np.stack([spots[:, 0], spots[:, 1], cast.scale[who]], axis=1)
    return scenery.objects(rng, colors, spots, depths)


def _acceptable(masks: np.ndarray, instances: np.ndarray, visibility: np.ndarray) -> bool:
    """Whether every person can be seen well enough to be asked for."""
    people = len(masks)
    visible = np.bincount(np.maximum(instances, 0).reshape(-1), minlength=people + 1)[1:]
    whole = masks.reshape(people, -1).sum(axis=1, dtype=np.int64)
    v = visibility[:, :17]
    return bool(
        np.all(visible >= _MIN_VISIBLE * whole)
        and np.all(visible >= _MIN_AREA * instances.size)
        and np.all((v > 0).sum(axis=1) >= _MIN_JOINTS)
        and np.all((v == 2).sum(axis=1) >= _MIN_VISIBLE_JOINTS)
    )


def render(
    rng: np.random.Generator,
    colors: np.random.Generator,
    request: staging.Request,
    things: int,
) -> Scene:
    """Renders one scene.

    Args:
        rng: decides everything but colours and textures.
        colors: decides colours and textures, and no label.
        request: people, overlap and sizes.
        things: how many objects stand before or between the people.

    Raises:
        UserError: no arrangement shows everybody well enough.
    """
    size = request.size
    behind = scenery.backdrop(rng, colors, size)
    clutter = scenery.clutter(rng, colors, size)
    light = np.array([*rng.uniform((-0.3, -0.25), (0.3, 0.02)), 0.42])
    for _ in range(_ATTEMPTS):
        cast, ground = staging.stage(rng, request)
        groups = [clutter, flesh.dress(cast, *palette.wardrobe(colors, request.people))]
        if things:
            groups.append(_draw_things(rng, colors, ground, cast, things))
        pieces = paint.concatenate(groups)
        polygons = paint.hulls(pieces.discs)
        seen = paint.cover(polygons, pieces.depth, size)
        numbers = paint.centre(seen).astype(np.intp) - 1
        instances = np.append(pieces.owner, 0).astype(np.int32)[numbers]
        visibility, carries = _visibility(cast, numbers, pieces.owner, size)
        masks = paint.silhouettes(polygons, pieces.owner, request.people, size)
        if _acceptable(masks, instances, visibility):
            break
    else:
        raise UserError(
            f"crowd: {request.people} people of height {request.height} px with overlap "
            f"{request.overlap:.2f} cannot all be seen in {size[1]} x {size[0]} px; "
            "ask for fewer, smaller or less overlapping people."
        )
    image = paint.paint(pieces, seen, behind, light)
    grain = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape) & 15
    image = cv2.subtract(cv2.add(image, grain), (8, 8, 8, 0))
    joints = np.concatenate([cast.joints[..., :2], visibility[..., None]], axis=-1)
    joints[visibility == 0] = 0.0
    return Scene(
        image=image,
        instances=instances,
        pieces=numbers,
        joints=joints.astype(np.float32),
        depth=cast.joints[..., 2],
        carries=carries,
        silhouettes=masks.astype(bool),
    )


def crowd_index(joints: np.ndarray, boxes: np.ndarray) -> float:
    """CrowdPose's measure of crowding (Li et al. 2019, equation 1).

    Args:
        joints: [P, J, 3]; boxes: [P, 4] x, y, width, height.

    Returns:
        The mean over people of: labelled joints of others inside the person's box,
        divided by the person's own.
    """
    labelled = joints[..., 2] > 0
    at = joints[None, :, :, :2]  # [1, P, J, 2]
    low, high = boxes[:, None, None, :2], boxes[:, None, None, :2] + boxes[:, None, None, 2:]
    inside = (np.all((at >= low) & (at <= high), axis=-1) & labelled).sum(axis=-1)
    own = np.diagonal(inside)
    return float(np.mean((inside.sum(axis=1) - own) / np.maximum(own, 1)))


def _boxes(masks: np.ndarray) -> np.ndarray:
    """Boxes [P, 4] x, y, width, height of masks [P, H, W]; pixel edges at -0.5."""
    boxes = []
    for mask in masks:
        x, y = (np.flatnonzero(mask.any(axis=axis)) for axis in (0, 1))
        boxes.append((x[0], y[0], x[-1] - x[0] + 1, y[-1] - y[0] + 1))
    return np.array(boxes, np.float32) - np.array([0.5, 0.5, 0, 0], np.float32)


class Crowd:
    """A random-access source of rendered scenes.

    Attributes:
        skeleton: the annotation scheme of the joints.
        name: names dataset and overlap.
        max_persons: most people of any scene.
    """

    def __init__(
        self,
        num_scenes: int = 1000,
        seed: int = 0,
        size: Sequence[int] = (128, 128),
        people: Sequence[int] = (2, 4),
        overlap: float | str = "crowdpose",
        height: Sequence[float] = (0.5, 0.9),
        objects: Sequence[int] = (0, 2),
        skeleton: str = "coco",
    ):
        """Describes the scenes; nothing is rendered yet.

        Args:
            num_scenes: how many; scene i does not depend on this.
            seed: of all scenes.
            size: image height and width in pixels.
            people: fewest and most people.
            overlap: mean over images of the largest box IoU of two people, or
                "crowdpose" (0.29) or "ochuman" (0.67).
            height: least and greatest height of a standing grown-up, as a fraction
                of the image height.
            objects: fewest and most things that stand before people.
            skeleton: "coco", "crowdpose" or "ocpose".

        Raises:
            UserError: an argument is out of range.
        """
        if isinstance(overlap, str) and overlap not in OVERLAPS:
            raise UserError(
                f"crowd.overlap: expected a number or one of {sorted(OVERLAPS)}; "
                f"got {overlap!r}."
            )
        if skeleton not in skeletons.BY_NAME:
            raise UserError(
                f"crowd.skeleton: expected one of {sorted(skeletons.BY_NAME)}; "
                f"got {skeleton!r}."
            )
        self.name = f"crowd-{overlap}"
        self.seed = seed
        self.size = int(size[0]), int(size[1])
        self.people = int(people[0]), int(people[1])
        self.overlap = OVERLAPS[overlap] if isinstance(overlap, str) else float(overlap)
        self.height = float(height[0]), float(height[1])
        self.objects = int(objects[0]), int(objects[1])
        self.skeleton = skeletons.BY_NAME[skeleton]
        self._num_scenes = num_scenes
        checks = {
            "num_scenes, at least 0": num_scenes >= 0,
            "people, at least 1 and in order": 1 <= self.people[0] <= self.people[1],
            "overlap, from 0 to 0.8": 0.0 <= self.overlap <= 0.8,
            "height, above 0 and in order": 0.0 < self.height[0] <= self.height[1],
            "objects, at least 0 and in order": 0 <= self.objects[0] <= self.objects[1],
            "size, at least 32 pixels": min(self.size) >= 32,
        }
        for expected, met in checks.items():
            if not met:
                raise UserError(f"crowd.{expected}; got {expected.split(',')[0]} out of that range.")

    @property
    def max_persons(self) -> int:
        """Most people of any scene."""
        return self.people[1]

    def __len__(self) -> int:
        return self._num_scenes

    def scene(self, index: int, palette_seed: int = 0) -> Scene:
        """Scene `index` with all truth; `palette_seed` changes colours and no label."""
        if not 0 <= index < self._num_scenes:
            raise IndexError(f"scene {index} of {self._num_scenes}")
        rng = np.random.default_rng((self.seed, index))
        colors = np.random.default_rng((self.seed, index, 1 + palette_seed))
        request = staging.Request(
            size=self.size,
            people=int(rng.integers(self.people[0], self.people[1] + 1)),
            overlap=self._draw_overlap(rng),
            height=(self.height[0] * self.size[0], self.height[1] * self.size[0]),
        )
        things = int(rng.integers(self.objects[0], self.objects[1] + 1))
        return render(rng, colors, request, things)

    def _draw_overlap(self, rng: np.random.Generator) -> float:
        """The largest IoU of one scene: beta distributed about the requested mean.

        The concentration gives CrowdPose's shares above 0.3, 0.5 and 0.75 (44, 15 and
        2 in 100 images) at its mean, and OCHuman's narrow spread at its own.
        """
        mean = self.overlap
        if mean == 0.0:
            return 0.0
        total = 2.2 / (1.0 - mean) ** 2
        return float(rng.beta(mean * total, (1.0 - mean) * total))

    def __getitem__(self, index: int) -> dict:
        """The record of scene `index`: image as uint8 array, persons as arrays."""
        scene = self.scene(index)
        people = len(scene.joints)
        boxes = _boxes(scene.silhouettes)
        joints = convert.reorder(scene.joints, figure.JOINTS, self.skeleton.joints)
        visible = scene.instances[..., None] == np.arange(1, people + 1)
        encoded = coco_mask.encode(np.asfortranarray(visible, np.uint8))
        area = scene.silhouettes.reshape(people, -1).sum(axis=1)
        return {
            "image": scene.image,
            "image_id": index,
            "file_name": f"{self.name}-{self.seed}-{index:07d}.png",
            "height": self.size[0],
            "width": self.size[1],
            "crowd_index": crowd_index(joints, boxes),
            "persons": {
                # COCO tools take an id of 0 for no match.
                "id": index * self.max_persons + np.arange(1, people + 1),
                "bbox": boxes,
                "joints": joints,
                "area": area.astype(np.float32),
                "is_crowd": np.zeros(people, bool),
                "is_target": np.ones(people, bool),
                "segmentation": [code["counts"] for code in encoded],
                "head_size": np.zeros(people, np.float32),
            },
        }
