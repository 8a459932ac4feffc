"""Top-down heatmap regression: what its settings and its poses promise."""

import jax.numpy as jnp
import numpy as np
import pytest

from occjax.methods import top_down
from occjax.nn.crop_model import Reading
from occjax.ops import crop_maps
from occjax.skeletons import COCO
from occjax.types import Inputs, Poses

BACKBONE = {"name": "pyramid", "widths": (8, 16), "depths": (1, 1), "features": 8}


def build(**fields):
    return top_down.Model(skeleton=COCO, backbone=BACKBONE, **fields)


def inputs(box_score=None, to_source=((2, 0, 5), (0, 2, -3))):
    return Inputs(
        jnp.zeros((1, 64, 64, 3), jnp.uint8),
        jnp.full((1, 2), 64, jnp.int32),
        jnp.asarray([to_source], jnp.float32),
        box_score=box_score,
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"decoder": "best"}, "decoder: .*'best'"), ({"sigma": 0.0}, "sigma: .*0.0")],
)
def test_a_setting_that_makes_no_sense_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields)


@pytest.mark.parametrize("decoder", list(crop_maps.DECODERS))
def test_a_clean_heatmap_is_found_in_source_pixels(decoder):
    rows, columns = np.mgrid[:16, :16]
    bell = np.exp(-((columns - 6) ** 2 + (rows - 9) ** 2) / 8).astype(np.float32)
    maps = jnp.asarray(np.tile(bell[None, :, :, None], (1, 1, 1, 17)))
    poses = top_down.decode(build(decoder=decoder), Reading((maps,)), inputs())
    expected = np.tile([2 * 4 * 6 + 5, 2 * 4 * 9 - 3], (1, 1, 17, 1))
    # equal neighbours leave most rules in the middle; CPN's always moves by a quarter
    within = 2 * 4 * 0.25 if decoder == "second" else 0.1
    np.testing.assert_allclose(poses.joints, expected, atol=within + 1e-3)
    np.testing.assert_allclose(poses.score, 1.0, rtol=1e-6)
    assert np.all(np.isnan(poses.visible))


def test_the_score_is_that_of_confident_joints_times_the_box():
    maps = np.zeros((1, 16, 16, 17), np.float32)
    maps[0, 5, 5] = np.where(np.arange(17) < 4, 0.6, 0.1)
    outputs = Reading((jnp.asarray(maps),))
    whole = top_down.decode(build(), outputs, inputs())
    half = top_down.decode(build(), outputs, inputs(jnp.asarray([0.5])))
    none = top_down.decode(build(confident=0.7), outputs, inputs())
    np.testing.assert_allclose(whole.score, 0.6, rtol=1e-6)
    np.testing.assert_allclose(half.score, 0.3, rtol=1e-6)
    np.testing.assert_array_equal(none.score, 0)


def test_of_two_alike_poses_the_better_stays_and_the_area_says_what_is_alike():
    rng = np.random.default_rng(0)
    one = rng.uniform(0, 100, (17, 2)).astype(np.float32)
    joints = np.stack([one, one + 3, one + 300])[None]
    score = np.array([[0.5, 0.9, 0.1]], np.float32)
    poses = Poses(joints, *3 * [joints[..., 0]], score)

    def kept(side):
        area = np.full((1, 3), side**2, np.float32)
        return np.asarray(top_down.suppress(build(), poses, area)[0]) > -np.inf

    np.testing.assert_array_equal(kept(400), [False, True, True])
    np.testing.assert_array_equal(kept(20), [True, True, True])
