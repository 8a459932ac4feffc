"""The small feature pyramid: sizes, statistics and what a patch layer computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax import nn
from occjax.nn import pyramid

TINY = dict(widths=(4, 8), depths=(1, 1), features=6)


@pytest.fixture(scope="module")
def image():
    return jax.random.normal(jax.random.key(0), (2, 16, 24, 3))


def test_features_have_stride_four_and_the_channels_asked_for(image):
    model = nn.backbone("pyramid", **TINY)
    variables = model.init(jax.random.key(1), image, train=False)
    assert model.apply(variables, image, train=False).shape == (2, 4, 6, 6)


def test_default_size_fits_a_laptop():
    model = pyramid.Backbone()
    image = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
    init = lambda image: model.init(jax.random.key(0), image, train=False)  # noqa: E731
    shapes = jax.eval_shape(init, image)
    count = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    assert 1e6 < count < 2e6


def test_height_off_the_coarsest_stride_is_refused(image):
    model = pyramid.Backbone(**TINY)
    with pytest.raises(ValueError, match=r"multiples of 8; got 12 x 24"):
        model.init(jax.random.key(0), image[:, :12], train=False)


def test_training_changes_every_statistic(image):
    model = pyramid.Backbone(**TINY)
    variables = model.init(jax.random.key(1), image, train=False)
    _, updates = model.apply(variables, image, train=True, mutable=["batch_stats"])
    old = jax.tree.leaves(variables["batch_stats"])
    new = jax.tree.leaves(updates["batch_stats"])
    assert all(np.any(a != b) for a, b in zip(old, new, strict=True))


def test_a_patch_layer_equals_a_convolution_with_its_size_as_stride(image):
    layer = pyramid.Patches(features=5, size=4)
    variables = layer.init(jax.random.key(2), image, train=False)
    kernel = variables["params"]["Dense_0"]["kernel"].reshape(4, 4, 3, 5)
    convolved = jax.lax.conv_general_dilated(
        image, kernel, (4, 4), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    # fresh statistics: mean 0, variance 1
    expected = jax.nn.relu(convolved / np.sqrt(1 + 1e-5, dtype=np.float32))
    found = layer.apply(variables, image, train=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_every_level_reaches_the_output(image):
    model = pyramid.Backbone(**TINY)
    variables = model.init(jax.random.key(1), image, train=False)

    def total(params):
        found, _ = model.apply(
            {**variables, "params": params}, image, train=True, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.square(found))

    gradient = jax.grad(total)(variables["params"])
    kernels = [
        value for path, value in jax.tree.leaves_with_path(gradient) if value.ndim > 1
    ]
    assert all(np.any(kernel) for kernel in kernels)
