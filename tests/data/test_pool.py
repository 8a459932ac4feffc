import numpy as np
import pytest
import scenes
from faster_coco_eval.core import mask as run_lengths

from occjax import skeletons
from occjax.data import pool
from occjax.errors import UserError

COCO, CROWDPOSE = skeletons.COCO, skeletons.CROWDPOSE


def encode(mask) -> bytes:
    return run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def record(boxes, joints=None, shape=(300, 400), **columns) -> dict:
    """People whose segments are ellipses in their boxes, on noise."""
    rows, columns_at = np.indices(shape)
    segments = []
    for x, y, w, h in boxes:
        inside = ((columns_at - x - w / 2) / (w / 2)) ** 2
        inside += ((rows - y - h / 2) / (h / 2)) ** 2
        segments.append(encode(inside <= 1))
    if joints is None:
        joints = np.stack([standing(*box) for box in boxes])
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    boxes = np.float32(boxes)
    columns = {"segmentation": segments, "bbox": boxes, **columns}
    return scenes.record(image, joints, **columns)


def standing(x, y, w, h) -> np.ndarray:
    """Joints [17, 3] down the middle of a box."""
    places = np.column_stack(
        [np.full(17, x + w / 2), y + h * np.linspace(0.1, 0.9, 17)]
    )
    return np.column_stack([places, np.full(17, 2)])


GOOD = (50, 40, 90, 200)


def test_somebody_big_with_joints_and_alone_can_be_cut_out():
    assert pool.refusals(record([GOOD])) == [""]
    assert pool.refusals(record([GOOD, (240, 30, 90, 200)])) == ["", ""]


def test_others_are_refused_with_their_reason():
    few = standing(*GOOD)
    few[5:, 2] = 0
    cases = {
        "crowd region": record([GOOD], is_crowd=np.array([True])),
        "fewer than 6 labelled joints": record([GOOD], few[None]),
        "without segmentation": record([GOOD], segmentation=[b""]),
        "segment of less than 4096 pixels": record([(50, 40, 40, 100)]),
        "box within 3 pixels of the image's border": record([(2, 40, 90, 200)]),
    }
    for reason, one in cases.items():
        assert pool.refusals(one) == [reason]
    right = pool.refusals(record([(308, 40, 90, 200)]))
    assert right == ["box within 3 pixels of the image's border"]
    overlapping = pool.refusals(record([GOOD, (110, 40, 90, 200)]))
    assert set(overlapping) == {"box IoU with another person of 0.1 or more"}
    thin = record([(50, 40, 200, 200)])
    outline = np.zeros((300, 400), bool)
    outline[40:62, 50:250] = True  # 4400 pixels of 40000
    thin["persons"]["segmentation"] = [encode(outline)]
    assert pool.refusals(thin) == ["segment fills less than 0.3 of its box"]


def test_cut_out_person_keeps_pixels_shape_and_joints():
    source = record([GOOD])
    one = pool.cut(source, 0, COCO)
    x, y = 50 - 2, 40 - 2  # two pixels of surroundings
    height, width = one.mask.shape
    np.testing.assert_array_equal(
        one.image, source["image"][y : y + height, x : x + width]
    )
    np.testing.assert_allclose(
        one.joints[:, :2], standing(*GOOD)[:, :2] - (x, y), atol=1e-4
    )
    assert set(np.unique(one.mask)) == {0, 255}
    full = run_lengths.area(
        {"size": [300, 400], "counts": source["persons"]["segmentation"][0]}
    )
    assert np.sum(one.mask == 255) == full
    assert one.whole


def test_wholeness_is_told_by_knees_and_ankles():
    joints = standing(*GOOD)
    assert pool.is_whole(joints, COCO)
    joints[[13, 14, 15, 16], 2] = 0
    assert not pool.is_whole(joints, COCO)
    joints[13, 2] = 1
    assert pool.is_whole(joints, COCO)


def test_long_people_are_made_smaller_with_joints_on_their_pixels():
    joints = standing(20, 10, 300, 900)
    joints[2] = (170, 460, 2)
    joints[3] = 0
    source = record([(20, 10, 300, 900)], joints[None], shape=(950, 400))
    source["image"][:] = 0
    source["image"][452:469, 162:179] = 255  # about joint 2
    one = pool.cut(source, 0, COCO)
    assert max(one.mask.shape) == 320
    weight = one.image[..., 0].astype(float)
    rows, columns = np.indices(weight.shape)
    spot = [(columns * weight).sum(), (rows * weight).sum()] / weight.sum()
    np.testing.assert_allclose(one.joints[2, :2], spot, atol=0.1)
    assert not one.joints[3].any()


def test_pool_comes_back_from_its_file(tmp_path):
    people = [pool.cut(record([GOOD]), 0, COCO)]
    people.append(pool.cut(record([(40, 30, 120, 220)]), 0, COCO))
    path = tmp_path / "new" / "people.npz"
    pool.Pool.of(people, COCO, {"dataset": "coco"}, [7, 8]).save(path)
    found = pool.Pool.load(str(path), COCO)
    assert len(found) == 2
    assert found.facts["dataset"] == "coco"
    for index, one in enumerate(people):
        other = found[index]
        np.testing.assert_array_equal(other.mask, one.mask)
        np.testing.assert_array_equal(other.joints, one.joints)
        assert other.whole == one.whole
        assert other.image.shape == one.image.shape  # noise, which JPEG blurs
        assert abs(other.image.mean() - one.image.mean()) < 3
    limbs = pool.Pool.load(str(path), CROWDPOSE)[0].joints
    np.testing.assert_array_equal(limbs[0], people[0].joints[5])
    assert not limbs[12:].any()  # COCO labels neither head nor neck


def test_colours_are_not_exchanged(tmp_path):
    source = record([GOOD])
    source["image"][:] = (250, 120, 10)
    pool.Pool.of([pool.cut(source, 0, COCO)], COCO, {}).save(tmp_path / "p.npz")
    one = pool.Pool.load(str(tmp_path / "p.npz"), COCO)[0]
    np.testing.assert_allclose(one.image.mean(axis=(0, 1)), [250, 120, 10], atol=4)


def test_damaged_and_empty_pools_are_a_users_error(tmp_path):
    path = tmp_path / "people.npz"
    pool.Pool.of([], COCO, {}).save(path)
    with pytest.raises(UserError, match="people.npz has nobody in it"):
        pool.Pool.load(str(path), COCO)
    people = [pool.cut(record([GOOD]), 0, COCO)]
    pool.Pool.of(people, COCO, {}).save(path)
    for data in (b"", b"nonsense", path.read_bytes()[:-200]):
        path.write_bytes(data)
        with pytest.raises(UserError, match="people.npz is damaged") as error:
            pool.Pool.load(str(path), COCO)
        assert "\n" not in str(error.value)


def test_built_in_crowd_is_a_pool():
    people = pool.Pool.load("crowd", COCO)
    assert len(people) >= 100
    one = people[3]
    assert np.sum(one.mask > 0) >= pool.MIN_AREA
    on = one.joints[one.joints[:, 2] == 2]
    at = np.rint(on[:, :2]).astype(int)
    assert np.mean(one.mask[at[:, 1], at[:, 0]] > 0) > 0.9
    assert pool.Pool.load("crowd", CROWDPOSE)[3].joints.shape == (14, 3)
