"""The adaptive block: by the published code, by ordinary convolution, by a loop."""

import functools

import equivalence
import golden_nets as nets
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.nn import adaptive_conv
from occjax.runtime import weights

NAME = "DEKR (HRNet-W32)"
BLOCK = "offset_feature_layers.3.0."  # the one whose figures there are
ROWS = tuple(
    (pattern, target.replace("adapt_\\2/", ""), kind)
    for pattern, target, kind in adaptive_conv.TORCH_NAMES
)


@functools.cache
def variables_of(folder):
    """Weights of the published block, for one joint."""
    _, state_dict = golden_weights.load(folder)
    named = {
        "0.0." + name.removeprefix(BLOCK): array
        for name, array in state_dict.items()
        if name.startswith(BLOCK)
    }
    assert len(named) == 10
    shapes = jax.eval_shape(
        functools.partial(adaptive_conv.AdaptiveBlock().init, train=False),
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, 1, 4, 4, 15), np.float32),
    )
    return weights.convert(named, ROWS, shapes)


def run(variables, x, dtype, train=False):
    block = adaptive_conv.AdaptiveBlock(dtype)
    return block.apply(variables, x, train=train)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_block_and_its_gradient_are_the_published_ones(golden, dtype):
    z = np.load(golden / "dekr_coco" / "adapt_block.npz")
    with jax.enable_x64(dtype == np.float64):
        variables = jax.tree.map(
            lambda x: jnp.asarray(x, dtype), variables_of(golden / "dekr_coco")
        )
        x = jnp.asarray(nets.nhwc(z["x"])[None], dtype)

        def loss(params, x):
            out = run({**variables, "params": params}, x, dtype)
            return jnp.sum(out * jnp.sign(x - 1)), out

        grads, out = nets.quick_jit(jax.grad(loss, (0, 1), has_aux=True))(
            variables["params"], x
        )
        zero = jnp.zeros_like(x[:, :1, :4, :5])
        empty = run(variables, zero, dtype)
    check = functools.partial(equivalence.check, NAME, tolerance=2e-5)
    link = "forward: adaptive block"
    check(link, nchw(out[0]), z["out"])
    check(link, nchw(empty[0]), z["out_zero_input"])
    params, grad_x = grads
    check("gradient norm: adaptive block", nchw(grad_x[0]), z["grad_x"])
    for ours, theirs in (
        ("conv0", "adapt"),
        ("matrix0", "transform"),
        ("translation0", "translation"),
    ):
        grad = np.asarray(params[ours]["kernel"]).transpose(3, 2, 0, 1)
        check("gradient norm: adaptive block", grad, z[f"grad_{theirs}_weight"])


def nchw(array):
    return np.moveaxis(np.asarray(array), -1, 1)


def test_taps_and_samples_are_the_published_ones(golden):
    z = np.load(golden / "dekr_coco" / "adapt_block.npz")
    params = variables_of(golden / "dekr_coco")["params"]
    x = jnp.asarray(nets.nhwc(z["x"]))
    where = [
        np.concatenate([params[name][part] for name in ("matrix0", "translation0")], -1)
        for part in ("kernel", "bias")
    ]
    points = adaptive_conv.tap_points(x, *map(jnp.asarray, where))
    moved = np.asarray(points) - regular(*x.shape[1:3])
    theirs = nets.nhwc(z["deform_offset_yx"]).reshape(*moved.shape)[..., ::-1]
    equivalence.check(NAME, "forward: moved taps", moved, theirs, 2e-5)
    out = adaptive_conv.deform_conv(x, points, jnp.asarray(params["conv0"]["kernel"]))
    equivalence.check(
        NAME, "forward: deformed convolution", nchw(out), z["deform_out"], 2e-5
    )


def regular(height, width):
    """Points of an ordinary 3x3 convolution, [1, H, W, 9, 2]."""
    y, x = np.mgrid[:height, :width]
    pixel = np.stack((x, y), axis=-1)[None, :, :, None]
    return (pixel + adaptive_conv.TAPS).astype(np.float32)


def random_case(seed, size=(5, 7), channels=3, features=4):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, *size, channels)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, channels, features)).astype(np.float32)
    return rng, x, kernel


def test_unmoved_taps_make_an_ordinary_convolution():
    _, x, kernel = random_case(0)
    points = np.broadcast_to(regular(5, 7), (2, 5, 7, 9, 2))
    found = adaptive_conv.deform_conv(x, jnp.asarray(points), kernel)
    wanted = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_moved_taps_are_a_loop_over_pixels():
    rng, x, kernel = random_case(1)
    points = regular(5, 7) + rng.normal(0, 2, (2, 5, 7, 9, 2)).astype(np.float32)
    found = adaptive_conv.deform_conv(jnp.asarray(x), jnp.asarray(points), kernel)
    padded = np.pad(x, ((0, 0), (20, 20), (20, 20), (0, 0)))  # zero outside
    taps = kernel.reshape(9, 3, 4)
    for image, row, column in np.ndindex(2, 5, 7):
        total = np.zeros(4)
        for tap, (px, py) in zip(taps, points[image, row, column], strict=True):
            left, top = int(np.floor(px)), int(np.floor(py))
            share_x, share_y = px - left, py - top
            cell = padded[image, 20 + top : 22 + top, 20 + left : 22 + left]
            across = cell[:, 0] * (1 - share_x) + cell[:, 1] * share_x
            total += (across[0] * (1 - share_y) + across[1] * share_y) @ tap
        np.testing.assert_allclose(found[image, row, column], total, atol=1e-4)


def test_at_the_start_every_tap_reads_its_pixel_and_can_learn_to_move():
    _, x, _ = random_case(2)
    block, x = adaptive_conv.AdaptiveBlock(), jnp.asarray(x)[None]
    variables = block.init(jax.random.key(0), x, train=False)
    kernel = variables["params"]["conv0"]["kernel"]
    assert np.abs(kernel).max() <= 27**-0.5  # three channels, nine taps
    at_pixel = x + x @ jnp.sum(kernel, axis=(0, 1)) / np.float32(np.sqrt(1 + 1e-5))
    found = block.apply(variables, x, train=False)
    np.testing.assert_allclose(found, nn_relu(at_pixel), atol=1e-5)
    grads = jax.grad(
        lambda v: jnp.sum(block.apply(v, x, train=False) * jnp.cos(7 * x))
    )(variables)["params"]
    assert all(np.any(grad) for grad in jax.tree.leaves(grads))


def nn_relu(x):
    return np.maximum(x, 0)


def test_joints_do_not_share_anything():
    rng, x, _ = random_case(3)
    x = jnp.asarray(rng.standard_normal((3, *x.shape)), jnp.float32)
    block = adaptive_conv.AdaptiveBlock()
    shapes = jax.eval_shape(
        functools.partial(block.init, train=False), jax.random.key(0), x
    )
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.uniform(0.2, 1, leaf.shape), jnp.float32), shapes
    )
    together = run(variables, x, jnp.float32)
    for joint in range(3):
        own = {
            kind: {
                name[:-1] + "0": value
                for name, value in tree.items()
                if name.endswith(str(joint))
            }
            for kind, tree in variables.items()
        }
        alone = run(own, x[joint : joint + 1], jnp.float32)
        np.testing.assert_allclose(together[joint], alone[0], rtol=1e-6)
    heads = adaptive_conv.JointConv(2)
    variables = heads.init(jax.random.key(1), x)
    for joint in range(3):
        kernel = variables["params"][f"joint{joint}"]["kernel"][0, 0]
        np.testing.assert_allclose(
            heads.apply(variables, x)[joint], x[joint] @ kernel, rtol=1e-5, atol=1e-9
        )
