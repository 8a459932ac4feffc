"""Stacked hourglasses against pytorch-pose and princeton-vl's code."""

import functools

import golden_nets as nets
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.errors import UserError
from occjax.nn import hourglass
from occjax.runtime import weights

PUBLISHED = {
    "bearpaw_hg2": (hourglass.Hourglass(16), hourglass.TORCH_NAMES),
    "princeton_hg2": (
        hourglass.Hourglass(16, stem=(128, 128, 256)),
        hourglass.PRINCETON_NAMES,
    ),
}


def normal(seed, shape):
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module", params=PUBLISHED)
def published(golden, request):
    """Name, model, reference figures and converted variables of a published network."""
    model, rows = PUBLISHED[request.param]
    figures, variables = nets.reference(
        golden / "hourglass", request.param, model, rows
    )
    return request.param, model, figures, variables


def test_features_and_heatmaps_of_both_stacks_equal_the_official_code(published):
    _, model, expected, variables = published
    first, last = nets.evaluate(model, variables, nets.nhwc(expected["input"]))
    nets.assert_maps(
        [last.features, first.heatmaps, last.heatmaps],
        [expected[name] for name in ("feature2", "heatmaps1", "heatmaps2")],
        1e-5,
    )
    larger = normal(502, (2, 3, 128, 128))
    outputs = nets.evaluate(model, variables, nets.nhwc(larger))
    maps = [expected["heatmaps1_b"], expected["heatmaps2_b"]]
    nets.assert_maps([output.heatmaps for output in outputs], maps, 1e-5)


@pytest.mark.slow
def test_heatmaps_in_float64_equal_the_official_code_to_its_rounding(published):
    _, model, expected, variables = published
    image = nets.nhwc(expected["input"])
    outputs = nets.in_float64(model, variables, image)
    maps = [expected["heatmaps1"], expected["heatmaps2"]]
    nets.assert_maps([output.heatmaps for output in outputs], maps, 1e-7)


def official_loss(name, outputs, target, weight):
    """Of the network's own code: one number per stack."""
    errors = [jnp.square(output.heatmaps - target) for output in outputs]
    if name == "princeton_hg2":
        return jnp.stack([jnp.mean(error) for error in errors])
    weight = jnp.square(weight)[:, None, None]  # it multiplies both maps
    return jnp.stack([0.5 * jnp.mean(error * weight) for error in errors])


@pytest.mark.slow
def test_loss_and_gradients_in_float64_equal_the_official_code(golden, published):
    name, model, expected, variables = published
    model = model.clone(dtype=jnp.float64)
    image = np.float64(nets.nhwc(normal(504, (4, 3, 128, 128))))
    target = np.float64(nets.nhwc(np.abs(normal(505, (4, 16, 32, 32)))))
    weight = np.float64(expected["train_target_weight"][..., 0])

    def loss(params):
        given = {**variables, "params": params}
        outputs, state = model.apply(given, image, train=True, mutable=["batch_stats"])
        each = official_loss(name, outputs, target, weight)
        total = jnp.mean(each) if name == "princeton_hg2" else jnp.sum(each)
        return total, (each, state["batch_stats"]["stem_bn"])

    with jax.enable_x64(True):
        params = jax.tree.map(np.float64, variables["params"])
        given = nets.quick_jit(jax.value_and_grad(loss, has_aux=True))(params)
    (total, (each, stats)), grads = given
    np.testing.assert_allclose(total, expected["train_loss"], rtol=1e-9)
    np.testing.assert_allclose(each, expected["train_loss_per_stack"], rtol=1e-9)
    nets.assert_close_to_largest(stats["mean"], expected["train_bn1_mean"], 1e-6)
    nets.assert_close_to_largest(stats["var"], expected["train_bn1_var"], 1e-6)
    _, state_dict = golden_weights.load(golden / "hourglass", name)
    rows = PUBLISHED[name][1]
    nets.assert_gradient_norms(grads, state_dict, expected["train_grad_norms"], rows)


def test_training_pass_stores_the_official_statistics(published):
    _, model, expected, variables = published
    image = nets.nhwc(normal(504, (4, 3, 128, 128)))
    _, state = nets.train(model, variables, image)
    stem = state["batch_stats"]["stem_bn"]
    nets.assert_close_to_largest(stem["mean"], expected["train_bn1_mean"], 1e-5)
    nets.assert_close_to_largest(stem["var"], expected["train_bn1_var"], 1e-5)


def test_two_and_eight_stacks_have_the_published_number_of_parameters():
    found = [
        nets.count(nets.shapes_of(hourglass.Hourglass(16, stacks=stacks))["params"])
        for stacks in (2, 8)
    ]
    assert found == [6_730_912, 25_594_624]


def test_every_name_of_princeton_is_used_but_the_idle_shortcuts(golden):
    _, state_dict = golden_weights.load(golden / "hourglass", "princeton_hg2")
    model, rows = PUBLISHED["princeton_hg2"]
    shapes = nets.shapes_of(model)
    idle = {
        name
        for name in state_dict
        if "skip_layer" in name and not name.startswith(("pre.1.", "pre.4."))
    }
    assert len(idle) == 58
    used = {name: a for name, a in state_dict.items() if name not in idle}
    weights.convert(used, rows, shapes)
    assert len(used) == len(jax.tree.leaves(shapes))
    del used["hgs.1.0.low2.low2.low2.low2.bn1.weight"]
    with pytest.raises(UserError, match=r": params/stack1_level1_middle0/bn1/scale is"):
        weights.convert(used, rows, shapes)


TINY = functools.partial(hourglass.Hourglass, 3, stem=(4, 8, 8), levels=2, blocks=2)


@pytest.fixture(scope="module")
def tiny():
    """A narrow model, its variables and an image."""
    return TINY(), nets.random_variables(TINY(), side=32), normal(0, (2, 32, 48, 3))


def test_bfloat16_computes_near_float32_and_jit_gives_what_eager_gives(tiny):
    model, variables, image = tiny
    expected, _ = nets.train(model, variables, image)
    eager, _ = model.apply(variables, image, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(expected[-1].heatmaps, eager[-1].heatmaps, rtol=1e-4)
    narrow, state = nets.train(TINY(dtype=jnp.bfloat16), variables, image)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    for ours, wanted in zip(narrow, expected, strict=True):
        assert ours.heatmaps.dtype == jnp.bfloat16
        assert ours.heatmaps.shape == (2, 8, 12, 3)
        error = np.abs(np.asarray(ours.heatmaps, np.float32) - wanted.heatmaps)
        assert np.mean(error) < 0.05 * np.mean(np.abs(wanted.heatmaps))


def test_gradient_reaches_every_parameter(tiny):
    model, variables, image = tiny
    nets.assert_gradients_everywhere(
        model, variables, image, lambda outputs: [x.heatmaps for x in outputs]
    )


def test_sides_that_do_not_halve_often_enough_are_refused(tiny):
    model, variables, _ = tiny
    with pytest.raises(ValueError, match=r"multiples of 16, got \(32, 40\)"):
        model.apply(variables, np.zeros((1, 32, 40, 3), np.float32), train=False)
