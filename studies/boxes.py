"""Boxes around poses, for methods that see a person a crop."""

import itertools
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def around(
    poses: Iterable[Mapping[str, Any]], path: pathlib.Path, most: int | None = None
) -> pathlib.Path:
    """Writes poses as boxes in COCO's result form: their extent and a sixth more.

    Args:
        poses: COCO results with keypoints and score.
        path: file to write.
        most: how many of an image, those of highest score; None: all.
    """
    found = []
    ordered = sorted(poses, key=lambda pose: (pose["image_id"], -pose["score"]))
    for _, of_image in itertools.groupby(ordered, lambda pose: pose["image_id"]):
        for pose in itertools.islice(of_image, most):
            joints = np.reshape(pose["keypoints"], (-1, 3))[:, :2]
            low, size = joints.min(axis=0), np.ptp(joints, axis=0)
            box = [*(low - size / 12).tolist(), *(7 / 6 * size).tolist()]
            rest = {key: value for key, value in pose.items() if key != "keypoints"}
            found.append({**rest, "bbox": box})
    path.write_text(json.dumps(found), encoding="utf-8")
    return path
