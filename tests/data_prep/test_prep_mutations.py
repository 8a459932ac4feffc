"""Damaged annotation files: one clear line, or content that the importer judges."""

import copy
import json
import math

import numpy as np
import pytest
import scipy.io

from data_prep import coco, crowdpose, mpii, ochuman, ocpose
from occjax import skeletons
from occjax.errors import UserError

ODD = [None, True, -1, 0, 1e308, math.nan, -math.inf, "x", "", [], {}, [[]], {"a": 1}]
ODD = [*ODD, 10**400, ["a"] * 4, [1] * 51, "000123"]

PYTORCH_POSE = {
    "img_paths": "000000001.jpg",
    "isValidation": 0.0,
    "joint_self": [[10.0, 20.0, 1.0]] * 16,
    "objpos": [50.0, 60.0],
    "scale_provided": 2.0,
}


def mutate(node, rng):
    """Replaces, removes or doubles something at a random depth."""
    for depth in range(int(rng.integers(1, 7))):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = keys[rng.integers(len(keys))]
        inner = isinstance(node[key], dict | list) and len(node[key])
        if depth and (not inner or rng.random() < 0.35):
            chance = rng.random()
            if chance < 0.25:
                del node[key]
            elif chance < 0.35 and isinstance(node, list):
                node.append(copy.deepcopy(node[key]))
            else:
                node[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])
            return
        if not inner:
            return
        node = node[key]


READERS = {
    "coco": lambda path: coco.read(path, skeletons.COCO),
    "crowdpose": crowdpose.read,
    "ochuman": lambda path: ochuman.read(path, part="val"),
    "ochuman19": lambda path: ochuman.read(path, joints=19),
    "ochuman_coco": ochuman.read,
    "ocpose": ocpose.read,
    "ocpose_told": lambda path: ocpose.read(
        path, order="coco", boxes="xyxy", visible=2
    ),
    "hrnet": mpii.read,
    "pytorch_pose": mpii.read,
}
FILES = {
    "crowdpose": "crowdpose/annotations/crowdpose_images_1.json",
    "ochuman": "ochuman/annotations/ochuman.json",
    "ochuman19": "ochuman/annotations/ochuman.json",
    "ochuman_coco": "ochuman/annotations/ochuman_coco17.json",
    "hrnet": "mpii/annotations/test_mpii.json",
}
SHARED = "coco/annotations/person_keypoints_shared.json"


@pytest.mark.parametrize("reader", list(READERS))
def test_damaged_json_is_one_line_or_content(photographs, tmp_path, reader):
    if reader == "pytorch_pose":
        whole = [PYTORCH_POSE] * 4
    else:
        whole = json.loads((photographs / FILES.get(reader, SHARED)).read_text())
    if isinstance(whole, dict) and len(whole["images"]) > 20:
        whole["images"] = whole["images"][:20]
        ids = {image["id"] for image in whole["images"]}
        people = [a for a in whole["annotations"] if a["image_id"] in ids]
        whole["annotations"] = people[:60]
    rng = np.random.default_rng(len(reader))
    file, read = tmp_path / "annotations.json", 0
    for _ in range(80):
        content = copy.deepcopy(whole)
        for _ in range(rng.integers(1, 5)):
            mutate(content, rng)
        file.write_text(json.dumps(content))
        try:
            download = READERS[reader](file)
        except UserError as error:
            message = str(error)
        else:
            message = str(file)
            read += 1
            assert isinstance(download.content["images"], list)
            assert isinstance(download.content["annotations"], list)
            json.dumps(download.facts)
        assert "\n" not in message
        assert str(file) in message
    assert read > 20


# At these bytes a wrong value made SciPy's parser crash, not raise.
CRASHES = ((1681, 238), (1177, 17), (1220, 88), (1708, 11))


def test_damaged_matlab_files_are_one_line(tmp_path):
    path = tmp_path / "annotations.mat"
    rectangle = {"scale": 2.0, "objpos": {"x": 9.0, "y": 9.0}}
    images = np.empty((1, 3), [("image", object), ("annorect", object)])
    for number in range(3):
        images[0, number] = ({"name": f"{number}.jpg"}, rectangle)
    release = {"annolist": images, "img_train": [1, 1, 0]}
    scipy.io.savemat(path, {"RELEASE": release})
    assert len(mpii.read(path).content["annotations"]) == 3
    whole = path.read_bytes()
    damaged = [whole[:length] for length in (0, 50, 150, 1000, len(whole) - 9)]
    for at, value in CRASHES:
        damaged.append(whole[:at] + bytes([value]) + whole[at + 1 :])
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            mpii.read(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
