"""Runs networks on reference weights and compares maps, for the tests of occjax.nn."""

import functools
import pathlib

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.runtime import weights

# Compiled for few seconds rather than few milliseconds.
quick_jit = functools.partial(
    jax.jit, compiler_options={"xla_cpu_opt_preset": "CPU_OPT_PRESET_FAST_COMPILE"}
)

# float64 shows that nothing but rounding differs; the references are in float32.
in_both_precisions = pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(np.float32, 1e-5), pytest.param(np.float64, 1e-7, marks=pytest.mark.slow)],
    ids=["float32", "float64"],
)


def shapes_of(model, side=64, channels=3):
    """Shapes of a model's variables, from a square image; nothing is computed."""
    image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    init = functools.partial(model.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), image)


def count(tree):
    """How many numbers the arrays of a tree hold."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def random_variables(model, side=64, channels=3):
    """Positive variables of a small model: no ReLU is closed, no variance is 0."""
    return jax.tree.map(
        lambda leaf: np.float32(
            np.random.default_rng(leaf.size).uniform(0.2, 1, leaf.shape)
        ),
        shapes_of(model, side, channels),
    )


def evaluate(model, variables, image):
    """Outputs in evaluation mode."""
    return quick_jit(functools.partial(model.apply, train=False))(variables, image)


def train(model, variables, image):
    """Outputs in training mode and the statistics afterwards."""
    apply = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    return quick_jit(apply)(variables, image)


def nhwc(array):
    """Torch's [B, C, H, W] as [B, H, W, C]."""
    return np.moveaxis(array, 1, -1)


def assert_close_to_largest(actual, expected, tolerance):
    """The largest difference, in units of the largest expected value."""
    assert actual.shape == expected.shape
    error = np.abs(np.asarray(actual, np.float64) - expected).max()
    assert error <= tolerance * np.abs(expected).max()


def reference(
    folder: pathlib.Path, part: str, model, rows, side=64
) -> tuple[np.lib.npyio.NpzFile, dict]:
    """Reference figures of a network, and its weights converted for the model."""
    manifest, state_dict = golden_weights.load(folder, part)
    variables = weights.convert(state_dict, rows, shapes_of(model, side))
    return np.load(folder / manifest["file"]), variables


def inside(model, variables, image, dtype=np.float32, methods=("__call__",)):
    """Outputs in evaluation mode, and those of the methods of all modules inside.

    Args:
        model: is made anew for dtype.
        variables: in float32.
        image: [B, H, W, 3].
        dtype: of the computation.
        methods: names of those whose outputs are wanted.
    """
    apply = functools.partial(
        model.clone(dtype=dtype).apply,
        train=False,
        capture_intermediates=lambda _, name: name in methods,
    )
    with jax.enable_x64(dtype == np.float64):
        outputs, state = quick_jit(apply)(variables, image.astype(dtype))
    return outputs, state["intermediates"]


def lengths(tree):
    """L2 norms of the arrays of a tree."""
    return jax.tree.map(lambda x: np.linalg.norm(np.ravel(x)), tree)


def gradient_norms(grads, state_dict, norms, rows):
    """L2 norms of our gradients and torch's for them: two arrays in one order.

    Norms that are 0 in theory are left out, once ours are seen to be 0 as well.

    Args:
        grads: of our parameters.
        state_dict: torch name -> array.
        norms: torch name -> norm, or the norms in the order of torch's parameters. Of
            those that torch never uses they are NaN.
        rows: the table of names.
    """
    names = [name for name in state_dict if "running" not in name]
    if not isinstance(norms, dict):
        norms = dict(zip(names, norms, strict=True))
    listed = {name: np.full(state_dict[name].shape, norms[name]) for name in names}
    # The table carries each norm to our name for it, as an array of equal numbers.
    carried = weights.convert(listed, rows, {"params": grads})["params"]
    theirs = np.asarray([x.flat[0] for x in jax.tree.leaves(carried)])
    assert jax.tree.structure(carried) == jax.tree.structure(grads)
    ours = np.asarray(jax.tree.leaves(lengths(grads)))
    zero = theirs < 1e-9
    np.testing.assert_allclose(ours[zero], theirs[zero], rtol=1e-6, atol=1e-12)
    return ours[~zero], theirs[~zero]


def assert_gradients_everywhere(
    model, variables, image, maps=lambda outputs: [outputs]
):
    """A loss of the model's maps in training mode moves each parameter."""

    def loss(params):
        given = {**variables, "params": params}
        outputs, _ = model.apply(given, image, train=True, mutable=["batch_stats"])
        # Weighted by row: a batch norm's own output has a fixed mean square.
        rows = [
            jnp.square(x) * jnp.cos(jnp.arange(x.shape[1]))[None, :, None, None]
            for x in maps(outputs)
        ]
        return functools.reduce(jnp.add, map(jnp.sum, rows))

    grads = quick_jit(jax.grad(loss))(variables["params"])
    for path, grad in jax.tree.leaves_with_path(grads):
        assert np.all(np.isfinite(grad)), path
        assert np.any(grad != 0), path
