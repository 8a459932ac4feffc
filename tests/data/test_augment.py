import dataclasses
import functools
import json

import equivalence
import numpy as np
import pytest
import scenes
from faster_coco_eval.core import mask as run_lengths

from occjax import skeletons
from occjax.data import augment, records, warp
from occjax.errors import UserError


def view(size=64, skeleton=skeletons.COCO, **settings) -> augment.TrainView:
    return augment.TrainView(size=size, max_persons=12, skeleton=skeleton, **settings)


def drawn(one: augment.TrainView, record: dict, seed: int = 0):
    """A random example of a record."""
    return one.view(one.random_map(record, np.random.default_rng(seed)))


def encode(mask: np.ndarray) -> bytes:
    return run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def official_record(golden, key: str, skeleton) -> dict:
    """A sample of `augment_full` as a record."""
    data = np.load(golden / "pinet_functions" / "augment_full.npz")
    file = golden / "pinet_functions" / "augment_full_annotations.json"
    annotations = json.loads(file.read_text())[f"{key}_"]
    image = data[f"{key}_image_uint8_hwc"]
    segments = [b""] * len(annotations)
    if skeleton is skeletons.COCO:  # the only dataset whose segments are looked at
        parts = [run_lengths.frPyObjects(a["segmentation"], *image.shape[:2])
                 for a in annotations]  # fmt: skip
        segments = [run_lengths.merge(part)["counts"] for part in parts]
    return scenes.record(
        image,
        data[f"{key}_keypoints_f64"],
        bbox=data[f"{key}_bbox_f64"],
        segmentation=segments,
        is_crowd=np.array([bool(a["iscrowd"]) for a in annotations]),
    )


def heatmaps(labels, size: int, sigma: float = 2.0) -> np.ndarray:
    """Keypoint maps [J, size, size] as the official generator draws them."""
    maps = np.zeros((labels.joints.shape[1], size, size))
    rows, columns = np.mgrid[:size, :size]
    for person, seen in zip(labels.joints / 4, labels.visibility, strict=True):
        for joint, (x, y) in enumerate(person):
            if not seen[joint] or not (0 <= x < size and 0 <= y < size):
                continue
            near = (columns >= np.floor(x - 3 * sigma - 1)) & (
                columns < np.ceil(x + 3 * sigma + 2)
            )
            near &= (rows >= np.floor(y - 3 * sigma - 1)) & (
                rows < np.ceil(y + 3 * sigma + 2)
            )
            value = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
            maps[joint] = np.maximum(maps[joint], near * value)
    return maps


@pytest.mark.parametrize("key", ["coco0", "coco1", "crowdpose0", "crowdpose1"])
def test_official_sample_comes_out_at_its_stored_place(golden, key):
    data = np.load(golden / "pinet_functions" / "augment_full.npz")
    skeleton = skeletons.BY_NAME[key[:-1]]
    record = official_record(golden, key, skeleton)
    mirrored = bool(data[f"{key}_flip"])
    matrix = data[f"{key}_mat_input_f64"]
    batch = view(128, skeleton, flip_shift=3).view(
        augment.Placed(record, matrix, mirrored)
    )

    model = "PINet (CrowdPose)" if skeleton.name == "crowdpose" else "PINet (COCO)"
    check = functools.partial(equivalence.check, model)
    maps, theirs = heatmaps(batch.labels, 32), data[f"{key}_heatmap"]
    check("warp: whole samples, heatmaps", np.float32(maps), theirs, 2e-5, "absolute")
    # The official mask is 0 where no loss looks, 0.1 or 1 elsewhere.
    ignored = np.all(data[f"{key}_kpt_mask"] == 0, axis=0)
    np.testing.assert_array_equal(batch.labels.ignore, ignored)
    image = data[f"{key}_image_out"].transpose(1, 2, 0)
    image = 255 * (image * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406])
    away, note = np.abs(batch.inputs.image - image).mean(), equivalence.OTHER_OPENCV
    check("warp: whole samples, mean of pixels", away, 0, 3, "absolute", note)


def test_official_joints_areas_and_masks_come_out(golden):
    data = np.load(golden / "pinet_functions" / "augment_matrices.npz")
    for index, shape in enumerate(data["image_hw"]):
        mirrored = bool(data["flip"][index])
        for skeleton, key in ((skeletons.COCO, "ochuman"),
                              (skeletons.CROWDPOSE, "crowdpose")):  # fmt: skip
            area = np.sqrt(data[f"{key}_area_in_f64"][index])  # [P, 1]
            record = scenes.record(
                np.zeros((*shape, 3), np.uint8),
                data[f"{key}_joints_in_f64"][index],
                bbox=np.concatenate([area, area, area, area], axis=1),
            )
            one = view(512, skeleton, flip_shift=3)
            labels = one.view(
                augment.Placed(record, data["mat_input_f64"][index], mirrored)
            ).labels
            expected = data[f"{key}_joints_out_f64"][index]
            count = len(expected)
            labelled = expected[..., 2] > 0
            title = "OCHuman" if key == "ochuman" else "CrowdPose"
            check = functools.partial(equivalence.check, f"PINet ({title})")
            ours = labels.joints[:count][labelled] / 4
            theirs = expected[..., :2][labelled]
            check("warp: joints", ours, theirs, 2e-4, "absolute")
            np.testing.assert_array_equal(labels.visibility[:count], expected[..., 2])
            theirs = data[f"{key}_area_out_f64"][index, :, 0]
            check("warp: areas", labels.area[:count], theirs, 2e-6, "each")


@pytest.mark.parametrize("mirrored", [False, True])
def test_joints_lie_on_their_pixels_in_plain_and_mirrored_views(mirrored):
    left, right = 5, 6  # shoulders
    image = np.zeros((100, 120, 3), np.uint8)
    joints = np.zeros((1, 17, 3))
    joints[0, left], joints[0, right] = (40, 50, 2), (75, 52, 1)
    image[49:52, 39:42, 0] = 255
    image[51:54, 74:77, 1] = 255
    matrix = warp.window_matrix((60, 50), 90.0, 10.0, 128, 128)
    batch = view(128).view(
        augment.Placed(scenes.record(image, joints), matrix, mirrored)
    )
    for joint, channel in ((left, 1 if mirrored else 0), (right, 0 if mirrored else 1)):
        weight = batch.inputs.image[..., channel].astype(float)
        rows, columns = np.indices(weight.shape)
        spot = [(columns * weight).sum(), (rows * weight).sum()] / weight.sum()
        np.testing.assert_allclose(batch.labels.joints[0, joint], spot, atol=0.15)
        source = warp.apply(
            batch.inputs.to_source.astype(float), batch.labels.joints[0, joint]
        )
        expected = joints[0, {left: right, right: left}[joint] if mirrored else joint]
        np.testing.assert_allclose(source, expected[:2], atol=1e-3)
    seen = batch.labels.visibility[0]
    assert (seen[left], seen[right]) == ((1, 2) if mirrored else (2, 1))


def test_official_mirroring_puts_labels_three_pixels_left():
    record = scenes.Scenes()[0]
    matrix = warp.window_matrix((40, 40), 60.0, 0.0, 64, 64)
    exact = view().view(augment.Placed(record, matrix, True))
    official = view(flip_shift=3).view(augment.Placed(record, matrix, True))
    np.testing.assert_array_equal(exact.inputs.image, official.inputs.image)
    seen = exact.labels.visibility > 0
    shift = exact.labels.joints[seen] - official.labels.joints[seen]
    np.testing.assert_allclose(shift, np.tile([3, 0], (len(shift), 1)), atol=1e-4)


def test_mirroring_twice_is_no_change():
    record = scenes.Scenes()[1]
    matrix = warp.window_matrix((40, 30), 70.0, 20.0, 64, 64)
    plain = view().view(augment.Placed(record, matrix, False)).labels
    mirrored = view().view(augment.Placed(record, matrix, True)).labels
    order = list(skeletons.COCO.flip)
    np.testing.assert_array_equal(mirrored.visibility[:, order], plain.visibility)
    seen = plain.visibility > 0
    again = mirrored.joints[:, order] * [-1, 1] + [63, 0]
    np.testing.assert_allclose(again[seen], plain.joints[seen], atol=1e-4)


def test_draws_stay_within_their_limits_and_reach_them():
    one = view(scale=(0.5, 2.0), rotate=45.0, translate=0.25, flip=0.25)
    rng = np.random.default_rng(0)
    sides, turns, moves, flips = [], [], [], []
    record = {"height": 100, "width": 150}
    for _ in range(2000):
        _, matrix, mirrored, _ = one.random_map(record, rng)
        side = 64 / np.sqrt(warp.area_factor(matrix))
        center = warp.apply(warp.invert(matrix), np.array([32.0, 32.0]))
        sides.append(side)
        turns.append(np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0])))
        moves.append(np.abs(center - [75, 50]).max() / side)
        flips.append(mirrored)
    assert 50 <= min(sides) < 52
    assert 198 < max(sides) <= 200
    assert -45 <= min(turns) < -44
    assert 44 < max(turns) <= 45
    assert 0.24 < max(moves) <= 0.25 + 1e-9
    assert 0.2 < np.mean(flips) < 0.3


def test_same_generator_state_gives_the_same_bytes():
    record = scenes.Scenes()[2]
    first, second = (drawn(view(), record, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.inputs.image, second.inputs.image)
    np.testing.assert_array_equal(first.labels.joints, second.labels.joints)


def test_padding_and_unlabelled_people_and_regions_are_ignored():
    shape = (80, 80)
    region = np.zeros(shape)
    region[20:60, 10:40] = 1
    joints = np.zeros((3, 17, 3))
    joints[0, 0] = (70, 40, 2)
    record = scenes.record(
        np.zeros((*shape, 3), np.uint8),
        joints,
        is_crowd=np.array([False, False, True]),
        segmentation=[encode(region), encode(region), b""],
    )
    matrix = warp.window_matrix((40, 40), 160.0, 0.0, 160, 160)  # image in the middle
    labels = view(160).view(augment.Placed(record, matrix, False)).labels
    expected = np.ones((160, 160), bool)
    expected[40:120, 40:120] = region > 0
    np.testing.assert_array_equal(labels.ignore[1:-1, 1:-1], expected[4:-4:4, 4:-4:4])
    assert (labels.area > 0).sum() == 1  # only the labelled person is one to learn


def test_crowd_region_with_head_and_neck_only_is_no_person_to_learn():
    joints = np.zeros((3, 14, 3))
    joints[:, 12:] = (30, 30, 1)
    joints[2, 0] = (35, 35, 2)
    persons = scenes.persons(joints, is_crowd=np.array([True, False, True]))
    chosen = records.trained_on(persons, skeletons.CROWDPOSE)
    assert list(chosen) == [False, True, True]


def test_too_many_people_name_image_and_number():
    record = scenes.record(np.zeros((50, 50, 3), np.uint8), np.full((5, 17, 3), 2))
    small = dataclasses.replace(view(), max_persons=4)
    with pytest.raises(UserError, match=r"image 7 \(7.png\) has 5 .*max_persons is 4"):
        drawn(small, record)


def test_boxes_without_area_do_not_look_like_padding():
    joints = np.full((1, 17, 3), 2)
    flat = np.float32([[3, 3, 0, 20]])
    record = scenes.record(np.zeros((50, 50, 3), np.uint8), joints, bbox=flat)
    labels = drawn(view(), record).labels
    assert labels.area[0] == 1


def test_test_view_keeps_labels_on_pixels_and_knows_its_way_back():
    image = np.zeros((60, 100, 3), np.uint8)
    image[29:32, 69:72] = 255
    joints = np.zeros((1, 17, 3))
    joints[0, 3] = (70, 30, 2)
    one = augment.TestView(
        size=128, multiple=64, skeleton=skeletons.COCO, scales=(0.5,), max_persons=2
    )
    batch = one.map(scenes.record(image, joints))
    at = batch.labels.joints[0, 3]
    assert batch.inputs.image.shape == (128, 256, 3)
    assert batch.inputs.scaled[0].shape == (64, 128, 3)
    assert batch.inputs.image[round(at[1]), round(at[0])].min() > 250
    assert batch.inputs.scaled[0][round(at[1] / 2), round(at[0] / 2)].min() > 200
    back = warp.apply(batch.inputs.to_source.astype(float), at)
    np.testing.assert_allclose(back, [70, 30], atol=1e-4)
    assert (
        dataclasses.replace(one, max_persons=0).map(scenes.record(image, joints)).labels
        is None
    )


def test_image_goes_into_the_array_that_is_given():
    record = scenes.Scenes()[3]
    out = np.zeros((64, 64, 3), np.uint8)
    placed = view().random_map(record, np.random.default_rng(0))
    assert view().view(placed, out=out).inputs.image is out
    np.testing.assert_array_equal(out, view().view(placed).inputs.image)
    assert out.any()
