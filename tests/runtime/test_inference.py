import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.runtime import inference
from occjax.runtime.mesh import Layout
from occjax.types import Batch, Inputs, Poses


@pytest.fixture(scope="module")
def layout():
    return Layout.create()


def make(ids, side):
    """Images whose every pixel is their id."""
    ids = np.asarray(ids, np.int64)
    image = np.broadcast_to(ids[:, None, None, None], (len(ids), side, side, 3))
    matrix = np.tile(np.eye(2, 3, dtype=np.float32), (len(ids), 1, 1))
    valid = np.full((len(ids), 2), side, np.int32)
    return Batch(Inputs(image.astype(np.uint8), valid, matrix), None, ids)


def step(variables, inputs):
    """As many persons as a tenth of the image's side, at the pixels' value."""
    persons = inputs.image.shape[1] // 10
    value = inputs.image[:, 0, 0, 0].astype(jnp.float32) + variables
    score = jnp.broadcast_to(value[:, None], (len(value), persons))
    joints = jnp.broadcast_to(score[:, :, None, None], (*score.shape, 3, 2))
    return Poses(joints, *3 * [joints[..., 0]], score)


def test_every_image_comes_back_once_with_its_poses_and_padding_is_left_out(layout):
    batches = [make(range(1, 9), 20), make([9, 10] + [-1] * 6, 20)]
    found = inference.predict_dataset(jax.jit(step), jnp.float32(0.5), batches, layout)

    np.testing.assert_array_equal(found.image_ids, np.arange(1, 11))
    assert found.poses.joints.shape == (10, 2, 3, 2)
    np.testing.assert_array_equal(found.poses.score[:, 0], np.arange(1, 11) + 0.5)


def test_shapes_with_fewer_persons_are_padded_with_nobody(layout):
    batches = [make(range(8), 10), make(range(8, 16), 30)]
    found = inference.predict_dataset(jax.jit(step), jnp.float32(0), batches, layout)

    assert found.poses.score.shape == (16, 3)
    assert np.all(found.poses.score[:8, 1:] == -np.inf)
    assert np.all(found.poses.score[8:] > 0)
    np.testing.assert_array_equal(found.poses.joints[:8, 1:], 0)


def test_each_shape_compiles_once(layout):
    traced = []

    def counted(variables, inputs):
        traced.append(inputs.image.shape)
        return step(variables, inputs)

    batches = [make(range(8), 20)] * 3 + [make(range(8), 30)] * 2
    inference.predict_dataset(jax.jit(counted), jnp.float32(0), batches, layout)
    assert traced == [(8, 20, 20, 3), (8, 30, 30, 3)]


def test_no_batch_at_all_is_an_error(layout):
    with pytest.raises(ValueError, match="at least one batch"):
        inference.predict_dataset(jax.jit(step), jnp.float32(0), [], layout)


def crops(ids, scales):
    """Crops of 20 x 20 whose source windows have these scales."""
    batch = make(ids, 20)
    matrix = np.asarray(scales, np.float32)[:, None, None] * batch.inputs.to_source
    return batch._replace(inputs=batch.inputs._replace(to_source=matrix))


def test_crops_of_an_image_become_a_row_and_what_is_superfluous_loses_its_score(layout):
    ids = [7, 5, 7, 9, 5, 7, 9, 2] + [3, 7] + [-1] * 6
    scales = [1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10] + [1] * 6

    def one(variables, inputs):
        value = jnp.sqrt(jnp.abs(jnp.linalg.det(inputs.to_source[:, :, :2])))
        joints = jnp.broadcast_to(value[:, None, None, None], (len(value), 1, 3, 2))
        score = value[:, None] + variables
        return Poses(joints, *3 * [joints[..., 0]], score)

    def largest_alone(poses, area):
        """Keeps what was seen in the largest crop."""
        best = jnp.argmax(jnp.where(poses.score > -jnp.inf, area, -1), axis=1)
        keep = jnp.arange(area.shape[1])[None] == best[:, None]
        return jnp.where(keep, poses.score, -jnp.inf)

    batches = [crops(ids[:8], scales[:8]), crops(ids[8:], scales[8:])]
    found = inference.predict_dataset(
        jax.jit(one), jnp.float32(0.5), batches, layout, jax.jit(largest_alone)
    )

    np.testing.assert_array_equal(found.image_ids, [7, 5, 9, 2, 3])
    expected = {7: [1, 3, 6, 10], 5: [2, 5], 9: [4, 7], 2: [8], 3: [9]}
    for image, pose in zip(found.image_ids.tolist(), found.poses.joints, strict=True):
        mine = expected[image]
        np.testing.assert_allclose(pose[: len(mine), 0, 0], mine, rtol=1e-6)
        score = found.poses.score[found.image_ids.tolist().index(image)]
        kept = score > -np.inf
        assert np.flatnonzero(kept).tolist() == [len(mine) - 1]
        np.testing.assert_allclose(score[kept], mine[-1] + 0.5, rtol=1e-6)


def test_rows_of_several_crops_are_of_an_image_already(layout):
    ids = np.array([3, 1, 7, 5, 2, 9, 4, -1])
    scales = np.arange(24, dtype=np.float32).reshape(8, 3)  # 0: nobody
    image = np.zeros((8, 3, 20, 10, 3), np.uint8)
    matrix = scales[..., None, None] * np.eye(2, 3, dtype=np.float32)
    batch = Batch(Inputs(image, np.zeros((8, 3, 2), np.int32), matrix), None, ids)

    def each(variables, inputs):
        value = inputs.to_source[:, :, 0, 0] + variables
        joints = jnp.broadcast_to(value[..., None, None], (*value.shape, 4, 2))
        score = jnp.where(inputs.to_source[:, :, 0, 0] > 0, value, -jnp.inf)
        return Poses(joints, *3 * [joints[..., 0]], score)

    plain = inference.predict_dataset(jax.jit(each), 0.5, [batch], layout)
    np.testing.assert_array_equal(plain.image_ids, ids[:7])
    assert plain.poses.joints.shape == (7, 3, 4, 2)
    np.testing.assert_array_equal(plain.poses.score[1:], scales[1:7] + 0.5)
    assert plain.poses.score[0].tolist() == [-np.inf, 1.5, 2.5]

    def by_area(poses, area):
        return jnp.where(poses.score > -jnp.inf, area, -jnp.inf)

    found = inference.predict_dataset(
        jax.jit(each), 0.5, [batch], layout, jax.jit(by_area)
    )
    np.testing.assert_array_equal(found.image_ids, ids[:7])
    np.testing.assert_allclose(
        found.poses.score[1:], np.square(scales[1:7]) * 200, rtol=1e-5
    )
    np.testing.assert_array_equal(found.poses.joints, plain.poses.joints)
