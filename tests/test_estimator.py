import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import runs

import occjax
from occjax import predict
from occjax.data import folder
from occjax.errors import UserError
from occjax.runtime import config as configs
from occjax.runtime.options import Options


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return str(runs.make(tmp_path_factory.mktemp("whole"))[0])


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    settings = configs.load("configs/hrnet.py:smoke")
    return str(runs.save(tmp_path_factory.mktemp("crops"), settings)[0])


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    shapes = ((50, 90, 3), (60, 100, 3), (50, 90, 3))
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]


def test_several_images_give_what_each_gives_alone(whole, images):
    model = occjax.load(whole)
    assert model.needs == ""
    together = model(images)
    assert len(together) == 3
    for image, poses in zip(images, together, strict=True):
        people = len(poses.score)
        assert people > 0
        assert poses.joints.shape == (people, model.skeleton.num_joints, 2)
        assert np.all(np.diff(poses.score) <= 0)
        assert np.all(np.isfinite(poses.score))
        alone = model(image)
        np.testing.assert_allclose(alone.joints, poses.joints, atol=1e-3)
        np.testing.assert_allclose(alone.score, poses.score, atol=1e-5)


def test_it_gives_what_predict_writes(whole, images, tmp_path):
    paths = []
    for number, image in enumerate(images):
        paths.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(paths[-1]), image[..., ::-1])
    predict.predict(whole, paths, str(tmp_path / "out"), Options(), None)
    written = json.loads((tmp_path / "out" / "poses.json").read_text())
    for number, poses in enumerate(occjax.load(whole)(images), 1):
        ours = np.concatenate([poses.joints, poses.joint_score[..., None]], axis=-1)
        theirs = [w["keypoints"] for w in written if w["image_id"] == number]
        theirs = np.reshape(theirs, ours.shape)
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_crops_come_from_the_boxes_of_each_image(crops, images, tmp_path):
    model = occjax.load(crops)
    assert model.needs == "boxes"
    boxes = [[[5, 5, 30, 40], [40, 2, 30, 45]], [], [[10, 0, 60, 50]]]
    found = model(images, boxes=boxes)
    assert [len(poses.score) for poses in found] == [2, 0, 1]
    (only,) = model(images[2], boxes=[[10, 0, 60, 50]]).joints
    np.testing.assert_allclose(only, found[2].joints[0], atol=1e-3)
    moved = model(images[2], boxes=[[20, 5, 40, 40]]).joints[0]
    assert np.abs(moved - only).max() > 1
    assert [len(poses.score) for poses in model(images, boxes=[[], [], []])] == [0] * 3

    paths = [tmp_path / "0.png", tmp_path / "2.png"]
    for path, image in zip(paths, (images[0], images[2]), strict=True):
        cv2.imwrite(str(path), image[..., ::-1])
    rows = [
        {"image_id": number, "bbox": box, "score": 1.0}
        for number, several in ((1, boxes[0]), (2, boxes[2]))
        for box in several
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    out, given = str(tmp_path / "out"), str(tmp_path / "boxes.json")
    predict.predict(crops, folder.find(tmp_path), out, Options(), None, given)
    written = json.loads((tmp_path / "out" / "poses.json").read_text())
    assert [item["image_id"] for item in written] == [1, 1, 2]
    ours = np.reshape(written[2]["keypoints"], (-1, 3))[:, :2]
    np.testing.assert_allclose(ours, only, atol=1e-3)


def test_poses_to_correct_are_asked_for(tmp_path, images):
    settings = configs.load("configs/opecnet.py:smoke")
    settings.data.proposals = "poses.json"
    run = runs.save(tmp_path / "run", settings)[0]
    model = occjax.load(run)
    assert model.needs == "poses"
    rng = np.random.default_rng(1)
    joints = model.skeleton.num_joints
    start = np.concatenate(
        [rng.uniform(5, 45, (1, joints, 2)), np.ones((1, joints, 1))], axis=-1
    )
    found = model(images[0], poses=start)
    assert found.joints.shape == (1, joints, 2)
    with pytest.raises(UserError, match="expected poses of people, found none"):
        model(images[0])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4), np.uint8), r"expected \[H, W, 3\] uint8 RGB, found \(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
    ],
)
def test_what_is_no_image_is_told(whole, image, words):
    with pytest.raises(UserError, match=words):
        occjax.load(whole)(image)


def test_unusable_boxes_are_told(crops, images):
    model = occjax.load(crops)
    with pytest.raises(UserError, match="expected boxes of people, found none"):
        model(images)
    with pytest.raises(UserError, match="expected those of 3 images, got 1"):
        model(images, boxes=[[]])
    with pytest.raises(UserError, match="boxes of image 0: not usable"):
        model(images[0], boxes=[[1, 2, 3, np.nan]])
    with pytest.raises(UserError, match="come from --boxes"):
        occjax.load(crops, changes=("data.detections=a.json",))


def test_people_that_a_model_has_no_use_for_are_told(whole, crops, images):
    with pytest.raises(UserError, match="boxes: this model needs images alone"):
        occjax.load(whole)(images[0], boxes=[[1, 2, 30, 40]])
    with pytest.raises(UserError, match="poses: this model needs boxes, found poses"):
        occjax.load(crops)(images[0], boxes=[[1, 2, 30, 40]], poses=[])


def test_importing_the_package_loads_no_jax():
    script = "import occjax, sys; assert 'jax' not in sys.modules; occjax.load"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
