import json

import numpy as np
import pytest
import scenes
from batches import shapes_of

from occjax import skeletons
from occjax.data import augment, crop, group, people, pipeline, records, warp
from occjax.data.crowd import Crowd
from occjax.errors import UserError

DATA = {
    "view": "people",
    "size": (96, 64),
    "max_persons": 3,
    "threads": 0,
    "augment": {"half_body": 0.0},
}
COUNTS = [len(scenes.Scenes()[i]["persons"]["id"]) for i in range(20)]


class Apart(scenes.Scenes):
    """The scenes; each person with a box of its own, the first one no target."""

    def __getitem__(self, index):
        record = super().__getitem__(index)
        count = len(record["persons"]["id"])
        step = np.arange(count)[:, None]
        record["persons"]["bbox"] = np.float32([4, 6, 20, 30]) + step
        record["persons"]["is_target"] = np.arange(count) > 0
        return record


def train(source=None, seed=1, batch_size=8, **settings):
    source = source or scenes.Scenes()
    return pipeline.train_batches(source, {**DATA, **settings}, batch_size, seed)


def person_of(batch, row, number, record, mirrored):
    """The row of the record whose joints lie under those of a crop."""
    back = warp.apply(
        batch.inputs.to_source[row, number].astype(float),
        batch.labels.joints[row, number].astype(float),
    )
    order = list(skeletons.COCO.flip) if mirrored else slice(None)
    seen = batch.labels.visibility[row, number]
    for at, joints in enumerate(record["persons"]["joints"][:, order]):
        labelled = joints[:, 2] > 0
        if np.array_equal(joints[:, 2], seen) and np.allclose(
            back[labelled], joints[labelled, :2], atol=5e-3
        ):
            return at
    raise AssertionError("nobody's joints")


def write(path, entries) -> str:
    path.write_text(json.dumps(entries))
    return str(path)


def poses(source, path, off=0.0) -> str:
    """The joints of everybody as proposals, `off` pixels to the right."""
    return write(
        path,
        [
            {
                "image_id": source[i]["image_id"],
                "keypoints": (pose * (1, 1, 0) + (off, 0, 0.5)).ravel().tolist(),
                "score": 0.25,
            }
            for i in range(len(source))
            for pose in source[i]["persons"]["joints"]
        ],
    )


def test_batches_have_the_promised_shapes_and_types(tmp_path):
    path = poses(scenes.Scenes(), tmp_path / "poses.json")
    batch = next(train(proposals=path, batch_size=4))
    assert shapes_of(batch) == {
        "image": ((4, 3, 96, 64, 3), np.uint8),
        "valid": ((4, 3, 2), np.int32),
        "to_source": ((4, 3, 2, 3), np.float32),
        "box": ((4, 3, 4), np.float32),
        "box_score": ((4, 3), np.float32),
        "start_pose": ((4, 3, 17, 3), np.float32),
        "joints": ((4, 3, 17, 2), np.float32),
        "visibility": ((4, 3, 17), np.uint8),
        "area": ((4, 3), np.float32),
        "ignore": ((4, 3, 24, 16), bool),
        "head_size": ((4, 3), np.float32),
        "oks_area": ((4, 3), np.float32),
    }
    assert batch.image_id.shape == (4,)
    assert next(train()).inputs.start_pose is None


@pytest.mark.parametrize("mirrored", [False, True])
def test_each_person_is_once_in_the_pixels_of_the_own_crop(mirrored):
    source = scenes.Scenes()
    orders = set()
    for batch in (
        next(train(seed=s, augment={"flip": float(mirrored)})) for s in (1, 2)
    ):
        for row, image_id in enumerate(batch.image_id):
            record = source[image_id - 100]
            count = len(record["persons"]["id"])
            found = [person_of(batch, row, i, record, mirrored) for i in range(count)]
            assert sorted(found) == list(range(count))
            orders.add(tuple(found))
            assert (batch.labels.area[row] > 0).sum() == count
            for field in (*batch.inputs[:3], batch.inputs.box, *batch.labels[:3]):
                assert not field[row, count:].any()
            assert batch.inputs.image[row, :count].any(axis=(1, 2, 3)).all()
            np.testing.assert_array_equal(batch.inputs.box_score[row, :count], 1)
    assert len(orders) > 6  # in random order


def test_crops_are_those_of_the_persons_alone():
    record = group.Grouped(people.Annotated(Apart()))[1]
    single = crop.TrainCrop((96, 64), 1, skeletons.COCO, half_body=0.0)
    several = group.TrainGroup(single, 3)
    for seed in range(5):
        placed = several.random_map(record, np.random.default_rng(seed))
        batch = several.view(placed)
        for row, place in enumerate(placed.places):
            alone = single.view(augment.Placed(*place[:3]))
            np.testing.assert_array_equal(batch.inputs.image[row], alone.inputs.image)
            np.testing.assert_array_equal(
                batch.labels.joints[row], alone.labels.joints[0]
            )
            np.testing.assert_array_equal(batch.labels.area[row], alone.labels.area[0])
            np.testing.assert_array_equal(
                batch.inputs.to_source[row], alone.inputs.to_source
            )


def test_scale_rotation_and_mirroring_are_the_same_for_all_of_an_image():
    several = group.TrainGroup(
        crop.TrainCrop((96, 64), 1, skeletons.COCO, half_body=0.0), 3
    )
    record = dict(scenes.Scenes()[COUNTS.index(3)])
    sizes = np.array([20.0, 28.0, 40.0])
    record["people"] = [
        {"row": row, "box": np.array([5, 5, side, side]), "box_score": 1.0}
        for row, side in enumerate(sizes)
    ]
    drawn = set()
    for seed in range(20):
        placed = several.random_map(record, np.random.default_rng(seed))
        rows = [place.record["row"] for place in placed.places]
        linear = np.array([place.matrix[:, :2] for place in placed.places])
        same = linear * sizes[rows][:, None, None]
        np.testing.assert_allclose(same, same[:1].repeat(3, axis=0), atol=1e-9)
        assert len({place.mirrored for place in placed.places}) == 1
        drawn.add((round(same[0, 0, 0], 6), placed.places[0].mirrored))
    assert len(drawn) > 15


def test_mirrored_start_poses_lie_on_the_mirrored_labels(tmp_path):
    path = poses(scenes.Scenes(), tmp_path / "poses.json")
    for flip in (0.0, 1.0):
        batch = next(train(proposals=path, augment={"flip": flip}))
        seen = batch.labels.visibility > 0
        np.testing.assert_allclose(
            batch.inputs.start_pose[seen][:, :2], batch.labels.joints[seen], atol=2e-3
        )
        there = batch.labels.area > 0
        assert seen.any(axis=-1).sum() == there.sum() > 8
        np.testing.assert_array_equal(batch.inputs.box_score, 0.25 * there)
        assert not batch.inputs.start_pose[~there].any()


def test_of_many_people_other_ones_are_drawn_each_time(caplog):
    data = {"max_persons": 2, "augment": {"flip": 0.0}}
    batches = [next(train(seed=seed, batch_size=20, **data)) for seed in range(4)]
    source, seen = scenes.Scenes(), set()
    for batch in batches:
        for row, image_id in enumerate(batch.image_id):
            record = source[image_id - 100]
            for number in range(min(2, len(record["persons"]["id"]))):
                found = person_of(batch, row, number, record, mirrored=False)
                seen.add((int(image_id), found))
    crowds = sum(count == 3 for count in COUNTS)
    assert len(seen) > sum(min(count, 2) for count in COUNTS) + crowds / 2
    assert f"left out {crowds} people of {crowds} images" in caplog.text


def test_images_with_too_few_people_are_left_out_and_counted():
    annotated = people.Annotated(scenes.Scenes())
    several = group.Grouped(annotated, 2)
    chosen = [i for i, count in enumerate(COUNTS) if count > 1]
    assert [several[i]["image_id"] - 100 for i in range(len(several))] == chosen
    assert several.dropped == {"images with fewer than 2 people": 20 - len(chosen)}
    counts = [
        np.sum(scenes.Scenes()[i]["persons"]["joints"][..., 2] > 0) for i in chosen
    ]
    np.testing.assert_array_equal(several.labelled_joints, counts)
    ids = np.concatenate([next(train(least_people=2, seed=s)).image_id for s in (1, 2)])
    assert set(ids - 100) <= set(chosen)
    with pytest.raises(UserError, match="scenes: no image has 4 people to crop"):
        train(least_people=4)
    least = sorted(counts)[-3]
    batch = next(train(least_people=2, min_joints=int(least), batch_size=6))
    assert set(batch.image_id - 100) == {
        i for i, count in zip(chosen, counts, strict=True) if count >= least
    }


def test_testing_has_the_targets_of_each_image_in_their_order():
    source = Apart()
    several = list(pipeline.test_batches(source, DATA, 4, labels=True))
    alone = {**DATA, "view": "person", "max_persons": 1}
    singles = list(pipeline.test_batches(source, alone, 1, labels=True))
    rows = [(batch, row) for batch in several for row in range(4)]
    expected = [100 + i for i, count in enumerate(COUNTS) if count > 1]
    ids = [int(batch.image_id[row]) for batch, row in rows]
    assert ids == expected + [-1] * (-len(expected) % 4)
    singles = iter(singles)
    for (batch, row), image_id in zip(rows, expected, strict=False):
        people_of = records.targets(source[image_id - 100]).sum()
        for number in range(people_of):
            one = next(singles)
            assert one.image_id[0] == image_id
            for name in ("image", "valid", "to_source", "box", "box_score"):
                np.testing.assert_array_equal(
                    getattr(batch.inputs, name)[row, number],
                    getattr(one.inputs, name)[0],
                )
            for name in ("joints", "visibility", "area", "head_size", "oks_area"):
                np.testing.assert_array_equal(
                    getattr(batch.labels, name)[row, number],
                    getattr(one.labels, name)[0, 0],
                )
        assert not batch.inputs.image[row, people_of:].any()
    assert next(singles, None) is None
    for batch, row in rows[len(expected) :]:
        assert not batch.inputs.image[row].any()
        assert not batch.labels.area[row].any()


def test_detections_are_grouped_by_image_in_the_order_of_the_file(tmp_path):
    boxes = [(104, 3), (102, 5), (104, 7), (102, 9), (104, 2)]
    entries = [
        {"image_id": i, "bbox": [x, 4, 20, 30], "score": x / 10} for i, x in boxes
    ]
    path = write(tmp_path / "boxes.json", entries)
    (batch,) = pipeline.test_batches(scenes.Scenes(), {**DATA, "detections": path}, 2)
    assert batch.image_id.tolist() == [102, 104]
    np.testing.assert_array_equal(batch.inputs.box[..., 0], [[5, 9, 0], [3, 7, 2]])
    np.testing.assert_allclose(
        batch.inputs.box_score, [[0.5, 0.9, 0], [0.3, 0.7, 0.2]], rtol=1e-6
    )
    message = r"image 104 \(104.png\) has 3 boxes to crop, data.max_persons is 2; raise"
    with pytest.raises(UserError, match=message):
        pipeline.test_batches(
            scenes.Scenes(), {**DATA, "detections": path, "max_persons": 2}, 2
        )


def test_occlusions_are_refused_and_colour_is_that_of_the_image():
    with pytest.raises(UserError, match="occlusion: a view of people .* takes none"):
        train(occlusion=({"name": "mask_joints"},))
    plain, tinted = (
        pipeline.augmented(
            scenes.Scenes(), {**DATA, "augment": {"colour": strength}}, 0
        )[1](COUNTS.index(3)).inputs.image
        for strength in (0.0, 0.4)
    )
    fair = (plain > 60) & (tinted < 255)
    for channel in range(3):
        factors = [
            np.median(tinted[row, ..., channel][at] / plain[row, ..., channel][at])
            for row, at in enumerate(fair[..., channel])
        ]
        np.testing.assert_allclose(factors, factors[0], rtol=0.02)
        assert abs(factors[0] - 1) > 0.005


def test_the_crowd_trains_and_tests_with_its_people_together(tmp_path):
    source = Crowd(num_scenes=8, size=(64, 64), people=(1, 3))
    path = poses(source, tmp_path / "poses.json", off=1.0)
    data = {**DATA, "proposals": path, "eval_proposals": path, "least_people": 2}
    batch = next(pipeline.train_batches(source, data, 4, 0))
    there = batch.labels.area > 0
    assert there.sum(axis=1).min() >= 2
    seen = batch.labels.visibility > 0
    off = batch.inputs.start_pose[seen][:, :2] - batch.labels.joints[seen]
    assert 0 < np.linalg.norm(off, axis=1).max() < 10
    tested = list(pipeline.test_batches(source, {**data, "eval_images": 5}, 2))
    counts = [np.sum(b.inputs.box_score > 0, axis=1) for b in tested]
    assert np.concatenate(counts).tolist() == [*source.targets[:5], 0]
