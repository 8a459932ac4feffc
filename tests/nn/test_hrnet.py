import functools

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.nn import hrnet
from occjax.runtime import weights

TINY = {"width": 4, "modules": (1, 2, 1), "blocks": 1, "stem": 8, "bottlenecks": 1}
STAGES = {"stage2": "stage2_0", "stage3": "stage3_3", "stage4": "stage4_2"}


def shapes_of(model, side=64):
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    init = functools.partial(model.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), image)


def nhwc(array):
    return np.moveaxis(array, 1, -1)


def assert_close_to_largest(actual, expected, tolerance):
    error = np.abs(np.asarray(actual, np.float64) - expected).max()
    assert error <= tolerance * np.abs(expected).max()


@pytest.fixture(scope="module")
def reference(golden):
    """Folder, manifest and converted variables of the official W32 backbone."""
    folder = golden / "hrnet_w32_backbone"
    manifest, state_dict = golden_weights.load(folder)
    shapes = shapes_of(hrnet.Backbone())
    return folder, manifest, weights.convert(state_dict, hrnet.TORCH_NAMES, shapes)


@pytest.fixture(scope="module")
def evaluated(reference):
    """Features and all module outputs of the official weights in evaluation mode."""
    folder, _, variables = reference
    image = nhwc(np.load(folder / "eval_stages.npz")["input"])
    apply = jax.jit(
        functools.partial(
            hrnet.Backbone().apply, train=False, capture_intermediates=True
        )
    )
    features, state = apply(variables, image)
    return features, state["intermediates"]


def test_w32_has_the_official_number_of_parameters_and_batch_norms():
    shapes = shapes_of(hrnet.Backbone())
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 29_305_536
    assert len(jax.tree.leaves(shapes["params"])) == 3 * 305
    assert len(jax.tree.leaves(shapes["batch_stats"])) == 2 * 305


def test_features_equal_the_official_code(reference, evaluated):
    expected = nhwc(np.load(reference[0] / "eval_features.npz")["features"])
    assert_close_to_largest(evaluated[0], expected, 2e-5)


def test_every_stage_equals_the_official_code(reference, evaluated):
    expected = np.load(reference[0] / "eval_stages.npz")
    intermediates = evaluated[1]
    stem = intermediates["stem2"]["__call__"][0]
    layer1 = intermediates["layer1_3"]["__call__"][0]
    assert_close_to_largest(stem, nhwc(expected["stem"]), 2e-5)
    assert_close_to_largest(layer1[..., ::4], nhwc(expected["layer1_ch_every4"]), 2e-5)
    for stage, name in STAGES.items():
        for b, branch in enumerate(intermediates[name]["__call__"][0]):
            assert_close_to_largest(branch, nhwc(expected[f"{stage}_{b}"]), 2e-5)
