"""Erasing and reconstruction: size and cost, what is erased, how far it sees."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.nn.erase_reconstruct import EraseReconstruct
from occjax.nn.heatmap_net import HeatmapNet
from occjax.nn.hourglass import Hourglass


def parameters(module, size=(256, 192)):
    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    init = functools.partial(module.init, train=True)
    leaves = jax.tree.leaves(jax.eval_shape(init, jax.random.key(0), image)["params"])
    return sum(math.prod(leaf.shape) for leaf in leaves)


def multiply_adds(jaxpr):
    """Those of all convolutions; HRNet's counter knows no other, either."""
    total = 0
    for equation in jaxpr.eqns:
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", None)
            if inner is not None:
                total += multiply_adds(getattr(inner, "jaxpr", inner))
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            each = math.prod(kernel) // outputs
            total += math.prod(equation.outvars[0].aval.shape) * each
    return total


@pytest.mark.parametrize(
    ("width", "concat", "repair", "millions", "billions"),
    [
        (32, False, None, 28.54, 7.10),  # the baseline
        (32, True, {}, 29.92, 8.94),
        (48, True, {}, 66.06, 16.89),
        (32, False, {"own": False}, 28.91, 8.17),
    ],
)
def test_parameters_and_operations_are_those_that_the_paper_counts(
    width, concat, repair, millions, billions
):
    backbone = {"name": "hrnet", "width": width, "concat": concat}
    net = HeatmapNet(17, backbone, repair=repair)
    assert abs(parameters(net) / 1e6 - millions) < 0.01
    image = jax.ShapeDtypeStruct((1, 256, 192, 3), jnp.float32)
    init = functools.partial(net.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), image)
    forward = functools.partial(net.apply, train=False)
    counted = multiply_adds(jax.make_jaxpr(forward)(variables, image).jaxpr)
    assert abs(counted / 2**30 - billions) < 0.025


@pytest.mark.parametrize(
    ("stacks", "repair", "everywhere", "repaired"),
    [(2, None, False, 0), (8, {}, False, 1), (3, {}, True, 3)],
)
def test_hourglasses_are_repaired_where_they_are_to_be(
    stacks, repair, everywhere, repaired
):
    fields = {"stacks": stacks, "repair": repair, "repair_all": everywhere}
    net = Hourglass(16, **fields)
    count = parameters(net, (256, 256))
    plain = parameters(Hourglass(16, stacks=stacks), (256, 256))
    block = 256 * 128 * 2 + 2 * 9 * 128**2 + 2 * (3 * 128 + 256) + 256 + 1
    assert count - plain == repaired * block


def test_the_stock_hourglasses_have_the_known_sizes():
    assert round(parameters(Hourglass(16), (256, 256)) / 1e6, 2) == 6.73
    assert round(parameters(Hourglass(16, stacks=8), (256, 256)) / 1e6, 2) == 25.59


@pytest.fixture(scope="module")
def built():
    module = EraseReconstruct(5, read=0, inner=4)
    x = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1, (1, 33, 33, 6)), "float32")
    variables = module.init(jax.random.key(0), x, train=False)
    return module, variables, x


def told(variables, bias):
    """The same module, whose map is one number everywhere."""
    params = jax.tree.map(lambda x: x, variables["params"])
    params["map"] = {
        "kernel": jnp.zeros_like(params["map"]["kernel"]),
        "bias": jnp.full((1,), bias, jnp.float32),
    }
    return {**variables, "params": params}


@pytest.mark.parametrize(("bias", "left"), [(-3.0, 1.0), (0.25, 0.75), (7.0, 0.0)])
def test_what_is_occluded_is_erased(built, bias, left):
    module, variables, x = built
    bare = module.clone(reconstruct=False)
    found = bare.apply(told(variables, bias), x, train=False)
    np.testing.assert_allclose(found.features, left * x, rtol=1e-6)
    np.testing.assert_allclose(found.map, bias)  # which the loss sees uncut


def test_without_erasing_the_features_stay(built):
    module, variables, x = built
    bare = module.clone(reconstruct=False, erase=False)
    found = bare.apply(told(variables, 1.0), x, train=False)
    np.testing.assert_array_equal(found.features, x)


def test_an_erased_place_is_filled_in_from_six_pixels_around(built):
    module, variables, x = built
    plain = module.clone(erase=False, told="nothing", skip=False)
    params = {
        name: jax.tree.map(jnp.ones_like, part)
        for name, part in variables["params"].items()
        if name != "map"
    }

    def middle(x):
        stats = variables["batch_stats"]
        found = plain.apply({"params": params, "batch_stats": stats}, x, train=False)
        return found.features[0, 16, 16, 0]

    seen = np.any(jax.grad(middle)(x)[0], axis=-1)
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    for places in (rows, columns):
        assert (places.min(), places.max()) == (10, 22)


def test_the_gradient_of_the_poses_reaches_the_map(built):
    module, variables, x = built

    def total(bias):
        return jnp.sum(module.apply(told(variables, bias), x, train=False).features)

    assert jax.grad(total)(0.5) < 0
    assert jax.grad(total)(2.0) == jax.grad(total)(-1.0) == 0


def test_classes_are_told_of_each_joint_and_nothing_is_erased():
    module = EraseReconstruct(5, read=8, told="classes", erase=False)
    x = jnp.ones((2, 8, 8, 3))
    found, _ = module.init_with_output(jax.random.key(0), x, train=False)
    assert found.classes.shape == (2, 5, 3)
    assert found.map is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"told": "all"}, "told: expected one of map, classes, nothing, got 'all'"),
        ({"told": "nothing"}, "erase: it needs told='map', got 'nothing'"),
    ],
)
def test_settings_that_make_no_sense_are_named(fields, message):
    module = EraseReconstruct(5, **fields)
    with pytest.raises(ValueError, match=message):
        module.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)
