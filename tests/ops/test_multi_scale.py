"""Maps of several crops on one canvas: a plain loop, and a point seen at each scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from occjax.ops import decoding, multi_scale
from occjax.types import Inputs

mean_on_canvas = jax.jit(multi_scale.mean_on_canvas, static_argnums=3)
SCALES = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3)


def window(centre, side, width):
    """Map pixel -> source pixel of a square crop: centres onto width / 2."""
    factor = side / width
    shift = np.asarray(centre) - factor * width / 2
    return np.column_stack((np.eye(2) * factor, shift)).astype(np.float32)[None]


@pytest.mark.parametrize("turned", [False, True])
def test_mean_equals_maps_read_one_by_one(turned):
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(2, n, n + 1, 3)).astype(np.float32) for n in (8, 12)]
    to_source = [rng.normal(size=(2, 2, 3)).astype(np.float32) for _ in maps]
    for matrix in to_source:
        matrix[:, :, :2] = np.eye(2) * 2 + (0.5 * turned) * matrix[:, :, :2]
    canvas = np.tile(np.array([[1.5, 0, -1], [0, 1.5, -2]], np.float32), (2, 1, 1))
    got = mean_on_canvas(maps, to_source, canvas, (10, 14))
    y, x = np.mgrid[:10, :14]
    wanted = np.zeros((2, 10, 14, 3))
    for one, matrix in zip(maps, to_source, strict=True):
        for b in range(2):
            whole = [np.vstack((m, [0, 0, 1])) for m in (matrix[b], canvas[b])]
            both = np.linalg.inv(whole[0].astype(float)) @ whole[1]
            u, v, _ = both @ np.stack((x.ravel(), y.ravel(), np.ones(x.size)))
            for c in range(3):
                padded = np.pad(one[b, ..., c].astype(float), 1)
                read = ndimage.map_coordinates(padded, (v + 1, u + 1), order=1)
                wanted[b, ..., c] += read.reshape(10, 14) / 2
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_a_joint_seen_at_six_scales_is_found_where_it_is():
    centre, side, size = (100.0, 80.0), 128.0, 32
    joint = np.array([123.0, 61.0])  # source pixels
    maps, to_source = [], []
    for scale in SCALES:
        matrix = window(centre, side * scale, size)
        u, v = (joint - matrix[0, :, 2]) / (side * scale / size)
        y, x = np.mgrid[:size, :size]
        bell = np.exp(-((x - u) ** 2 + (y - v) ** 2) / 4).astype(np.float32)
        maps.append(jnp.asarray(bell[None, :, :, None]))
        to_source.append(jnp.asarray(matrix))
    corner = (centre[0] - 96, centre[1] - 96)  # a canvas of source pixels
    canvas = jnp.asarray([[[1, 0, corner[0]], [0, 1, corner[1]]]], jnp.float32)
    mean = mean_on_canvas(maps, to_source, canvas, (192, 192))
    pixel, score = decoding.highest_pixel(mean)
    found = decoding.to_source(pixel, canvas, 1)
    np.testing.assert_allclose(found[0, 0], joint, atol=1)
    assert 0.85 < float(score[0, 0]) <= 1
    # crops of one scale alone reach less far, and are 0 beyond
    small = mean_on_canvas(maps[:1], to_source[:1], canvas, (192, 192))
    assert not np.any(small[0, :40])
    assert np.any(small[0, 60:130])


def test_maps_and_matrices_must_pair_up():
    maps, matrix = jnp.zeros((1, 4, 4, 1)), jnp.zeros((1, 2, 3))
    with pytest.raises(ValueError, match="zip"):
        multi_scale.mean_on_canvas([maps], [matrix, matrix], matrix, (4, 4))


def test_narrow_maps_are_averaged_in_single_precision():
    maps = jnp.ones((1, 4, 4, 1), jnp.bfloat16)
    same = jnp.asarray([[[1, 0, 0], [0, 1, 0]]], jnp.float32)
    got = mean_on_canvas([maps, maps], [same, same], same, (4, 4))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, 1)


def test_crops_of_six_scales_are_one_canvas_around_the_first():
    centre, side, size = (100.0, 80.0), 128.0, 64
    joint = np.array([100 - 75.0, 80 + 60])  # outside the crop at scale 1
    maps, matrices = [], []
    for scale in (1.0, *(s for s in SCALES if s != 1)):
        matrix = window(centre, side * scale, size)
        u, v = (joint - matrix[0, :, 2]) / (side * scale / size) / 4
        y, x = np.mgrid[: size // 4, : size // 4]
        bell = np.exp(-((x - u) ** 2 + (y - v) ** 2) / 2).astype(np.float32)
        maps.append(jnp.asarray(bell[None, :, :, None]))
        matrices.append(jnp.asarray(matrix))
    inputs = Inputs(
        jnp.zeros((1, size, size, 3), jnp.uint8),
        jnp.full((1, 2), size, jnp.int32),
        matrices[0],
        scaled_to_source=tuple(matrices[1:]),
    )
    (mean,), canvas = multi_scale.of_crops(maps, inputs, 4)
    assert mean.shape == (1, 83, 83, 1)
    pixel, _ = decoding.highest_pixel(mean)
    found = decoding.to_source(pixel, canvas, 1)
    np.testing.assert_allclose(
        found[0, 0], joint, atol=4
    )  # source pixels, half a map's
