"""Stacked hourglasses against pytorch-pose and princeton-vl's code."""

import functools

import equivalence
import golden_nets as nets
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.errors import UserError
from occjax.nn import hourglass
from occjax.ops import losses
from occjax.runtime import weights

PUBLISHED = {
    "bearpaw_hg2": (hourglass.Hourglass(16), hourglass.TORCH_NAMES),
    "princeton_hg2": (
        hourglass.Hourglass(16, stem=(128, 128, 256)),
        hourglass.PRINCETON_NAMES,
    ),
}


MODELS = {
    "bearpaw_hg2": "Hourglass (pytorch-pose)",
    "princeton_hg2": "Hourglass (princeton-vl)",
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


@nets.in_both_precisions
def test_every_stage_equals_the_official_code(published, dtype, tolerance):
    name, model, expected, variables = published
    image = nets.nhwc(expected["input"])
    methods = ("__call__", "_hourglass")
    (first, last), seen = nets.inside(model, variables, image, dtype, methods)
    levels = seen["_hourglass"]  # innermost first, one stack after the other
    stages = {
        "stem": seen["stem2"]["__call__"][0],
        "hg1": levels[3],
        "hg2": levels[7],
        "feature2": last.features,
        "heatmaps1": first.heatmaps,
        "heatmaps2": last.heatmaps,
    }
    for stage, ours in stages.items():
        theirs = nets.nhwc(expected[stage])
        equivalence.check(MODELS[name], f"forward: {stage}", ours, theirs, tolerance)


def test_heatmaps_of_a_larger_image_equal_the_official_code(published):
    name, model, expected, variables = published
    larger = normal(502, (2, 3, 128, 128))
    outputs = nets.evaluate(model, variables, nets.nhwc(larger))
    for i, output in enumerate(outputs, start=1):
        theirs = nets.nhwc(expected[f"heatmaps{i}_b"])
        link = f"forward: heatmaps{i}"
        equivalence.check(MODELS[name], link, output.heatmaps, theirs, 1e-5)


def official_loss(name, outputs, target, weight):
    """Of the network's own code: one number per stack."""
    half = 1.0
    if name == "bearpaw_hg2":  # it halves, and multiplies both maps by the weight
        half, weight = 0.5, jnp.square(weight)
    else:
        weight = jnp.ones_like(weight)
    weight = jnp.broadcast_to(weight[:, None, None], target.shape)
    values = [
        losses.weighted_mse(output.heatmaps, target, weight)[0] for output in outputs
    ]
    return jnp.stack([half * jnp.mean(x) for x in values])


@pytest.mark.slow
def test_loss_and_gradients_in_float64_equal_the_official_code(golden, published):
    name, model, expected, variables = published
    model = model.clone(dtype=jnp.float64)
    image = np.float64(nets.nhwc(normal(504, (4, 3, 128, 128))))
    target = np.float64(nets.nhwc(np.abs(normal(505, (4, 16, 32, 32)))))
    weight = np.float64(expected["train_target_weight"][..., 0])

    def loss(params, stats):
        given = {"params": params, "batch_stats": stats}
        outputs, state = model.apply(given, image, train=True, mutable=["batch_stats"])
        each = official_loss(name, outputs, target, weight)
        total = jnp.mean(each) if name == "princeton_hg2" else jnp.sum(each)
        return total, (each, state["batch_stats"]["stem_bn"])

    with jax.enable_x64(True):
        params, stats = (
            jax.tree.map(np.float64, variables[key])
            for key in ("params", "batch_stats")
        )
        given = nets.quick_jit(jax.value_and_grad(loss, has_aux=True))(params, stats)
    (total, (each, stats)), grads = given
    check = functools.partial(equivalence.check, MODELS[name])
    check("loss", total, expected["train_loss"], 1e-9, "each")
    check("loss: each stack", each, expected["train_loss_per_stack"], 1e-9, "each")
    for moment in ("mean", "var"):
        theirs = expected[f"train_bn1_{moment}"]
        check(f"forward: running {moment}, training", stats[moment], theirs, 1e-7)
    _, state_dict = golden_weights.load(golden / "hourglass", name)
    rows = PUBLISHED[name][1]
    norms = nets.gradient_norms(grads, state_dict, expected["train_grad_norms"], rows)
    check("gradient norm", *norms, 1e-6, "each")


def test_training_pass_stores_the_official_statistics(published):
    name, model, expected, variables = published
    image = nets.nhwc(normal(504, (4, 3, 128, 128)))
    _, state = nets.train(model, variables, image)
    for moment in ("mean", "var"):
        ours = state["batch_stats"]["stem_bn"][moment]
        theirs = expected[f"train_bn1_{moment}"]
        link = f"forward: running {moment}, training"
        equivalence.check(MODELS[name], link, ours, theirs, 1e-5)


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
        assert ours.heatmaps.dtype == jnp.float32  # where peaks are read
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
