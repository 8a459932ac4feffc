"""The built-in crowd: an endless supply of crowded scenes with exact labels, no files.

Scene i of a seed is always the same bytes. Labels are those of a perfect annotator:

- `joints`: v is 2 where the pixel nearest to the joint shows the person's own piece
  that carries the joint, 1 where anything else covers it (another person, a thing,
  another part of the own body, or the own body's near side), 0 only outside the image
  (x and y are then 0, as in COCO).
- `bbox`: around the whole person within the image, hidden parts included; x and y are
  the first column and row, as COCO's tools have it.
- `segmentation`: the visible pixels, COCO run lengths.
- `area`: the whole silhouette within the image, hidden pixels included. OKS measures
  errors relative to sqrt(area); with COCO's visible area a half hidden person would
  need a finer answer than the same person in the open, and AP as a function of
  occlusion would mix two things. CrowdPose (0.53 times the box) does the same.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from pycocotools import mask as coco_mask

from occjax import skeletons
from occjax.data import convert, figure, staging
from occjax.data.records import crowd_index
from occjax.data.render import Scene, render
from occjax.errors import UserError
from occjax.types import VISIBLE

# Mean over images of the largest box IoU between two people.
OVERLAPS = {"crowdpose": 0.29, "ochuman": 0.67}


def _measure(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[bytes]]:
    """Boxes [P, 4] and areas [P] of masks [H, W, P], and their run lengths."""
    codes = cast(Any, coco_mask.encode(np.asfortranarray(masks, np.uint8)))
    counts = [code["counts"] for code in codes]
    boxes = np.asarray(coco_mask.toBbox(codes), np.float32)
    return boxes, np.asarray(coco_mask.area(codes), np.float32), counts


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
        label_hidden: bool = True,
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
            skeleton: name of a scheme in `occjax.skeletons`.
            label_hidden: whether joints that nobody sees are labelled. In COCO most of
                them are not.

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
        self.label_hidden = bool(label_hidden)
        self._num_scenes = num_scenes
        self._check()

    def _check(self) -> None:
        """Raises UserError where an argument is out of range."""
        checks = {
            "num_scenes, at least 0": self._num_scenes >= 0,
            "people, at least 1 and in order": 1 <= self.people[0] <= self.people[1],
            "overlap, from 0 to 0.8": 0.0 <= self.overlap <= 0.8,
            "height, above 0 and in order": 0.0 < self.height[0] <= self.height[1],
            "objects, at least 0 and in order": 0 <= self.objects[0] <= self.objects[1],
            "size, at least 32 pixels": min(self.size) >= 32,
        }
        for expected, met in checks.items():
            if not met:
                raise UserError(
                    f"crowd.{expected}; got {expected.split(',')[0]} out of that range."
                )

    @property
    def max_persons(self) -> int:
        """Most people of any scene."""
        return self.people[1]

    @property
    def image_ids(self) -> np.ndarray:
        """[N] of all scenes."""
        return np.arange(self._num_scenes)

    @property
    def targets(self) -> np.ndarray:
        """[N] how many people every scene has."""
        scenes = range(self._num_scenes)
        return np.array([self._count(self._generator(i)) for i in scenes], np.int64)

    def __len__(self) -> int:
        return self._num_scenes

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, index))

    def _count(self, rng: np.random.Generator) -> int:
        """How many people: the first draw of a scene."""
        return int(rng.integers(self.people[0], self.people[1] + 1))

    def scene(self, index: int, palette_seed: int = 0) -> Scene:
        """Scene `index` with all truth; `palette_seed` changes colours and no label."""
        if not 0 <= index < self._num_scenes:
            raise IndexError(f"scene {index} of {self._num_scenes}")
        rng = self._generator(index)
        colors = np.random.default_rng((self.seed, index, 1 + palette_seed))
        request = staging.Request(
            size=self.size,
            people=self._count(rng),
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
        visible = scene.instances[..., None] == np.arange(1, people + 1)
        shapes = np.moveaxis(scene.silhouettes, 0, -1)
        boxes, area, _ = _measure(shapes)
        joints = convert.reorder(scene.joints, figure.JOINTS, self.skeleton.joints)
        crowding = crowd_index(joints, boxes)
        if not self.label_hidden:
            joints = np.where(joints[..., 2:] == VISIBLE, joints, 0)
        return {
            "image": scene.image,
            "image_id": index,
            "file_name": f"{self.name}-{self.seed}-{index:07d}.png",
            "height": self.size[0],
            "width": self.size[1],
            "crowd_index": crowding,
            "persons": {
                # COCO tools take an id of 0 for no match.
                "id": index * self.max_persons + np.arange(1, people + 1),
                "bbox": boxes,
                "joints": joints,
                "area": area,
                "is_crowd": np.zeros(people, bool),
                "is_target": np.ones(people, bool),
                "segmentation": _measure(visible)[2],
                "head_size": np.zeros(people, np.float32),
            },
        }
