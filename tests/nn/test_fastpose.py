"""FastPose against AlphaPose's code and OPEC-Net's copy of it."""

import functools

import equivalence
import golden_nets as nets
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.nn import fastpose

PUBLISHED = {
    "fastpose50": (fastpose.FastPose(17), "FastPose ResNet-50"),
    "fastpose101_se": (fastpose.FastPose(33, depth=101), "FastPose SE-ResNet-101"),
}


@pytest.fixture(
    scope="module",
    params=["fastpose50", pytest.param("fastpose101_se", marks=pytest.mark.slow)],
)
def published(golden, request):
    """Name, model, reference figures and converted variables."""
    model, name = PUBLISHED[request.param]
    figures, variables = nets.reference(
        golden / "fastpose", request.param, model, fastpose.TORCH_NAMES
    )
    return name, model, figures, variables


@nets.in_both_precisions
def test_every_stage_equals_the_official_code(published, dtype, tolerance):
    name, model, expected, variables = published
    image = nets.nhwc(expected["input"])
    outputs, seen = nets.inside(model, variables, image, dtype)
    parts = {"C5": seen["trunk"]["__call__"][0]}
    parts |= {f"F{i}": maps for i, maps in enumerate(outputs.maps, start=1)}
    heatmaps = "heatmaps33" if model.joints == 33 else "heatmaps"
    for part, ours in (parts | {heatmaps: outputs.heatmaps}).items():
        theirs = nets.nhwc(expected[part])
        equivalence.check(name, f"forward: {part}", ours, theirs, tolerance)


def test_parameters_are_as_many_as_published_and_each_has_one_name(golden):
    for name, number in (("fastpose50", 40_577_745), ("fastpose101_se", 59_588_321)):
        shapes = nets.shapes_of(PUBLISHED[name][0])
        assert nets.count(shapes["params"]) == number
        _, state_dict = golden_weights.load(golden / "fastpose", name)
        assert len(jax.tree.leaves(shapes)) == len(state_dict)
    assert nets.count(shapes["params"]["trunk"]) == 53_648_960


TINY = functools.partial(fastpose.FastPose, 3, width=2, duc=(16, 8))


@pytest.fixture(scope="module")
def tiny():
    """A narrow model, its variables and an image."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, 64, 32, 3), np.float32)
    # Excitations that large would close no gate but leave it no slope.
    variables = jax.tree.map_with_path(
        lambda path, leaf: leaf / 100 if "excite" in str(path) else leaf,
        nets.random_variables(TINY()),
    )
    return TINY(), variables, image


def test_bfloat16_computes_near_float32_and_keeps_float32_variables(tiny):
    model, variables, image = tiny
    expected, _ = nets.train(model, variables, image)
    narrow, state = nets.train(TINY(dtype=jnp.bfloat16), variables, image)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    assert narrow.heatmaps.dtype == jnp.float32  # where peaks are read
    assert narrow.heatmaps.shape == (2, 16, 8, 3)
    error = np.abs(np.asarray(narrow.heatmaps, np.float32) - expected.heatmaps)
    assert np.mean(error) < 0.1 * np.mean(np.abs(expected.heatmaps))


def test_gradient_reaches_every_parameter(tiny):
    nets.assert_gradients_everywhere(*tiny, lambda outputs: [outputs.heatmaps])


def test_sides_that_do_not_halve_five_times_are_refused(tiny):
    model, variables, _ = tiny
    with pytest.raises(ValueError, match=r"multiples of 32, got \(32, 48\)"):
        model.apply(variables, np.zeros((1, 32, 48, 3), np.float32), train=False)
