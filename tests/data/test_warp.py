import functools

import cv2
import equivalence
import numpy as np
import pytest

from occjax.data import warp
from occjax.errors import UserError

check = functools.partial(equivalence.check, "PINet (every dataset)")


def dot(x: float, y: float, shape=(120, 160), sigma: float = 3.0) -> np.ndarray:
    """A soft white dot on black, [H, W, 3] uint8."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    value = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(np.uint8(255 * value)[..., None], 3, axis=2)


def centroid(image: np.ndarray) -> np.ndarray:
    """x, y of the brightness in an image [H, W, 3]."""
    weight = image[..., 0].astype(float)
    rows, columns = np.indices(weight.shape)
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


def test_training_matrices_are_the_official_ones(golden):
    data = np.load(golden / "pinet_functions" / "augment_matrices.npz")
    for index, center in enumerate(data["center_f64"]):
        side, rotation = 200 * data["scale_f64"][index], data["rot_f64"][index]
        for size, key in ((512, "mat_input_f64"), (128, "mat_output_f64")):
            matrix = warp.window_matrix(center, side, rotation, size, size)
            theirs = data[key][index]
            check("warp: training matrices", matrix, theirs, 1e-11, "absolute")
        matrix = warp.window_matrix(center, side, rotation, 512, 512)
        factor, theirs = warp.area_factor(matrix), data["area_factor_f64"][index]
        check("warp: area factors", factor, theirs, 1e-12, "each")
    for row in data["explicit_f64"]:
        height, width = row[4:6].astype(int)
        matrix = warp.window_matrix(row[:2], 200 * row[2], row[3], width, height)
        theirs = row[6:12].reshape(2, 3)
        check("warp: training matrices", matrix, theirs, 1e-11, "absolute")


def test_test_resize_and_back_projection_are_the_official_ones(golden):
    data = np.load(golden / "pinet_functions" / "inference_geometry.npz")
    for row in data["rows_f64"]:
        height, width, scale = int(row[0]), int(row[1]), row[2]
        canvas = warp.test_canvas(height, width, 512)
        assert [int(scale * side) for side in canvas[::-1]] == list(row[3:5])
        forward = warp.test_matrix(height, width, canvas, scale)
        back = warp.invert(warp.test_matrix(height, width, canvas))
        for link, ours, theirs in (
            ("warp: test matrices", forward, row[9:15]),
            ("warp: test matrices back", back, row[15:21]),
        ):
            check(link, ours.ravel(), theirs, 1e-11, "absolute")
        points = warp.apply(back, data["points_f64"]).ravel()
        check("warp: points back in the image", points, row[21:], 1e-10, "absolute")


def test_test_view_has_the_official_pixels_up_to_interpolation(golden):
    data = np.load(golden / "pinet_functions" / "inference_geometry.npz")
    image, _ = warp.test_view(data["image_uint8_hwc"], 128)
    difference = np.abs(image.astype(float) - data["resized_uint8_hwc"])
    assert image.shape == data["resized_uint8_hwc"].shape
    note = equivalence.OTHER_OPENCV
    link = "warp: grey levels of the test image"
    check(f"{link}, mean", difference.mean(), 0, 1, "absolute", note)
    check(f"{link}, largest", difference.max(), 0, 8, "absolute", note)


def test_worked_examples_of_the_specification_come_out():
    assert warp.test_canvas(480, 640, 512) == (512, 704)
    assert warp.test_canvas(640, 480, 512) == (704, 512)
    assert warp.test_canvas(1080, 1920, 512) == (512, 960)
    assert warp.test_canvas(1000, 795, 512) == (704, 512)
    still = warp.window_matrix((320, 240), 480, 0, 512, 512)
    np.testing.assert_allclose(still[0], [1.0666667, 0, -85.33333], atol=1e-5)
    turned = warp.window_matrix((320, 240), 480, 30, 512, 512)
    np.testing.assert_allclose(
        warp.apply(turned, np.array([400, 240.0])), [329.90083, 213.33333], atol=1e-5
    )


@pytest.mark.parametrize("rotation", [0.0, 25.0, -70.0])
@pytest.mark.parametrize("mirrored", [False, True])
def test_warped_points_land_on_the_warped_pixels(rotation, mirrored):
    point = np.array([83.0, 52.5])
    matrix = warp.window_matrix((78, 61), 100.0, rotation, 192, 192)
    if mirrored:
        matrix = warp.mirror(matrix, 192)
    warped = warp.warp_image(dot(*point), matrix, 192, 192)
    np.testing.assert_allclose(centroid(warped), warp.apply(matrix, point), atol=0.05)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_every_test_scale_shows_the_same_point_in_its_own_pixels(scale):
    point = np.array([100.0, 40.0])
    image, matrix = warp.test_view(dot(*point), 256, scale)
    _, base = warp.test_view(dot(*point), 256)
    np.testing.assert_allclose(centroid(image), warp.apply(matrix, point), atol=0.1)
    np.testing.assert_allclose(
        warp.apply(matrix, point), scale * warp.apply(base, point), rtol=1e-12
    )


def test_mirroring_an_image_by_its_matrix_equals_mirroring_its_pixels():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 255, (90, 120, 3), np.uint8), (0, 0), 2)
    matrix = warp.window_matrix((60, 45), 80.0, 17.0, 64, 64)
    flipped = warp.warp_image(image, warp.mirror(matrix, 64), 64, 64)
    plain = warp.warp_image(image, matrix, 64, 64)[:, ::-1]
    # OpenCV rounds coordinates to 1/32 of a pixel, on other sides after mirroring.
    assert np.abs(flipped.astype(int) - plain).max() <= 4


def test_inverse_brings_points_back():
    matrix = warp.mirror(warp.window_matrix((31, 77), 140.0, 12.0, 256, 128), 256)
    points = np.random.default_rng(0).uniform(-50, 300, (40, 2))
    back = warp.apply(warp.invert(matrix), warp.apply(matrix, points))
    np.testing.assert_allclose(back, points, atol=1e-9)


def test_canvas_always_divides_by_its_multiple_and_holds_the_image():
    rng = np.random.default_rng(0)
    for height, width in rng.integers(20, 2000, (200, 2)):
        for size, multiple in ((512, 64), (192, 32)):
            canvas = warp.test_canvas(height, width, size, multiple)
            assert min(canvas) == size
            assert max(canvas) % multiple == 0 or max(canvas) == size
            factor = size / min(height, width)
            assert max(canvas) > factor * max(height, width) - 1
            assert max(canvas) < factor * max(height, width) + multiple


def test_every_scale_of_every_canvas_suits_the_coarsest_branch():
    for size, scales in ((512, (1.0, 0.5, 2.0)), (256, (1.0,)), (192, (1.0, 0.5))):
        multiple = warp.multiple_for(size, scales)
        for long in range(size, 3 * size):
            canvas = warp.test_canvas(size, long, size, multiple)
            assert all(side * scale % 32 == 0 for side in canvas for scale in scales)
    assert warp.multiple_for(512, (1.0,)) == 64


def test_unsuitable_size_is_refused():
    with pytest.raises(UserError, match="data.size 200"):
        warp.multiple_for(200, (1.0,))
    with pytest.raises(UserError, match="scale 0.5"):
        warp.multiple_for(224, (1.0, 0.5))


def test_covered_is_as_far_as_source_pixels_reach():
    white = np.full((75, 100, 3), 255, np.uint8)
    image, matrix = warp.test_view(white, 128)
    height, width = warp.covered(matrix, white.shape, image.shape[:2])
    filled = np.argwhere(image[..., 0] > 0).max(axis=0) + 1
    assert abs(height - filled[0]) <= 2
    assert abs(width - filled[1]) <= 2


@pytest.mark.parametrize("seed", range(6))
def test_warping_and_unwarping_brings_the_image_back(seed):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:90, :120]
    image = 128 + 60 * np.sin(rows / 9 + seed) * np.cos(columns / 11)
    image = np.repeat(image.astype(np.uint8)[..., None], 3, axis=2)
    turn = rng.uniform(-90, 90)
    for matrix in (
        warp.window_matrix((60, 45), 200.0, turn, 400, 400),
        warp.crop_matrix((60, 45), 160.0, turn, 384, 512),
        warp.mirror(warp.crop_matrix((60, 45), 160.0, turn, 384, 512), 384, -1),
    ):
        there = warp.warp_image(image, matrix, 512, 400)
        back = warp.warp_image(there, warp.invert(matrix), 90, 120)
        inner = np.s_[3:-3, 3:-3]
        difference = np.abs(back[inner].astype(int) - image[inner])
        assert difference.mean() < 1
        assert difference.max() <= 4
        points = rng.uniform(0, 90, (20, 2))
        again = warp.apply(warp.invert(matrix), warp.apply(matrix, points))
        np.testing.assert_allclose(again, points, atol=1e-9)
