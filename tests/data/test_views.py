import json

import numpy as np
import pytest
import scenes
from batches import assert_same, leaves, shapes_of, take

from occjax.data import pipeline, warp
from occjax.errors import UserError

OCCLUSION = (
    {"name": "mask_joints"},
    {"name": "paste_instance", "probability": 0.8},
    {"name": "paste_patches"},
)
PERSON = {
    "view": "person",
    "size": (96, 64),
    "max_persons": 3,
    "threads": 2,
    "augment": {"colour": 0.2},
    "occlusion": OCCLUSION,
}
WHOLE = {
    "size": 64,
    "max_persons": 4,
    "threads": 2,
    "augment": {"colour": 0.2},
    "occlusion": OCCLUSION,
}
PEOPLE = {**PERSON, "view": "people", "max_persons": 2, "occlusion": ()}
EACH = pytest.mark.parametrize(
    "data", [PERSON, WHOLE, PEOPLE], ids=["person", "image", "people"]
)


def train(data, batch_size=8, seed=1, count=20, **options):
    return pipeline.train_batches(
        scenes.Scenes(count), data, batch_size, seed, **options
    )


@EACH
def test_elements_are_the_same_for_any_threads(data):
    reference = take(train(data), 5)
    for threads in (0, 1, 4):
        assert_same(take(train({**data, "threads": threads}), 5), reference)
    other = next(train(data, seed=2))
    assert not np.array_equal(other.inputs.image, reference[0].inputs.image)


@EACH
def test_one_or_eight_processes_make_the_same_batch(data):
    whole = take(train(data), 2)
    parts = [
        take(train({**data, "threads": 0}, process_index=p, process_count=8), 2)
        for p in range(8)
    ]
    for number, batch in enumerate(whole):
        columns = zip(*(leaves(part[number]) for part in parts), strict=True)
        for leaf, column in zip(leaves(batch), columns, strict=True):
            np.testing.assert_array_equal(np.concatenate(column), leaf)


@EACH
def test_training_resumes_at_any_element(data):
    iterator = train(data)
    states, batches = [], []
    for _ in range(5):
        states.append(json.dumps(iterator.get_state()))
        batches.append(next(iterator))
    for state, expected in zip(states, batches, strict=True):
        again = train({**data, "threads": 0})
        again.set_state(json.loads(state))
        assert_same(next(again), expected)


def test_every_person_comes_once_an_epoch():
    source = scenes.Scenes(5)
    people = sum(len(source[i]["persons"]["id"]) for i in range(5))
    data = {**PERSON, "occlusion": (), "augment": {}}
    batches = take(train(data, batch_size=1, count=5), 2 * people)
    boxes = [(int(b.image_id[0]), *b.labels.visibility[0, 0]) for b in batches]
    counted = [
        (100 + i, *row)
        for i in range(5)
        for row in source[i]["persons"]["joints"][..., 2]
    ]
    # A mirrored view has its joints in another order; sorted they are the same.
    unordered = sorted((i, *sorted(row)) for i, *row in counted)
    for epoch in (boxes[:people], boxes[people:]):
        assert sorted((i, *sorted(row)) for i, *row in epoch) == unordered


def test_person_batches_have_the_promised_shapes_and_types():
    batch = next(train(PERSON))
    assert shapes_of(batch) == {
        "image": ((8, 96, 64, 3), np.uint8),
        "valid": ((8, 2), np.int32),
        "to_source": ((8, 2, 3), np.float32),
        "clean": ((8, 96, 64, 3), np.uint8),
        "box": ((8, 4), np.float32),
        "box_score": ((8,), np.float32),
        "joints": ((8, 3, 17, 2), np.float32),
        "visibility": ((8, 3, 17), np.uint8),
        "area": ((8, 3), np.float32),
        "ignore": ((8, 24, 16), bool),
        "head_size": ((8, 3), np.float32),
        "oks_area": ((8, 3), np.float32),
        "clean_visibility": ((8, 3, 17), np.uint8),
    }
    assert not batch.labels.ignore.any()


def test_persons_with_few_joints_are_left_out_on_request():
    data = {**PERSON, "min_joints": 13, "occlusion": (), "augment": {"half_body": 0.0}}
    batches = take(train(data), 5)
    counts = np.sum(np.concatenate([b.labels.visibility[:, 0] for b in batches]) > 0, 1)
    assert counts.min() >= 13
    assert next(train({**data, "min_joints": 0}, batch_size=40)).labels.visibility[
        :, 0
    ].astype(bool).sum(axis=1).min() < 13  # fmt: skip


def test_testing_crops_every_box_once_in_order_and_pads_the_last_batch():
    source = scenes.Scenes(7)
    expected = [
        (100 + i, row)
        for i in range(7)
        for row in range(len(source[i]["persons"]["id"]))
    ]
    batches = list(pipeline.test_batches(source, PERSON, 4, labels=True))
    ids = np.concatenate([b.image_id for b in batches])
    count = len(expected)
    assert list(ids[:count]) == [image_id for image_id, _ in expected]
    assert list(ids[count:]) == [-1] * (-count % 4)
    rows = [(b, i) for b in batches for i in range(4)]
    for (image_id, row), (batch, at) in zip(expected, rows, strict=False):
        joints = source[image_id - 100]["persons"]["joints"][row]
        seen = joints[:, 2] > 0
        back = warp.apply(
            batch.inputs.to_source[at].astype(float),
            batch.labels.joints[at, 0].astype(float),
        )
        np.testing.assert_allclose(back[seen], joints[seen, :2], atol=1e-3)
        np.testing.assert_array_equal(batch.labels.visibility[at, 0], joints[:, 2])
        assert batch.inputs.box_score[at] == 1
    for batch, at in rows[count:]:
        assert not batch.inputs.image[at].any()
        assert not batch.inputs.box[at].any()
        assert not batch.labels.area[at].any()
    first = pipeline.test_batches(source, {**PERSON, "eval_images": 2}, 4)
    ids = np.concatenate([b.image_id for b in first])
    assert set(ids) - {-1} == {100, 101}


def test_shares_of_person_testing_are_the_rows_of_the_whole():
    source = scenes.Scenes(7)
    whole = list(pipeline.test_batches(source, PERSON, 8, labels=True))
    parts = [
        list(
            pipeline.test_batches(
                source, PERSON, 8, labels=True, process_index=p, process_count=8
            )
        )
        for p in range(8)
    ]
    for number, batch in enumerate(whole):
        columns = zip(*(leaves(part[number]) for part in parts), strict=True)
        for leaf, column in zip(leaves(batch), columns, strict=True):
            np.testing.assert_array_equal(np.concatenate(column), leaf)


def test_a_single_augmented_example_can_be_looked_at():
    source = scenes.Scenes()
    _, look = pipeline.augmented(source, PERSON, seed=3)
    one = look(5)
    assert one.inputs.image.shape == (96, 64, 3)
    assert_same(look(5), one)
    other = pipeline.augmented(source, PERSON, seed=4)[1](5)
    assert not np.array_equal(other.inputs.image, one.inputs.image)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"view": "face"},
            "data.view: expected one of image, person, people; got 'face'",
        ),
        ({"size": 96}, r"data.size of a view of crops: expected \(height, width\)"),
        ({"size": (96, 60)}, "multiples of 32"),
        ({"augment": {"translate": 0.2}}, "data.augment: expected some of .*scale"),
        (
            {"occlusion": ({"name": "fog"},)},
            "occlusion: expected a name of mask_joints",
        ),
        (
            {"occlusion": ({"name": "mask_joints", "size": 3},)},
            "occlusion mask_joints: ",
        ),
        (
            {"occlusion": ({"name": "paste_instance", "pool": "none.npz"},)},
            "pool none.npz: there is no such file; make it with: python -m data_prep",
        ),
    ],
)
def test_faulty_settings_are_one_line(settings, message):
    with pytest.raises(UserError, match=message) as error:
        train({**PERSON, **settings})
    assert "\n" not in str(error.value)


def test_person_crops_have_further_scales_up_to_a_limit():
    batches = pipeline.test_batches(scenes.Scenes(), PERSON, 4, scales=(0.8, 1.0, 1.3))
    inputs = next(iter(batches)).inputs
    assert [x.shape for x in inputs.scaled] == 2 * [inputs.image.shape]
    for scale, matrix in zip((0.8, 1.3), inputs.scaled_to_source, strict=True):
        linear = np.linalg.det(matrix[:, :, :2])
        wanted = scale**2 * np.linalg.det(inputs.to_source[:, :, :2])
        np.testing.assert_allclose(linear, wanted, rtol=1e-4)
    with pytest.raises(
        UserError, match=r"person crops are tested at scales up to 1\.3"
    ):
        pipeline.test_batches(scenes.Scenes(), PERSON, 4, scales=(1.0, 1.5))
    grouped = {**PERSON, "view": "people"}
    with pytest.raises(UserError, match="a view of people is tested at scale 1"):
        pipeline.test_batches(scenes.Scenes(), grouped, 4, scales=(1.0, 0.8))


def test_colour_changes_channels_alike_in_image_and_clean_twin():
    plain = {**PERSON, "augment": {}, "occlusion": ({"name": "paste_patches"},)}
    source = scenes.Scenes()
    before = pipeline.augmented(source, plain, 0)[1](2)
    after = pipeline.augmented(source, {**plain, "augment": {"colour": 0.3}}, 0)[1](2)
    factors = set()
    for channel in range(3):
        for old, new in (
            (before.inputs.image, after.inputs.image),
            (before.inputs.clean, after.inputs.clean),
        ):
            old, new = (image[..., channel].astype(float) for image in (old, new))
            fair = (old > 60) & (new < 255)
            factor = np.median(new[fair] / old[fair])
            assert 0.7 <= factor <= 1.3
            expected = np.minimum(np.rint(old * factor), 255)
            np.testing.assert_allclose(new, expected, atol=3)
            factors.add(round(factor, 2))
    assert len(factors) == 3
