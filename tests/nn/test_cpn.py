"""The cascaded pyramid network against pytorch-cpn."""

import functools

import equivalence
import golden_nets as nets
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.errors import UserError
from occjax.nn import cpn
from occjax.runtime import weights


@pytest.fixture(scope="module")
def published(golden):
    """Reference figures and converted variables of the official network."""
    return nets.reference(golden / "cpn", "cpn50", cpn.CPN(17), cpn.TORCH_NAMES)


@nets.in_both_precisions
def test_every_stage_level_and_heatmap_equals_the_official_code(
    published, dtype, tolerance
):
    expected, variables = published
    image, methods = nets.nhwc(expected["input"]), ("__call__", "stages")
    maps, seen = nets.inside(cpn.CPN(17), variables, image, dtype, methods)
    stages = seen["trunk"]["stages"][0]
    levels, _ = seen["global_net"]["__call__"][0]
    parts = {
        **{f"C{i}": stage for i, stage in enumerate(stages, start=2)},
        **{f"P{5 - i}": level for i, level in enumerate(levels)},
        **{f"global_out{i}": coarse for i, coarse in enumerate(maps.coarse)},
        "refine_out": maps.refined,
    }
    assert len(parts) == 13
    for part, ours in parts.items():
        theirs = nets.nhwc(expected[part])
        equivalence.check("CPN", f"forward: {part}", ours, theirs, tolerance)


def test_table_fills_each_variable_and_lists_a_name_it_does_not_know(golden):
    _, state_dict = golden_weights.load(golden / "cpn", "cpn50")
    shapes = nets.shapes_of(cpn.CPN(17))
    assert nets.count(shapes["params"]) == 27_406_826
    assert len(jax.tree.leaves(shapes)) == len(state_dict)
    renamed = dict(state_dict)
    renamed["refine_net.cascade.0.3.bn1.bias"] = renamed.pop(
        "refine_net.cascade.0.2.bn1.bias"
    )
    with pytest.raises(UserError, match="weights: 2 arrays do not fit"):
        weights.convert(renamed, cpn.TORCH_NAMES, shapes)


TINY = functools.partial(cpn.CPN, 3, depth=18, width=2, features=8)


@pytest.fixture(scope="module")
def tiny():
    """A narrow model, its variables and an image."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, 32, 64, 3), np.float32)
    return TINY(), nets.random_variables(TINY()), image


def test_bfloat16_computes_near_float32_and_keeps_float32_variables(tiny):
    model, variables, image = tiny
    expected, _ = nets.train(model, variables, image)
    narrow, state = nets.train(TINY(dtype=jnp.bfloat16), variables, image)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    assert narrow.refined.dtype == jnp.bfloat16
    assert narrow.refined.shape == (2, 8, 16, 3)
    error = np.abs(np.asarray(narrow.refined, np.float32) - expected.refined)
    assert np.mean(error) < 0.1 * np.mean(np.abs(expected.refined))


def test_gradient_reaches_every_parameter(tiny):
    nets.assert_gradients_everywhere(
        *tiny, lambda outputs: [*outputs.coarse, outputs.refined]
    )


def test_sides_that_do_not_halve_five_times_are_refused(tiny):
    model, variables, _ = tiny
    with pytest.raises(ValueError, match=r"multiples of 32, got \(32, 48\)"):
        model.apply(variables, np.zeros((1, 32, 48, 3), np.float32), train=False)
