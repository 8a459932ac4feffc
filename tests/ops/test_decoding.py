"""Decoding of heatmaps: published figures, OpenCV and plain loops, mirrored maps."""

import functools

import cv2
import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occjax.ops import decoding, sampling
from occjax.skeletons import COCO

RULES = {
    "highest": decoding.highest_pixel,
    "quarter": decoding.quarter_offset,
    "quarter-1": functools.partial(decoding.quarter_offset, first=1),
    "always": decoding.quarter_offset_always,
    "second": decoding.toward_second,
    "dark": functools.partial(decoding.dark, kernel=11),
}
JITTED = {name: jax.jit(rule) for name, rule in RULES.items()}


DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
HRNET = "HRNet-W32, top-down"


def nhwc(x, dtype=np.float32):
    return jnp.asarray(np.moveaxis(x, -3, -1), dtype)


def crop_matrix(centre, scale, width, dtype=np.float32):
    """Crop pixel -> source pixel of HRNet's crops, which go by the width alone."""
    side = np.asarray(scale)[:, 0] * 200
    matrix = np.zeros((len(side), 2, 3))
    matrix[:, 0, 0] = matrix[:, 1, 1] = side / width
    height = 4 * width / 3
    half = np.array([width, height]) / 2
    matrix[:, :, 2] = centre - half * (side / width)[:, None]
    return jnp.asarray(matrix, dtype)


def bells(rng, batch=2, size=(64, 48), joints=17, noise=0.01, sigma=2.0):
    """Maps of one Gaussian each, off the grid and away from the border, and noise."""
    height, width = size
    centre = rng.uniform(5, (width - 6, height - 6), (batch, joints, 2))
    y, x = np.mgrid[:height, :width]
    apart = (x[None, None] - centre[..., 0, None, None]) ** 2
    apart = apart + (y[None, None] - centre[..., 1, None, None]) ** 2
    maps = np.exp(-apart / (2 * sigma**2)) + noise * rng.uniform(size=apart.shape)
    return maps.astype(np.float32), centre  # [B, J, H, W], [B, J, 2]


@DTYPES
@pytest.mark.parametrize("folder", ["pose_hrnet_w32", "simple_baseline"])
def test_highest_pixels_and_quarter_offsets_equal_the_published_ones(
    golden, folder, dtype
):
    z = np.load(golden / folder / "decode.npz")
    model = HRNET
    names = ("argmax_xy", "maxvals", "preds", "preds_no_quarter", "centre")
    if folder == "simple_baseline":
        model = "SimpleBaseline (every depth)"
        names = ("max_preds", "maxvals", "final_preds", "final_preds_no_postprocess")
        names = (*names, "center")
    argmax, score, final, coarse, centre = (z[name] for name in names)
    exact = functools.partial(equivalence.exact, model)
    with jax.enable_x64(dtype == np.float64):
        maps = nhwc(z["heatmaps"], dtype)
        plain, got_score = JITTED["highest"](maps)
        exact("decode: highest pixels", plain, argmax)
        exact("decode: scores of joints", got_score, score[..., 0])
        moved, got_score = JITTED["quarter"](maps)
        exact("decode: scores of joints", got_score, score[..., 0])
        if "quarter_offset_preds" in z:
            exact("decode: quarter offsets", moved, z["quarter_offset_preds"])
        matrix = crop_matrix(centre, z["scale"], 192, dtype)
        for joints, wanted in ((moved, final), (plain, coarse)):
            got = decoding.to_source(joints, matrix, 4)
            equivalence.check(model, "decode: joints in the image", got, wanted, 1e-6)


@DTYPES
def test_joints_of_the_flip_test_equal_the_published_ones(golden, dtype):
    z = np.load(golden / "pose_hrnet_w32" / "eval_heatmaps.npz")
    with jax.enable_x64(dtype == np.float64):
        joints, score = JITTED["quarter"](nhwc(z["full_flip_shift"], dtype))
        matrix = crop_matrix(z["centre"], z["scale"], 192, dtype)
        got = decoding.to_source(joints, matrix, 4)
    equivalence.check(HRNET, "decode: joints in the image", got, z["full_preds"], 1e-6)
    equivalence.exact(
        HRNET, "decode: scores of joints", score, z["full_maxvals"][..., 0]
    )


@DTYPES
def test_joints_equal_those_of_alphapose_and_of_opec_nets_copy(golden, dtype):
    z = np.load(golden / "fastpose" / "decode.npz")
    check = functools.partial(equivalence.check, "FastPose (every depth)")
    low, high = z["box_ul"], z["box_br"]
    # the map shows the box at one scale for both axes, the width's; above and below
    # lies what is missing of the height
    matrix = np.zeros((2, 2, 3))
    scale = (high - low)[:, 0] / 32
    matrix[:, 0, 0] = matrix[:, 1, 1] = scale
    matrix[:, 0, 2] = low[:, 0]
    matrix[:, 1, 2] = (low + high)[:, 1] / 2 - 20 * scale
    with jax.enable_x64(dtype == np.float64):
        maps, matrix = nhwc(z["heatmaps"], dtype), jnp.asarray(matrix, dtype)
        joints, score = JITTED["quarter-1"](maps)
        # OPEC-Net's copy then moves every joint right and down
        moved = joints + np.asarray(0.2, dtype)
        newer, _ = JITTED["quarter"](maps)  # AlphaPose today leaves column 1 alone
        both = [decoding.to_source(x, matrix, 1) for x in (moved, newer)]
    check("decode: joints on the map", moved, z["preds_hm"], 1e-6, "each")
    check("decode: joints in the image, OPEC-Net", both[0], z["preds_img"], 1e-6)
    check("decode: joints in the image, AlphaPose", both[1], z["ap_simple_preds"], 1e-6)
    for name in ("maxval", "ap_simple_maxvals"):
        check("decode: scores of joints", score, z[name][..., 0], 0, "absolute")


@DTYPES
def test_offsets_of_hourglasses_equal_the_published_ones(golden, dtype):
    z = np.load(golden / "hourglass" / "target_decode.npz")
    check = functools.partial(equivalence.check, "Hourglass (princeton-vl)")
    with jax.enable_x64(dtype == np.float64):
        maps = nhwc(z["heatmaps"], dtype)
        joints, score = JITTED["always"](maps)
        plain, near = JITTED["highest"](maps)[0], JITTED["quarter-1"](maps)[0]
    found = np.asarray(score) > 0
    wanted = z["princeton_parse"][found]
    check("decode: scores of joints", score[found], wanted[:, 2], 1e-6, "each")
    # it counts from the corner of the pixel
    half = np.asarray(joints)[found] + np.asarray(0.5, dtype)
    check("decode: joints on the map", half, wanted[:, :2], 1e-6, "each")
    np.testing.assert_array_equal(joints[~found], 0)

    exact = functools.partial(equivalence.exact, "Hourglass (pytorch-pose)")
    one_based = np.asarray(plain)[found] + np.asarray(1, dtype)
    exact("decode: highest pixels", one_based, z["bearpaw_get_preds"][found])
    side = 200 * z["scale"][:, None, None]
    moved = np.asarray(near, np.float64) + 0.5
    got = np.trunc(z["center"][:, None] + (moved / 64 - 0.5) * side) + 1
    got = got[found].astype(dtype)
    exact("decode: joints in the image", got, z["bearpaw_final_preds"][found])


def dark_by_opencv(hm, kernel):
    """One map [H, W] by the published steps, in double precision."""
    y, x = np.unravel_index(np.argmax(hm), hm.shape)
    if hm[y, x] <= 0:
        return np.zeros(2)
    border, height, width = kernel // 2, *hm.shape
    padded = np.pad(hm.astype(np.float64), border)
    blur = cv2.GaussianBlur(padded, (kernel, kernel), 0)
    blur = blur[border:-border, border:-border]
    log = np.log(np.maximum(blur * hm.max() / blur.max(), 1e-10))
    if not (1 < x < width - 2 and 1 < y < height - 2):
        return np.array([x, y], float)
    near = log[y - 2 : y + 3, x - 2 : x + 3]
    slope = np.array([near[2, 3] - near[2, 1], near[3, 2] - near[1, 2]]) / 2
    xx = near[2, 4] - 2 * near[2, 2] + near[2, 0]
    yy = near[4, 2] - 2 * near[2, 2] + near[0, 2]
    xy = near[3, 3] - near[1, 3] - near[3, 1] + near[1, 1]
    hessian = np.array([[xx, xy], [xy, yy]]) / 4
    if np.linalg.det(hessian) == 0:
        return np.array([x, y], float)
    return np.array([x, y]) - np.linalg.solve(hessian, slope)


@pytest.mark.parametrize("kernel", [11, 17])
def test_dark_equals_the_published_steps_done_by_opencv(kernel):
    maps, _ = bells(np.random.default_rng(kernel), noise=0.05)
    maps[0, 0] = 0
    maps[0, 1] = -maps[0, 1]
    for joint, (x, y) in enumerate(((0, 0), (47, 63), (1, 20), (45, 20), (46, 30)), 2):
        maps[0, joint, y, x] = 2
    maps[1, 0] -= 0.1
    got, score = jax.jit(decoding.dark, static_argnums=1)(nhwc(maps), kernel)
    wanted = [[dark_by_opencv(hm, kernel) for hm in one] for one in maps]
    np.testing.assert_allclose(got, wanted, atol=2e-4)
    np.testing.assert_array_equal(score, maps.max(axis=(2, 3)))


def test_dark_finds_the_centre_of_a_gaussian_the_others_only_come_near():
    maps, centre = bells(np.random.default_rng(3), noise=0)
    error = {
        name: np.abs(np.asarray(rule(nhwc(maps))[0]) - centre).max()
        for name, rule in JITTED.items()
    }
    assert error["dark"] < 2e-3
    assert 0.2 < error["quarter"] <= 0.2501
    assert 0.4 < error["highest"] <= 0.5001


def test_dark_by_hand():
    # log of the map: -(x - 5.3)^2 / 2 sx - (y - 4.6)^2 / 2 sy, so wide that a small
    # blur changes it little; the derivatives over two pixels are exact for parabolas
    y, x = np.mgrid[:12, :12].astype(np.float64)
    hm = np.exp(
        -((x - 5.3) ** 2) / 18 - (y - 4.6) ** 2 / 32 - (x - 5.3) * (y - 4.6) / 99
    )
    step = decoding._newton_step(
        jnp.log(jnp.asarray(hm[None, :, :, None], jnp.float32)),
        jnp.asarray([[[5, 5]]], jnp.int32),
    )
    np.testing.assert_allclose(step[0, 0], (0.3, -0.4), atol=1e-5)


def test_dark_leaves_maps_without_curvature_and_refuses_even_kernels():
    # so low that the logarithm is the same everywhere
    faint = jnp.zeros((1, 32, 32, 1)).at[0, 16, 15, 0].set(1e-12)
    np.testing.assert_array_equal(JITTED["dark"](faint)[0][0, 0], (15, 16))
    # one positive pixel among negative ones: the blurred map is nowhere positive
    lone = jnp.full((1, 32, 32, 1), -1.0).at[0, 16, 15, 0].set(0.1)
    np.testing.assert_array_equal(JITTED["dark"](lone)[0][0, 0], (15, 16))
    with pytest.raises(ValueError, match="odd side of 3 or more, got 10"):
        decoding.dark(lone, 10)


def second_by_opencv(hm, kernel=21):
    """One map [H, W] by CPN's steps, in double precision."""
    border, (height, width) = kernel // 2, hm.shape
    padded = np.pad(hm.astype(np.float64) / hm.max(), border)
    blur = cv2.GaussianBlur(padded, (kernel, kernel), 0)
    first = np.array(np.unravel_index(np.argmax(blur), blur.shape))
    blur[tuple(first)] = 0
    way = np.unravel_index(np.argmax(blur), blur.shape) - first
    place = first - border + 0.25 * way / np.linalg.norm(way)
    place = np.clip(place, 0, (height - 1, width - 1))
    at = np.round(place).astype(int)
    return (*place[::-1], hm[tuple(at)])


def test_step_toward_the_second_peak_equals_the_loop_by_opencv():
    maps, _ = bells(np.random.default_rng(5), noise=0.05)
    maps[0, 0] *= 0.01
    maps[0, 0, 3, 0] = 5
    maps[0, 1, 63, 47] = 9
    # the map falls below zero inside: the blurred one is higher beyond the border
    maps[0, 2:4] = -0.2
    maps[0, 2, 0, 18:23] = maps[0, 3, 30:35, 47] = (1, 2, 3, 2, 1)
    joints, score = JITTED["second"](nhwc(maps))
    wanted = np.array([[second_by_opencv(hm) for hm in one] for one in maps])
    np.testing.assert_allclose(joints, wanted[..., :2], atol=1e-5)
    np.testing.assert_array_equal(score, wanted[..., 2].astype(np.float32))
    # a single peak: the step is a quarter pixel unless it left the map
    gap = np.linalg.norm(np.asarray(joints) - np.round(joints), axis=-1)
    assert np.mean(np.isclose(gap, 0.25, atol=1e-5)) > 0.8


@pytest.mark.parametrize("name", RULES)
def test_joints_without_a_positive_value_stand_at_the_corner(name):
    maps = -np.random.default_rng(0).uniform(0.1, 1, (1, 12, 10, 2)).astype(np.float32)
    maps[..., 1] = 0
    joints, score = JITTED[name](jnp.asarray(maps))
    np.testing.assert_array_equal(joints, 0)
    assert np.all(np.asarray(score) <= 0)


@pytest.mark.parametrize("name", RULES)
def test_mirrored_maps_give_mirrored_joints(name):
    maps = nhwc(bells(np.random.default_rng(7), noise=0.02)[0])
    order = jnp.asarray(COCO.flip)
    joints, score = JITTED[name](maps)
    mirrored, mirrored_score = JITTED[name](maps[:, :, ::-1][..., order])
    back = mirrored[:, order].at[..., 0].set(47 - mirrored[:, order, 0])
    np.testing.assert_allclose(back, joints, atol=1e-4)
    np.testing.assert_array_equal(mirrored_score[:, order], score)


@pytest.mark.parametrize("name", RULES)
def test_joints_follow_the_channels_and_the_batch(name):
    maps = nhwc(bells(np.random.default_rng(8), batch=3)[0])
    joints, score = JITTED[name](maps)
    order, images = np.random.default_rng(9).permutation(17), np.array([2, 0, 1])
    moved, moved_score = JITTED[name](maps[images][..., order])
    np.testing.assert_array_equal(moved, joints[images][:, order])
    np.testing.assert_array_equal(moved_score, score[images][:, order])


@pytest.mark.parametrize("name", RULES)
def test_narrow_maps_are_decoded_in_single_precision_and_jit_changes_nothing(name):
    maps = nhwc(bells(np.random.default_rng(10))[0]).astype(jnp.bfloat16)
    joints, score = JITTED[name](maps)
    assert joints.dtype == score.dtype == jnp.float32
    wide, wide_score = JITTED[name](maps.astype(jnp.float32))
    np.testing.assert_array_equal(joints, wide)
    np.testing.assert_array_equal(score, wide_score)
    eager, eager_score = RULES[name](maps)
    np.testing.assert_allclose(joints, eager, atol=1e-4)
    np.testing.assert_array_equal(score, eager_score)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.01, 100))
def test_a_factor_on_the_maps_is_a_factor_on_the_scores_alone(seed, factor):
    # powers of two, so that nothing is rounded
    factor = 2.0 ** round(np.log2(factor))
    maps = nhwc(bells(np.random.default_rng(seed), batch=1, joints=4)[0])
    for name in ("highest", "quarter", "always", "second"):
        joints, score = JITTED[name](maps)
        scaled, scaled_score = JITTED[name](maps * factor)
        np.testing.assert_array_equal(scaled, joints)
        np.testing.assert_array_equal(scaled_score, score * factor)


soft_argmax = jax.jit(decoding.soft_argmax)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 2e-7)])
def test_soft_argmax_and_its_gradient_equal_the_published_ones(
    golden, dtype, tolerance
):
    figures = np.load(golden / "opec_net" / "soft_argmax.npz")
    with jax.enable_x64(dtype == "float64"):
        maps = jnp.asarray(np.moveaxis(figures["heatmaps"], 1, -1), dtype)
        weights = jnp.asarray(figures["grad_weights"], dtype)
        height, width = maps.shape[1:3]

        def found(maps):
            pixels, score = decoding.soft_argmax(maps)
            unit = sampling.to_unit(pixels, (0, 0), (width, height))
            return unit.reshape(weights.shape), score

        joints, score = jax.jit(found)(maps)
        slope = jax.jit(jax.grad(lambda maps: jnp.sum(found(maps)[0] * weights)))(maps)
    check = functools.partial(equivalence.check, "OPEC-Net")
    check("decode: soft-argmax", joints, figures["coords"], tolerance)
    check("decode: largest probability", score, figures["score"], tolerance)
    wanted = np.moveaxis(figures["grad"], 1, -1)
    check("decode: gradient of the soft-argmax", slope, wanted, 2 * tolerance)


def test_soft_argmax_of_one_hot_pixel_is_that_pixel():
    maps = np.zeros((1, 80, 64, 2), np.float32)
    maps[0, 0, 0, 0] = maps[0, 79, 63, 1] = 1e4
    joints, score = soft_argmax(jnp.asarray(maps))
    np.testing.assert_allclose(joints[0], ((0, 0), (63, 79)), atol=1e-4)
    np.testing.assert_allclose(score, 1)
    unit = sampling.to_unit(joints, (0, 0), (64, 80))[0]
    np.testing.assert_allclose(unit, ((-1, -1), (0.96875, 0.975)), atol=1e-6)


def test_soft_argmax_of_a_flat_map_is_its_middle_whatever_its_level():
    maps = np.stack((np.zeros((5, 8)), np.full((5, 8), -1e30)), axis=-1)[None]
    joints, score = soft_argmax(jnp.asarray(maps, jnp.float32))
    np.testing.assert_allclose(joints, np.broadcast_to((3.5, 2), (1, 2, 2)), rtol=1e-6)
    np.testing.assert_allclose(score, 1 / 40, rtol=1e-6)
