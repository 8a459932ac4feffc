import json
import subprocess
import sys

import numpy as np
import pytest
import scenes
from batches import assert_same, leaves, shapes_of, take

from occjax.data import pipeline, warp
from occjax.errors import UserError

DATA = {
    "size": 64,
    "max_persons": 4,
    "threads": 2,
    "augment": {"scale": (0.75, 1.5), "rotate": 30.0, "translate": 0.2, "flip": 0.5},
}


def train(seed=1, batch_size=4, count=20, settings=(), **options):
    source = scenes.Scenes(count)
    data = {**DATA, **dict(settings)}
    return pipeline.train_batches(source, data, batch_size, seed, **options)


def test_batches_have_the_promised_shapes_and_types():
    batch = next(train())
    assert shapes_of(batch) == {
        "image": ((4, 64, 64, 3), np.uint8),
        "valid": ((4, 2), np.int32),
        "to_source": ((4, 2, 3), np.float32),
        "joints": ((4, 4, 17, 2), np.float32),
        "visibility": ((4, 4, 17), np.uint8),
        "area": ((4, 4), np.float32),
        "ignore": ((4, 16, 16), bool),
        "head_size": ((4, 4), np.float32),
        "oks_area": ((4, 4), np.float32),
    }
    assert batch.image_id.dtype == np.int64
    assert set(batch.image_id) <= set(range(100, 120))


def test_batch_is_a_pure_function_of_seed_and_number_for_any_threads():
    reference = take(train(), 6)
    for threads in (0, 3):
        again = take(train(settings={"threads": threads}), 6)
        assert_same(again, reference)
    assert_same(next(train(start_step=4)), reference[4])
    other = next(train(seed=2))
    assert not np.array_equal(other.inputs.image, reference[0].inputs.image)


def test_processes_hold_consecutive_rows_of_the_same_global_batch():
    for number, whole in enumerate(take(train(), 3)):
        parts = [
            next(train(process_index=p, process_count=2, start_step=number))
            for p in range(2)
        ]
        for whole_leaf, *part_leaves in zip(
            leaves(whole), *map(leaves, parts), strict=True
        ):
            np.testing.assert_array_equal(np.concatenate(part_leaves), whole_leaf)


def test_resuming_from_saved_state_continues_exactly():
    iterator = train()
    take(iterator, 3)
    state = json.loads(json.dumps(iterator.get_state()))
    expected = take(iterator, 4)
    fresh = train()
    fresh.set_state(state)
    assert_same(take(fresh, 4), expected)
    iterator.set_state(state)  # back in time works as well
    assert_same(take(iterator, 4), expected)


def test_every_image_comes_once_an_epoch_in_new_order_and_new_views():
    batches = take(train(batch_size=5), 8)  # two epochs of 20
    ids = np.concatenate([batch.image_id for batch in batches]).reshape(2, 20)
    assert sorted(ids[0]) == sorted(ids[1]) == list(range(100, 120))
    assert list(ids[0]) != list(ids[1])
    images = np.concatenate([batch.inputs.image for batch in batches])
    twice = [images[np.flatnonzero(ids.ravel() == i)] for i in range(100, 120)]
    assert not any(np.array_equal(*pair) for pair in twice)


def test_images_with_few_joints_are_left_out_on_request():
    source = scenes.Scenes()
    counts = np.array(
        [np.sum(source[i]["persons"]["joints"][..., 2] > 0) for i in range(20)]
    )
    least = int(np.median(counts)) + 1
    batches = take(train(settings={"min_joints": least}), 12)
    seen = set(np.concatenate([batch.image_id for batch in batches]))
    assert seen == set(100 + np.flatnonzero(counts >= least))
    with pytest.raises(UserError, match="min_joints = 1000"):
        train(settings={"min_joints": 1000})


@pytest.mark.parametrize("threads", [0, 2])
def test_unreadable_image_is_named_by_id_and_file(threads):
    class Damaged(scenes.Scenes):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "image": b"no image"}

    data = {**DATA, "threads": threads}
    with pytest.raises(UserError, match=r"image 1\d\d \(1\d\d.png\): 8 bytes"):
        next(pipeline.train_batches(Damaged(), data, 4, 0))
    with pytest.raises(UserError, match=r"image 100 \(100.png\)"):
        next(pipeline.test_batches(Damaged(), data, 4))


def test_people_beyond_the_padding_stop_training_with_their_image():
    with pytest.raises(UserError, match="scenes has images with 3 .*max_persons is 1"):
        train(settings={"max_persons": 1})

    class Understated(scenes.Scenes):
        max_persons = 1

    data = {**DATA, "max_persons": 1}
    with pytest.raises(UserError, match=r"image \d+ .* [23] labelled people"):
        take(pipeline.train_batches(Understated(), data, 4, 0), 5)


def test_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="batch_size 4 .* 3 processes"):
        train(process_count=3)


def test_testing_sees_every_image_once_in_one_shape_a_batch():
    source = scenes.Scenes()
    batches = list(pipeline.test_batches(source, DATA, 4, labels=True))
    ids = np.concatenate([batch.image_id for batch in batches])
    assert sorted(ids[ids >= 0]) == list(range(100, 120))
    shapes = [batch.inputs.image.shape[1:3] for batch in batches]
    changes = sum(a != b for a, b in zip(shapes, shapes[1:], strict=False))
    assert changes == len(set(shapes)) - 1  # each shape comes in one run
    assert all(height % 32 == width % 32 == 0 for height, width in shapes)
    for batch in batches:
        padding = batch.image_id < 0
        assert not batch.inputs.image[padding].any()
        assert not batch.labels.area[padding].any()
        for row in np.flatnonzero(~padding):
            record = source[batch.image_id[row] - 100]
            count = len(record["persons"]["joints"])
            back = warp.apply(
                batch.inputs.to_source[row].astype(float),
                batch.labels.joints[row, :count].astype(float),
            )
            seen = record["persons"]["joints"][..., 2] > 0
            expected = record["persons"]["joints"][..., :2]
            np.testing.assert_allclose(back[seen], expected[seen], atol=1e-3)


def test_testing_in_shares_gives_the_rows_of_the_whole():
    source = scenes.Scenes(7)
    scales = (1.0, 0.5, 2.0)
    options = {"scales": scales, "labels": True}
    whole = list(pipeline.test_batches(source, DATA, 4, **options))
    parts = [
        list(
            pipeline.test_batches(
                source, DATA, 4, process_index=p, process_count=4, **options
            )
        )
        for p in range(4)
    ]
    assert {len(part) for part in parts} == {len(whole)}
    for number, batch in enumerate(whole):
        assert [s.shape[1] / batch.inputs.image.shape[1] for s in batch.inputs.scaled] \
            == [0.5, 2.0]  # fmt: skip
        columns = zip(*(leaves(part[number]) for part in parts), strict=True)
        for leaf, column in zip(leaves(batch), columns, strict=True):
            np.testing.assert_array_equal(np.concatenate(column), leaf)


def test_testing_may_stop_after_the_first_images():
    batches = pipeline.test_batches(scenes.Scenes(), {**DATA, "eval_images": 3}, 2)
    ids = np.concatenate([batch.image_id for batch in batches])
    assert sorted(ids[ids >= 0]) == [100, 101, 102]


def test_test_scales_without_one_are_refused():
    with pytest.raises(UserError, match="must have 1"):
        pipeline.test_batches(scenes.Scenes(), DATA, 4, scales=(0.5, 2.0))


def test_pipeline_works_where_jax_cannot_be_imported():
    code = (
        "import sys; sys.modules['jax'] = None\n"
        "import scenes; from occjax.data import pipeline\n"
        f"data = {DATA!r}\n"
        "next(pipeline.train_batches(scenes.Scenes(), data, 4, 0))\n"
        "print(len(list(pipeline.test_batches(scenes.Scenes(4), data, 2))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
