import dataclasses
import functools
import json

import equivalence
import numpy as np
import pytest
import scenes

from occjax import skeletons
from occjax.data import augment, crop, people, records, warp
from occjax.errors import UserError

COCO = skeletons.COCO
check = functools.partial(equivalence.check, "HRNet-W32, top-down")


def view(size=(256, 192), max_persons=1, **settings) -> crop.TrainCrop:
    return crop.TrainCrop(size, max_persons, COCO, **settings)


def person(joints, box, height=240, width=320, others=()) -> dict:
    """The record of a person with a box, perhaps with other people beside."""
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    boxes = np.float32([box, *([box] * len(others))])
    record = scenes.record(image, np.array([joints, *others]), bbox=boxes)
    box = np.asarray(box, float)
    return {**record, "row": 0, "box": box, "box_score": 1.0}


def grid(seen=17) -> np.ndarray:
    """Joints [17, 3] at different places, the first `seen` of them labelled."""
    joints = np.column_stack([100 + 5.0 * np.arange(17), 60 + 7.0 * np.arange(17)])
    return np.column_stack([joints, np.where(np.arange(17) < seen, 2, 0)])


def check_window(center, side, official_center, official_scale):
    """Windows have centres and widths; the official unit of a width is 200 pixels."""
    check("warp: centres of windows", center, official_center, 1e-4, "absolute")
    check("warp: widths of windows", side, 200 * official_scale, 1e-6, "each")


def test_boxes_become_the_official_windows_and_matrices(golden):
    data = np.load(golden / "pose_hrnet_w32" / "affine.npz")
    for index, box in enumerate(data["boxes_f64"]):
        center, side = crop.box_window(box, (256, 192), (1.25, 1.25))
        check_window(center, side, data["centre"][index], data["scale"][index, 0])
    corners = np.array([[0, 0], [191, 0], [0, 255], [191, 255]])
    for row in data["rows_f64"]:
        forward = warp.crop_matrix(row[:2], 200 * row[2], row[4], 192, 256)
        official = row[5:11].reshape(2, 3)
        back = warp.invert(warp.crop_matrix(row[:2], 200 * row[2], row[4], 48, 64))
        source = warp.apply(warp.invert(official), corners)
        found, link = warp.apply(forward, source), "warp: corners through matrices"
        check(link, found, corners, 1e-4, "absolute")
        found = warp.apply(back, corners / 4)
        theirs = warp.apply(row[11:].reshape(2, 3), corners / 4)
        check(link, found, theirs, 1e-4, "absolute")


BASELINE = "SimpleBaseline (every depth)"


def check_pixels(found, official, levels, model="HRNet-W32, top-down"):
    """Their mean difference in grey levels."""
    away = np.abs(found.astype(float) - official).mean()
    link, note = "warp: mean of pixels", equivalence.OTHER_OPENCV
    equivalence.check(model, link, away, 0, levels, "absolute", note)


def test_matrices_are_those_of_simple_baseline(golden):
    data = np.load(golden / "simple_baseline" / "decode.npz")
    for row, expected in zip(data["affine_args"], data["affine_mats"], strict=True):
        center, width, rotation, inverse = row[:2], 200 * row[2], row[4], row[5]
        matrix = warp.crop_matrix(center, width, rotation, int(row[6]), int(row[7]))
        found = warp.invert(matrix) if inverse else matrix
        points = np.array([[0, 0], [47, 0], [0, 63], [47, 63]], float)
        points = points if inverse else warp.apply(warp.invert(expected), points)
        ours, theirs = warp.apply(found, points), warp.apply(expected, points)
        link = "warp: corners through matrices"
        equivalence.check(BASELINE, link, ours, theirs, 1e-4, "absolute")
    crop_of = warp.warp_image(data["image"], data["image_warp"].astype(float), 64, 48)
    check_pixels(crop_of, data["image_crop"], 1, BASELINE)


def test_crops_show_the_official_pixels_up_to_interpolation(golden):
    data = np.load(golden / "pose_hrnet_w32" / "affine.npz")
    for box, turn, expected in zip(
        data["crop_boxes"], data["crop_rot"], data["crops_uint8"], strict=True
    ):
        center, side = crop.box_window(box, (128, 96), (1.25, 1.25))
        matrix = warp.crop_matrix(center, side, float(turn), 96, 128)
        found = warp.warp_image(data["image_uint8_hwc"], matrix, 128, 96)
        check_pixels(found, expected, 1)


def test_boxes_are_cleaned_as_officially(golden):
    file = golden / "pose_hrnet_w32" / "box_cleaning.json"
    case = json.loads(file.read_text())
    width, height = case["image"]
    objects = case["objects"]
    joints = np.array([o["keypoints"] for o in objects], float).reshape(-1, 17, 3)
    record = scenes.record(
        np.zeros((height, width, 3), np.uint8),
        joints,
        bbox=np.float32([o["bbox"] for o in objects]),
        area=np.float32([o["area"] for o in objects]),
    )

    class Source(scenes.Scenes):
        def __getitem__(self, index):
            return record

    found = people.Annotated(Source(1))
    assert len(found) == len(case["records"])
    for index, expected in enumerate(case["records"]):
        center, side = crop.box_window(found[index]["box"], (256, 192), (1.25, 1.25))
        check_window(center, side, expected["center"], expected["scale"][0])


@pytest.mark.parametrize("half", ["upper", "lower"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_half_bodies_have_the_official_windows(golden, half, index):
    data = np.load(golden / "pose_hrnet_w32" / "augment.npz")
    joints = data[f"joints{index}_f64"].copy()
    joints[:, 2] = data[f"vis{index}"][:, 0]
    found = crop.half_body(joints, COCO, half == "upper", (256, 192))
    assert found is not None
    official = data[f"half_{half}_centre{index}"], data[f"half_{half}_scale{index}"][0]
    check_window(*found, *official)


@pytest.mark.parametrize("sample", ["s00", "s01", "s10", "s11", "s20", "s21"])
def test_official_samples_come_out_at_their_places(golden, sample):
    data = np.load(golden / "pose_hrnet_w32" / "augment.npz")
    person_of = sample[1]
    image = data[f"image{person_of}_uint8_hwc"]
    mirrored = bool(data[f"{sample}_flip"])
    center = data[f"{sample}_centre_f64"].copy()
    rotation = float(data[f"{sample}_rot_f64"])
    if mirrored:  # the official code mirrors the image first
        center[0] = image.shape[1] - 1 - center[0]
        rotation = -rotation
    side = 200 * data[f"{sample}_scale_f64"][0]
    matrix = warp.crop_matrix(center, side, rotation, 192, 256)
    joints = data[f"joints{person_of}_f64"].copy()
    joints[:, 2] = 2 * data[f"vis{person_of}"][:, 0]
    record = {**scenes.record(image, joints[None]), "row": 0}
    record |= {"box": np.zeros(4), "box_score": 1.0}
    batch = view().view(augment.Placed(record, matrix, mirrored))

    seen = data[f"{sample}_joints_vis"][:, 0] > 0
    np.testing.assert_array_equal(batch.labels.visibility[0] > 0, seen)
    expected = data[f"{sample}_joints_f64"][seen, :2]
    found = batch.labels.joints[0, seen]
    check("warp: joints of samples", found, expected, 1e-4, "absolute")
    if f"{sample}_crop_uint8" in data:
        away = np.abs(batch.inputs.image - data[f"{sample}_crop_uint8"].astype(float))
        note = equivalence.OTHER_OPENCV
        check("warp: samples, mean of pixels", away.mean(), 0, 3, "absolute", note)


def test_joints_of_a_random_crop_come_back_to_their_source():
    record = person(grid(), (90, 50, 100, 130))
    one = view(max_persons=1, half_body=0.5)
    for seed in range(20):
        placed = one.random_map(record, np.random.default_rng(seed))
        batch = one.view(placed)
        order = list(COCO.flip) if placed.mirrored else slice(None)
        back = warp.apply(
            batch.inputs.to_source.astype(float), batch.labels.joints[0].astype(float)
        )
        np.testing.assert_allclose(back, grid()[order, :2], atol=2e-3)


@pytest.mark.parametrize("mirrored", [False, True])
def test_joints_lie_on_their_pixels(mirrored):
    record = person(grid(), (90, 50, 100, 130))
    image = np.zeros((240, 320, 3), np.uint8)
    x, y = np.rint(grid()[5, :2]).astype(int)  # left shoulder
    image[y - 1 : y + 2, x - 1 : x + 2] = 255
    matrix = warp.crop_matrix((140, 115), 120.0, 25.0, 192, 256)
    record = {**record, "image": image}
    batch = view().view(augment.Placed(record, matrix, mirrored))
    weight = batch.inputs.image[..., 0].astype(float)
    rows, columns = np.indices(weight.shape)
    spot = [(columns * weight).sum(), (rows * weight).sum()] / weight.sum()
    joint = 6 if mirrored else 5
    np.testing.assert_allclose(batch.labels.joints[0, joint], spot, atol=0.1)


def test_mirroring_twice_is_no_change_and_keeps_the_centre():
    record = person(grid(), (90, 50, 100, 130))
    matrix = warp.crop_matrix((140, 115), 120.0, 25.0, 192, 256)
    twice = warp.mirror(warp.mirror(matrix, 192, -1), 192, -1)
    np.testing.assert_allclose(twice, matrix, atol=1e-12)
    plain, mirrored = (view().view(augment.Placed(record, matrix, m)) for m in (0, 1))
    order = list(COCO.flip)
    again = mirrored.labels.joints[0, order] * [-1, 1] + [192, 0]
    np.testing.assert_allclose(again, plain.labels.joints[0], atol=1e-4)
    back = [
        warp.apply(b.inputs.to_source, np.array([96, 128])) for b in (plain, mirrored)
    ]
    np.testing.assert_allclose(back[0], back[1], atol=1e-4)
    # One pixel further in a mirrored crop lies the column that mirrors this one.
    # (OpenCV interpolates in steps of 1/32 pixel, which is a little on noise.)
    difference = mirrored.inputs.image[:, 1:].astype(int) - plain.inputs.image[:, :0:-1]
    assert np.abs(difference).mean() < 0.5


def test_normal_draws_are_cut_off_where_the_papers_do():
    record = person(grid(0), (90, 50, 90, 120))  # no joints, so no half body
    one = view(scale=(0.65, 1.35), rotate=90.0, rotate_share=0.6, flip=0.25)
    base = crop.box_window(record["box"], (256, 192), (1.25, 1.25))[1]
    rng = np.random.default_rng(0)
    factors, turns, flips = [], [], []
    for _ in range(3000):
        placed = one.random_map(record, rng)
        factors.append(192 / np.sqrt(warp.area_factor(placed.matrix)) / base)
        turns.append(np.degrees(np.arctan2(placed.matrix[0, 1], placed.matrix[0, 0])))
        flips.append(placed.mirrored)
    factors, turns = np.array(factors), np.array(turns)
    assert factors.min() == pytest.approx(0.65)
    assert factors.max() == pytest.approx(1.35)
    # One deviation is the limit: 16 of 100 normal draws are beyond it on either side.
    assert np.mean(factors < 0.6501) == pytest.approx(0.159, abs=0.03)
    turned = turns[np.abs(turns) > 1e-9]
    assert len(turned) / 3000 == pytest.approx(0.6, abs=0.03)
    assert np.mean(np.abs(turned) > 89.99) == pytest.approx(0.0455, abs=0.015)
    assert np.mean(np.abs(turned) < 45) == pytest.approx(0.683, abs=0.03)
    assert np.mean(flips) == pytest.approx(0.25, abs=0.03)


def test_uniform_draws_stay_within_limits_and_reach_them():
    record = person(grid(0), (90, 50, 90, 120))
    one = view(
        scale=(0.8, 1.7), rotate=45.0, rotate_share=1.0, spread="uniform", flip=0.0
    )
    rng = np.random.default_rng(0)
    matrices = [one.random_map(record, rng).matrix for _ in range(2000)]
    base = crop.box_window(record["box"], (256, 192), (1.25, 1.25))[1]
    factors = [192 / np.sqrt(warp.area_factor(m)) / base for m in matrices]
    turns = np.degrees([np.arctan2(m[0, 1], m[0, 0]) for m in matrices])
    assert 0.8 <= min(factors) < 0.81
    assert 1.69 < max(factors) <= 1.7
    assert -45 <= turns.min() < -44
    assert 44 < turns.max() <= 45
    assert abs(np.mean(factors) - 1.25) < 0.03
    with pytest.raises(UserError, match="augment.spread: expected one of normal, uni"):
        view(spread="even")


def test_half_bodies_come_as_often_as_asked_and_only_with_enough_joints():
    rng = np.random.default_rng(0)
    one = view(half_body=0.3, scale=(1.0, 1.0), rotate_share=0.0, flip=0.0)
    for seen, expected in ((17, 0.3), (9, 0.3), (8, 0.0)):
        record = person(grid(seen), (90, 50, 100, 130))
        whole = crop.box_window(record["box"], (256, 192), (1.25, 1.25))[1]
        sides = [
            192 / np.sqrt(warp.area_factor(one.random_map(record, rng).matrix))
            for _ in range(1500)
        ]
        share = np.mean(np.abs(np.array(sides) - whole) > 1e-6)
        assert share == pytest.approx(expected, abs=0.04)


def test_half_body_by_hand():
    joints = np.zeros((17, 3))
    joints[[5, 6, 11]] = [(10, 10, 2), (30, 10, 2), (20, 50, 1)]
    # Two joints above, one below: either wish ends with the two shoulders.
    for upper in (True, False):
        center, side = crop.half_body(joints, COCO, upper, (256, 192)) or (None, None)
        if upper:  # the lower half has fewer than two joints
            assert center is None
        else:
            np.testing.assert_array_equal(center, [20, 10])
            assert side == 1.5 * 20


def test_padding_of_width_and_height_comes_before_the_window():
    center, side = crop.box_window(np.array([10, 20, 30, 80.0]), (384, 288), (1.2, 1.3))
    np.testing.assert_array_equal(center, [25, 60])
    assert side == pytest.approx(80 * 1.3 * 0.75)


def test_others_follow_the_person_by_joints_in_the_crop():
    away = grid() + [1000, 0, 0]
    partly = grid()
    partly[8:, :2] += 1000
    unlabelled = grid(0)
    record = person(
        grid(), (90, 50, 100, 130), others=[away, partly, unlabelled, grid()]
    )
    one = crop.TestCrop((256, 192), COCO, max_persons=4)
    labels = one.map(record).labels
    counts = np.sum(labels.visibility > 0, axis=1)
    np.testing.assert_array_equal(counts, [17, 17, 17, 0])
    inside = labels.joints[2, :8]
    np.testing.assert_allclose(inside, labels.joints[0, :8], atol=1e-4)
    assert labels.joints[2, 8:, 0].min() > 1000  # the part outside keeps its place
    assert labels.area[3] == 0
    least = dataclasses.replace(one, max_persons=2).map(record).labels
    np.testing.assert_array_equal(least.joints, labels.joints[:2])


def test_box_score_and_valid_go_along():
    record = {**person(grid(), (0, 0, 100, 130)), "box_score": 0.4, "row": -1}
    batch = crop.TestCrop((256, 192), COCO).map(record)
    np.testing.assert_array_equal(batch.inputs.box, np.float32([0, 0, 100, 130]))
    assert batch.inputs.box_score == np.float32(0.4)
    assert batch.labels is None
    assert batch.inputs.image.shape == (256, 192, 3)
    with pytest.raises(UserError, match="detector's boxes have no labels"):
        crop.TestCrop((256, 192), COCO, max_persons=1).map(record)


def test_targets_are_labelled_people_with_a_box_on_the_image():
    joints = np.stack([grid()] * 7)
    joints[1, :, 2] = 0
    boxes = np.tile(np.float32([10, 10, 20, 20]), (7, 1))
    boxes[2] = [400, 10, 20, 20]  # beyond the right edge
    boxes[3] = [10, 10, 1, 1]  # nothing is left of it
    record = scenes.record(
        np.zeros((240, 320, 3), np.uint8),
        joints,
        bbox=boxes,
        is_crowd=np.arange(7) == 4,
        is_target=np.arange(7) != 5,
        area=np.where(np.arange(7) == 6, 0, 300),
    )
    np.testing.assert_array_equal(np.flatnonzero(records.targets(record)), [0])


def test_further_scales_show_the_same_place_in_wider_windows():
    record = person(grid(), (100, 60, 60, 120))
    test = crop.TestCrop((128, 96), COCO, scales=(0.8, 1.3))
    inputs = test.map(record).inputs
    plain = crop.TestCrop((128, 96), COCO).map(record).inputs
    np.testing.assert_array_equal(inputs.image, plain.image)
    assert plain.scaled == plain.scaled_to_source == ()
    point = np.array([140.0, 110.0])  # of the source
    for image, matrix in zip(inputs.scaled, inputs.scaled_to_source, strict=True):
        assert image.shape == inputs.image.shape
        forward = warp.invert(matrix)
        wanted = warp.warp_image(record["image"], forward, 128, 96)
        np.testing.assert_array_equal(image, wanted)
        at = warp.apply(forward, point)
        assert np.all((at > 0) & (at < (96, 128)))
