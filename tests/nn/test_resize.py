"""Pooling, upsampling and shuffling against torch's own figures."""

import equivalence
import jax.numpy as jnp
import numpy as np
import pytest
from golden_nets import nhwc
from jax import image

from occjax.nn import blocks, resize


def check(name, ours, theirs, tolerance):
    equivalence.check("torch operations", f"forward: {name}", ours, theirs, tolerance)


@pytest.fixture(scope="module")
def ops(golden):
    return np.load(golden / "torch_ops" / "ops.npz")


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("up2_bilinear_ac1", lambda x: resize.bilinear_aligned(x, (10, 8))),
        ("resize_7x9_ac1", lambda x: resize.bilinear_aligned(x, (7, 9))),
        ("resize_3x2_ac1", lambda x: resize.bilinear_aligned(x, (3, 2))),
        ("up2_bilinear_ac0", lambda x: image.resize(x, (2, 10, 8, 8), "bilinear")),
        ("up2_nearest", lambda x: resize.upsample_nearest(x, 2)),
        ("maxpool_3_2_1", lambda x: resize.max_pool(x, 3, pad=1)),
        ("maxpool_2_2", lambda x: resize.max_pool(x, 2)),
        ("pixel_shuffle_2", resize.pixel_shuffle),
    ],
)
def test_maps_equal_those_of_torch(ops, name, function):
    found = function(jnp.asarray(nhwc(ops["in_x"])))
    check(name, found, nhwc(ops[name]), 5e-7)


def test_transposed_convolution_equals_that_of_torch(ops):
    weight = np.moveaxis(ops["in_w_t4"], (0, 1), (-1, -2))  # the kind "conv"
    found = blocks.Deconv(3).apply({"params": {"kernel": weight}}, nhwc(ops["in_x"]))
    check("convT_k4s2p1", found, nhwc(ops["convT_k4s2p1"]), 5e-7)


@pytest.mark.parametrize(
    ("name", "kernel", "pick"),
    [("conv_k3s2p1", 3, "in_w3"), ("conv_k7s2p3", 7, "in_w7")],
)
def test_strided_convolution_equals_that_of_torch(ops, name, kernel, pick):
    weight = np.moveaxis(ops[pick], (0, 1), (-1, -2))
    layer = blocks.conv(6, kernel, stride=2)
    found = layer.apply({"params": {"kernel": weight}}, nhwc(ops["in_x"]))
    check(name, found, nhwc(ops[name]), 1e-6)


def test_batch_norm_equals_that_of_torch_over_three_batches(ops):
    params = {"scale": ops["in_bn_w"], "bias": ops["in_bn_b"]}
    stats = {"mean": np.zeros(8, np.float32), "var": np.ones(8, np.float32)}
    norm = blocks.BatchNorm()
    for i, x in enumerate(ops["in_bn_x"]):
        given = {"params": params, "batch_stats": stats}
        y, state = norm.apply(given, nhwc(x), train=True, mutable=["batch_stats"])
        stats = state["batch_stats"]
        if i in (0, 2):
            check(f"bn_train_out{i}", y, nhwc(ops[f"bn_train_out{i}"]), 1e-6)
            check(f"bn_mean{i}", stats["mean"], ops[f"bn_mean{i}"], 1e-6)
            check(f"bn_var{i}", stats["var"], ops[f"bn_var{i}"], 1e-6)
    given = {"params": params, "batch_stats": stats}
    last = norm.apply(given, nhwc(ops["in_bn_x"][0]), train=False)
    check("bn_eval_out", last, nhwc(ops["bn_eval_out"]), 1e-6)


def test_the_border_never_wins_a_pooling_window():
    assert np.all(resize.max_pool(-jnp.ones((1, 4, 4, 1)), 3, pad=1) == -1)


def test_aligned_resizing_keeps_the_corners_and_any_plane():
    rows, columns = np.mgrid[0:3, 0:4].astype(np.float32)
    plane = (2 * rows - columns)[None, ..., None]
    found = resize.bilinear_aligned(jnp.asarray(plane), (9, 10))[0, ..., 0]
    down = np.linspace(0, 4, 9)[:, None]
    np.testing.assert_allclose(found, down - np.linspace(0, 3, 10), atol=1e-6)
    assert resize.bilinear_aligned(jnp.asarray(plane), (1, 1))[0, 0, 0, 0] == 0


def test_nearest_upsampling_repeats_pixels():
    x = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    nearest = resize.upsample_nearest(jnp.asarray(x), 2)[0, ..., 0]
    np.testing.assert_array_equal(nearest, np.kron(x[0, ..., 0], np.ones((2, 2))))
