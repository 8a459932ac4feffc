"""Reading maps at points, against the published code's samples and SciPy."""

import functools

import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from occjax.ops import sampling

check = functools.partial(equivalence.check, "PINet (every dataset)")
bilinear = jax.jit(sampling.bilinear)
response = jax.jit(sampling.response, static_argnums=2)


@pytest.fixture(scope="module")
def published(golden):
    return np.load(golden / "pinet_functions" / "sampling.npz")


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_feature_samples_equal_the_published_ones(published, dtype):
    with jax.enable_x64(dtype == np.float64):
        features = nhwc(published["features"].astype(dtype))
        points = jnp.asarray(published["coords_xy"][:, :, 0], dtype)
        at = sampling.misaligned(points, features.shape[1:3])
        got = bilinear(features, at)
    check("forward: samples at joints", got, published["sampled"][:, :, 0], 5e-7)


def test_centre_samples_equal_the_published_ones(published):
    pixels = jnp.asarray(published["centre_yx"][..., ::-1].astype(np.int32))
    got = sampling.gather(nhwc(published["features"]), pixels)
    wanted = published["int_sampled"]
    check("forward: samples at centres", got, wanted, 0, "absolute")


def test_offsets_lead_from_the_pixel_to_the_joints(published):
    batch, channels, height, width = published["offset"].shape
    offset = nhwc(published["offset"]).reshape(
        batch, height, width, 1, channels // 2, 2
    )
    y, x = np.mgrid[:height, :width]
    pixels = np.stack((x, y), axis=-1).reshape(1, 1, -1, 2)
    pixels = jnp.asarray(np.repeat(pixels, batch, axis=0), jnp.int32)
    joints = pixels[..., None, :].astype(jnp.float32) - sampling.gather_each(
        offset, pixels
    )
    wanted = published["reg_kpts"]
    check("decode: joints by offsets", joints[:, 0], wanted, 1e-6, "each")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("aligned", [True, False])
def test_bilinear_samples_equal_torchs_grid_sample(golden, aligned, dtype):
    z = np.load(golden / "torch_ops" / "ops.npz")
    x, grid = (z[key].astype(dtype) for key in ("in_x", "in_grid"))
    size = np.asarray(x.shape[:1:-1], dtype)  # width, height
    at = (grid + 1) / 2 * (size - 1) if aligned else ((grid + 1) * size - 1) / 2
    with jax.enable_x64(dtype == np.float64):
        got = bilinear(nhwc(x), jnp.asarray(at.reshape(2, -1, 2)))
    name = f"grid_zeros_ac{int(aligned)}"
    got = np.moveaxis(got, -1, 1).reshape(z[name].shape)
    within = 2e-6 if dtype == np.float32 else 1e-12
    link = f"forward: {name}"
    equivalence.check("torch operations", link, got, z[name], within)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_response_reads_what_enlarged_maps_hold_at_their_pixels(published, factor):
    enlarged = published[f"up_x{factor}"]
    _, joints, height, width = enlarged.shape
    y, x = np.mgrid[: height - 1, : width - 1]  # the last row and column read 0
    points = np.stack((x, y), axis=-1).reshape(1, -1, 1, 2)
    points = jnp.asarray(np.repeat(points, joints, axis=2), jnp.float32)
    got = response(nhwc(published["up_in"]), points, (height, width))
    wanted = enlarged[0, :, : height - 1, : width - 1].reshape(joints, -1).T
    check(f"decode: maps enlarged {factor} times", got[0], wanted, 1e-6)


def test_response_truncates_toward_zero_and_ends_at_the_last_pixel():
    ramp = jnp.broadcast_to(jnp.arange(8.0).reshape(1, 1, 8, 1), (1, 8, 8, 1))
    x = jnp.asarray([-1.0, -0.5, 0.0, 10.0, 28.0, 30.9, 31.0, 1e30, -1e30])
    points = jnp.stack((x, jnp.full_like(x, 5.0)), axis=-1)[None, :, None]
    got = response(ramp, points, (32, 32))[0, :, 0]
    np.testing.assert_allclose(got, [0, -0.125, 0, 2.5, 7, 7, 0, 0, 0])
    swapped = response(jnp.swapaxes(ramp, 1, 2), points[..., ::-1], (32, 32))
    np.testing.assert_array_equal(swapped[0, :, 0], got)


def test_bilinear_is_linear_interpolation_with_zeros_outside():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 6, 9, 3)).astype(np.float32)
    points = rng.uniform(-3, 12, (2, 40, 2)).astype(np.float32)
    points[0, 0] = 1e9
    got = bilinear(jnp.asarray(features), jnp.asarray(points))
    for b, c in np.ndindex(2, 3):
        wanted = ndimage.map_coordinates(
            np.pad(features[b, ..., c], 2), points[b, :, ::-1].T + 2, order=1
        )
        np.testing.assert_allclose(got[b, :, c], wanted, atol=2e-6)


def test_bilinear_keeps_a_narrow_dtype_and_finite_gradients():
    features = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    points = jnp.asarray([[[1.5, 2.0], [-5.0, 0.0]]])
    assert bilinear(features, points).dtype == jnp.bfloat16
    grad = jax.grad(lambda f: jnp.sum(bilinear(f, points)).astype(jnp.float32))
    given = np.asarray(grad(features), np.float32)
    np.testing.assert_array_equal(np.argwhere(given[0, ..., 0]), [[2, 1], [2, 2]])


@pytest.mark.parametrize(
    ("width", "x", "wanted"),
    [(128, 0, -0.5), (128, 64, 64.003937), (128, 127, 127.5), (176, 100, 100.071429)],
)
def test_misaligned_grid_has_the_figures_of_the_specification(width, x, wanted):
    points = jnp.asarray([[float(x), 0.0]])
    np.testing.assert_allclose(
        sampling.misaligned(points, (64, width))[0, 0], wanted, rtol=1e-6
    )


def test_misaligned_grid_needs_two_pixels():
    with pytest.raises(ValueError, match="2 pixels or more"):
        sampling.misaligned(jnp.zeros((1, 2)), (1, 8))


def test_gather_each_reads_each_channel_at_its_own_pixels():
    rng = np.random.default_rng(1)
    maps = rng.standard_normal((2, 5, 7, 3, 4)).astype(np.float32)
    pixels = rng.integers(-1, 8, (2, 3, 6, 2)).astype(np.int32)
    got = sampling.gather_each(jnp.asarray(maps), jnp.asarray(pixels))
    for b, k, n in np.ndindex(2, 3, 6):
        x, y = np.clip(pixels[b, k, n], 0, (6, 4))
        np.testing.assert_array_equal(got[b, k, n], maps[b, y, x, k])


def test_scatter_each_puts_back_what_gather_each_reads():
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 4, (2, 3, 5, 2)).astype(np.int32)
    values = 1 + pixels[..., 0] + 10.0 * pixels[..., 1]  # one value for each pixel
    maps = sampling.scatter_each(
        jnp.asarray(values, jnp.float32), jnp.asarray(pixels), (6, 4)
    )
    got = sampling.gather_each(maps, jnp.asarray(pixels))
    np.testing.assert_array_equal(got, values)
    for b, k in np.ndindex(2, 3):
        assert np.count_nonzero(maps[b, ..., k]) == len(np.unique(values[b, k]))


def test_affine_equals_the_matrix_product():
    rng = np.random.default_rng(3)
    points = rng.uniform(-100, 2000, (2, 5, 17, 2)).astype(np.float32)
    matrix = rng.standard_normal((2, 2, 3)).astype(np.float32)
    wanted = np.einsum("bij,bnkj->bnki", matrix[..., :2], points)
    wanted += matrix[:, None, None, :, 2]
    got = sampling.affine(jnp.asarray(points), jnp.asarray(matrix))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-3)


def test_inverse_undoes_affine_maps_and_the_determinant_is_their_area():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(5, 2, 3)).astype(np.float32)
    matrix[:, :, :2] += 3 * np.eye(2, dtype=np.float32)
    points = jnp.asarray(rng.normal(size=(5, 7, 2)), jnp.float32)
    there = sampling.affine(points, jnp.asarray(matrix))
    back = sampling.affine(there, sampling.inverse(jnp.asarray(matrix)))
    np.testing.assert_allclose(back, points, atol=1e-5)
    np.testing.assert_allclose(
        sampling.determinant(jnp.asarray(matrix)),
        np.linalg.det(matrix[:, :, :2]),
        rtol=1e-5,
    )


def test_corners_of_the_aligned_grid_are_the_corner_pixels():
    features = jnp.arange(2 * 3 * 4.0).reshape(1, 3, 4, 2)
    corners = jnp.asarray([[[-1, -1], [1, 1], [-1, 1]]], jnp.float32)
    got = bilinear(features, sampling.from_unit(corners, (0, 0), (3, 2)))
    np.testing.assert_array_equal(got[0], features[0, (0, 2, 2), (0, 3, 0)])


def test_unit_frames_are_undone_and_place_corners_at_one():
    low, high = (2, -1), (6, 9)
    points = jnp.asarray([[2, -1], [6, 9], [4, 4], [8, 4]], jnp.float32)
    unit = sampling.to_unit(points, low, high)
    np.testing.assert_allclose(unit, ((-1, -1), (1, 1), (0, 0), (2, 0)), atol=1e-6)
    np.testing.assert_allclose(sampling.from_unit(unit, low, high), points, rtol=1e-6)
