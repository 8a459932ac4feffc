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
    return Poses(joints, joints[..., 0], joints[..., 0], score)


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
