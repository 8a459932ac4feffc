import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.errors import UserError
from occjax.runtime.mesh import Layout


@pytest.fixture(scope="module")
def layout():
    return Layout.create()


def test_the_mesh_has_all_devices_on_its_data_axis(layout):
    assert dict(layout.mesh.shape) == {"data": jax.device_count(), "model": 1}


def test_each_device_gets_its_rows_of_a_batch(layout):
    devices = jax.device_count()
    rows = np.arange(2 * devices * 3).reshape(2 * devices, 3)
    placed = layout.shard_batch({"x": rows, "none": None})

    assert placed["none"] is None
    np.testing.assert_array_equal(placed["x"], rows)
    for i, shard in enumerate(placed["x"].addressable_shards):
        np.testing.assert_array_equal(shard.data, rows[2 * i : 2 * i + 2])


def test_replicated_values_lie_on_every_device(layout):
    placed = layout.replicate((np.float32(3), np.arange(4)))

    assert placed[0].shape == ()
    for leaf in placed:
        assert leaf.is_fully_replicated
        assert len(leaf.addressable_shards) == jax.device_count()


def test_a_mean_over_a_split_batch_is_the_mean_over_all_of_it(layout):
    values = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    mean = jax.jit(jnp.mean, in_shardings=layout.batch)(layout.shard_batch(values))
    np.testing.assert_allclose(mean, values.mean(), rtol=1e-5)


def test_a_convolution_of_a_split_batch_traces(layout):
    images = layout.shard_batch(np.ones((8, 6, 6, 2), np.float32))
    kernel = layout.replicate(np.ones((3, 3, 2, 1), np.float32))
    convolve = jax.jit(
        lambda x, k: jax.lax.conv_general_dilated(
            x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )
    np.testing.assert_array_equal(convolve(images, kernel), np.full((8, 4, 4, 1), 18.0))


def test_a_batch_that_does_not_divide_is_refused(layout):
    layout.check_batch_size(3 * jax.device_count())
    with pytest.raises(UserError, match="config.batch_size: 9 images.* multiple of 8"):
        layout.check_batch_size(9)
