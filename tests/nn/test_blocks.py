import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from occjax.nn import blocks
from occjax.ops import image


def batch(seed, shape):
    """Rows whose mean is far from 0 and whose scale is far from 1."""
    return 3 + 2 * np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def norm_variables(channels, rng):
    """Parameters and statistics that are not the initial ones."""
    draw = functools.partial(rng.uniform, 0.5, 1.5, channels)
    names = {"params": ("scale", "bias"), "batch_stats": ("mean", "var")}
    return {
        collection: {name: draw().astype(np.float32) for name in leaves}
        for collection, leaves in names.items()
    }


def train_norm(variables, x, mask=None, dtype=jnp.float32):
    norm = blocks.BatchNorm(dtype)
    return norm.apply(variables, x, train=True, mask=mask, mutable=["batch_stats"])


@pytest.fixture
def variables():
    return norm_variables(5, np.random.default_rng(7))


def test_training_normalises_by_the_biased_variance_and_stores_the_unbiased(variables):
    x = batch(0, (3, 4, 5))
    y, state = train_norm(variables, x)
    rows = x.reshape(-1, 5).astype(np.float64)
    normal = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    expected = normal * variables["params"]["scale"] + variables["params"]["bias"]
    np.testing.assert_allclose(y.reshape(-1, 5), expected, rtol=1e-4, atol=1e-5)
    old, new = variables["batch_stats"], state["batch_stats"]
    mean = 0.9 * old["mean"] + 0.1 * rows.mean(0)
    var = 0.9 * old["var"] + 0.1 * rows.var(0, ddof=1)
    np.testing.assert_allclose(new["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(new["var"], var, rtol=1e-5)


def test_evaluation_uses_the_running_statistics_and_nothing_of_the_batch(variables):
    x = batch(1, (6, 5))
    y = blocks.BatchNorm().apply(variables, x, train=False)
    stats, params = variables["batch_stats"], variables["params"]
    normal = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    expected = normal * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    one_row = blocks.BatchNorm().apply(variables, x[:1], train=False)
    np.testing.assert_allclose(one_row, y[:1], rtol=1e-6)


def test_masked_rows_are_normalised_but_enter_no_statistic(variables):
    x = batch(2, (4, 3, 5))
    mask = np.array([True, False, True, True])[:, None]
    y, state = train_norm(variables, x, mask)
    expected, expected_state = train_norm(variables, x[mask[:, 0]])
    np.testing.assert_allclose(y[mask[:, 0]], expected, rtol=1e-4, atol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), state, expected_state
    )
    scaled = (x[1, 0] - x[1, 1]) / (x[0, 0] - x[0, 1])  # one affine map for all rows
    np.testing.assert_allclose((y[1, 0] - y[1, 1]) / (y[0, 0] - y[0, 1]), scaled, 1e-3)


def test_no_row_at_all_leaves_the_running_statistics_as_they_were(variables):
    _, state = train_norm(variables, batch(3, (2, 5)), np.zeros(2, bool))
    jax.tree.map(
        np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"]
    )


def test_gradient_equals_finite_differences_with_and_without_mask(variables):
    with jax.enable_x64(True):
        rng = np.random.default_rng(4)
        x, weight = rng.standard_normal((2, 4, 3, 5))
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
        norm = blocks.BatchNorm(dtype=jnp.float64)
        for mask in (None, np.array([True, True, False, True])[:, None]):

            def loss(params, x, mask=mask):
                given = {"params": params, "batch_stats": wide["batch_stats"]}
                y, _ = norm.apply(
                    given, x, train=True, mask=mask, mutable=["batch_stats"]
                )
                return jnp.sum(jnp.sin(y) * weight)

            test_util.check_grads(
                loss, (wide["params"], x), order=1, modes=["rev"], rtol=1e-5
            )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_statistics_stay_float32_and_the_output_takes_the_dtype(variables, dtype):
    x = jnp.asarray(batch(5, (400, 5)) + 100, dtype)
    y, state = train_norm(variables, x, dtype=dtype)
    assert y.dtype == dtype
    mean = 0.9 * variables["batch_stats"]["mean"] + 0.1 * np.mean(x, 0, np.float32)
    assert state["batch_stats"]["mean"].dtype == jnp.float32
    np.testing.assert_allclose(state["batch_stats"]["mean"], mean, rtol=1e-5)


def test_a_mean_ten_deviations_away_does_not_wash_out_the_variance(variables):
    x = batch(6, (1000, 5)) + 20
    _, state = train_norm(variables, x)
    expected = 0.9 * variables["batch_stats"]["var"] + 0.1 * np.var(
        x.astype(np.float64), 0, ddof=1
    )
    np.testing.assert_allclose(state["batch_stats"]["var"], expected, rtol=1e-4)


def test_a_batch_over_eight_devices_has_the_statistics_of_the_whole(variables):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x = batch(8, (16, 2, 5))
    spread = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data")))
    y, state = jax.jit(train_norm)(variables, spread)
    expected, expected_state = train_norm(variables, x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5), state, expected_state
    )


def test_strided_convolution_starts_at_minus_one_as_in_torch():
    x = np.random.default_rng(9).standard_normal((1, 6, 6, 2)).astype(np.float32)
    layer = blocks.conv(3, stride=2)
    variables = layer.init(jax.random.key(0), x)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    corner = np.einsum("hwi,hwio->o", padded[0, :3, :3], variables["params"]["kernel"])
    y = layer.apply(variables, x)
    assert y.shape == (1, 3, 3, 3)
    np.testing.assert_allclose(y[0, 0, 0], corner, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("block", [blocks.BasicBlock, blocks.Bottleneck])
@pytest.mark.parametrize("stride", [1, 2])
def test_block_adds_its_input_projected_only_where_the_shape_changes(block, stride):
    x = np.random.default_rng(10).standard_normal((1, 4, 4, 8)).astype(np.float32)
    module = block(8, stride)
    variables = module.init(jax.random.key(0), x, train=False)
    assert ("downsample" in variables["params"]) == (stride == 2)
    last = sorted(name for name in variables["params"] if name.startswith("conv"))[-1]
    scale = variables["params"][last]["bn"]["scale"]
    variables["params"][last]["bn"]["scale"] = jnp.zeros_like(scale)
    y = module.apply(variables, x, train=False)  # the residual path now gives nothing
    if stride == 1:
        np.testing.assert_allclose(y, np.maximum(x, 0), rtol=1e-6)
    assert y.shape == (1, 4 // stride, 4 // stride, 8)


def test_a_bottleneck_projects_and_narrows_as_it_is_told():
    x = np.random.default_rng(11).standard_normal((1, 4, 4, 8)).astype(np.float32)
    module = blocks.Bottleneck(8, expansion=2, project=True)
    params = module.init(jax.random.key(0), x, train=False)["params"]
    assert params["downsample"]["conv"]["kernel"].shape == (1, 1, 8, 8)
    assert params["conv2"]["conv"]["kernel"].shape == (3, 3, 4, 4)


def test_excitation_gates_each_channel_by_the_mean_of_all():
    x = np.random.default_rng(12).standard_normal((2, 3, 5, 4)).astype(np.float32)
    module = blocks.SqueezeExcite()
    params = module.init(jax.random.key(0), x)["params"]
    params = jax.tree.map(
        lambda p: np.random.default_rng(p.size).standard_normal(p.shape, np.float32),
        params,
    )
    hidden = x.mean((1, 2)) @ params["fc1"]["kernel"] + params["fc1"]["bias"]
    gate = np.maximum(hidden, 0) @ params["fc2"]["kernel"] + params["fc2"]["bias"]
    expected = x / (1 + np.exp(-gate[:, None, None]))
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, 1e-4)


def test_transposed_convolution_is_the_gradient_of_a_strided_one():
    rng = np.random.default_rng(13)
    x, y = rng.standard_normal((2, 3, 5, 4)), rng.standard_normal((2, 6, 10, 7))
    kernel = {"params": {"kernel": np.float32(rng.standard_normal((4, 4, 7, 4)))}}
    strided = blocks.conv(4, kernel=4, stride=2)
    _, back = jax.vjp(lambda y: strided.apply(kernel, y), np.float32(y))
    found = blocks.Deconv(7).apply(kernel, np.float32(x))
    np.testing.assert_allclose(found, back(np.float32(x))[0], rtol=1e-4, atol=1e-5)


def test_normalised_image_has_the_statistics_of_imagenet_removed():
    pixels = np.arange(4 * 3, dtype=np.uint8).reshape(2, 2, 3) * 20
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(image.normalize(pixels), expected, rtol=1e-5, atol=1e-6)
    as_float = image.normalize(jnp.asarray(pixels, jnp.float32))
    np.testing.assert_allclose(as_float, expected, rtol=1e-5, atol=1e-6)
    assert image.normalize(pixels, jnp.bfloat16).dtype == jnp.bfloat16


def test_image_without_three_channels_is_refused():
    with pytest.raises(ValueError, match=r"expected \[..., 3\] RGB, got \(2, 2, 4\)"):
        image.normalize(np.zeros((2, 2, 4), np.uint8))
