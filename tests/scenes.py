"""Small records for the tests of data and its preparation."""

import numpy as np

from occjax import skeletons


def persons(joints: np.ndarray, **columns) -> dict:
    """The `persons` of a record with joints [P, J, 3], plain but for the columns."""
    count = len(joints)
    plain = {
        "id": np.arange(count),
        "bbox": np.tile(np.float32([4, 6, 20, 30]), (count, 1)),
        "joints": np.asarray(joints, np.float32),
        "area": np.full(count, 300, np.float32),
        "is_crowd": np.zeros(count, bool),
        "is_target": np.ones(count, bool),
        "segmentation": [b""] * count,
        "head_size": np.zeros(count, np.float32),
    }
    return {**plain, **columns}


def record(image: np.ndarray, joints: np.ndarray, image_id: int = 7, **columns) -> dict:
    """A record with an image [H, W, 3] and joints [P, J, 3]."""
    return {
        "image": image,
        "image_id": image_id,
        "file_name": f"{image_id}.png",
        "height": image.shape[0],
        "width": image.shape[1],
        "crowd_index": -1.0,
        "persons": persons(joints, **columns),
    }


class Scenes:
    """Random images of different sizes with one to three people, by index."""

    name, skeleton, max_persons = "scenes", skeletons.COCO, 3

    def __init__(self, count: int = 20):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        rng = np.random.default_rng(index)
        height, width = rng.integers(60, (90, 140))
        joints = rng.uniform(0, 60, (rng.integers(1, 4), 17, 3))
        joints[..., 2] = rng.integers(0, 3, joints.shape[:2])
        image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        return record(image, joints, image_id=100 + int(index))
