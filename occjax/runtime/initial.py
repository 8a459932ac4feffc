"""Start values of a model and its optimiser, without compiling anything.

Tracing a function such as `model.init` tells how every result follows from the random
key. That recipe is followed in NumPy, backwards from the results, so a forward pass
that no result needs is never run. Compiling it instead takes a minute for HRNet-W32:
each of its 305 kernels would bring its own random number generator.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import scipy.special
from flax import linen as nn
from jax.extend import core

from occjax.types import Inputs


def variables(model: nn.Module, inputs: Inputs, seed: int) -> dict[str, Any]:
    """Variables of a model as NumPy arrays; the same on every kind of device.

    They have the distributions that `model.init` gives, but other random bits.

    Args:
        model: unbound module.
        inputs: shapes (jax.ShapeDtypeStruct) suffice.
        seed: of the random numbers.
    """
    init = functools.partial(model.init, train=True)
    return in_numpy(init, jax.random.key(seed), inputs)


def in_numpy(function: Callable[..., Any], *args: Any) -> Any:
    """Results of a jax function as NumPy arrays.

    Args:
        function: any that jax can trace.
        args: pytrees; a jax.ShapeDtypeStruct in them may stand for an array that no
            result depends on.
    """
    recipe, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    known = dict(zip(recipe.jaxpr.constvars, recipe.consts, strict=True))
    for var, leaf in zip(recipe.jaxpr.invars, jax.tree.leaves(args), strict=True):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            known[var] = leaf
    follow = _Recipe(recipe.jaxpr, known)
    leaves = [np.array(follow.value(var)) for var in recipe.jaxpr.outvars]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


class _Recipe:
    """Values of a jaxpr's variables, each computed when it is asked for."""

    def __init__(self, jaxpr: core.Jaxpr, known: Mapping[Any, Any]):
        self._known = dict(known)
        self._maker = {out: eqn for eqn in jaxpr.eqns for out in eqn.outvars}

    def value(self, var: Any) -> Any:
        """Value of a variable or literal: a NumPy array, or a jax key."""
        if isinstance(var, core.Literal):
            return np.asarray(var.val, var.aval.dtype)  # pyright: ignore
        if var not in self._known:
            eqn = self._maker[var]
            results = self._apply(eqn)
            self._known |= dict(zip(eqn.outvars, results, strict=True))
        return self._known[var]

    def _apply(self, eqn: core.JaxprEqn) -> list[Any]:
        inner = eqn.params.get("jaxpr")
        if eqn.primitive.name in ("pjit", "jit") and isinstance(
            inner, core.ClosedJaxpr
        ):
            known = dict(zip(inner.jaxpr.constvars, inner.consts, strict=True))
            known |= {
                name: self.value(var)
                for name, var in zip(inner.jaxpr.invars, eqn.invars, strict=True)
            }
            follow = _Recipe(inner.jaxpr, known)
            return [follow.value(var) for var in inner.jaxpr.outvars]
        values = [self.value(var) for var in eqn.invars]
        function = _NUMPY.get(eqn.primitive.name)
        if function is None:  # rare, and right for anything
            results = eqn.primitive.bind(*values, **eqn.params)
            return list(results) if eqn.primitive.multiple_results else [results]
        result = function(eqn.params, *values)
        return [np.asarray(result, eqn.outvars[0].aval.dtype)]  # pyright: ignore


def _bits(params: Mapping[str, Any], key: jax.Array) -> np.ndarray:
    """Random bits of one key: Philox, seeded with the key."""
    seed = [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]
    rng = np.random.Generator(np.random.Philox(seed))
    width = params["bit_width"]
    return rng.integers(0, 2**width, params["shape"], np.dtype(f"uint{width}"))


def _broadcast(params: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    """lax.broadcast_in_dim: axis i of x becomes axis broadcast_dimensions[i]."""
    placed = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], x.shape, strict=True):
        placed[axis] = size
    return np.broadcast_to(x.reshape(placed), params["shape"])


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """A NumPy function for a primitive whose parameters do not change its value."""
    return lambda params, *values: function(*values)


# The primitives that random initialisers run on whole arrays.
_NUMPY: dict[str, Callable[..., Any]] = {
    "random_bits": _bits,
    "broadcast_in_dim": _broadcast,
    "bitcast_convert_type": lambda params, x: np.asarray(x).view(params["new_dtype"]),
    "convert_element_type": lambda params, x: np.asarray(x, params["new_dtype"]),
    "reshape": lambda params, x: np.reshape(x, params["new_sizes"]),
    "clamp": _plain(lambda low, x, high: np.clip(x, low, high)),
    "erf_inv": _plain(scipy.special.erfinv),
    "shift_right_logical": _plain(np.right_shift),
    "or": _plain(np.bitwise_or),
    "add": _plain(np.add),
    "sub": _plain(np.subtract),
    "mul": _plain(np.multiply),
    "div": _plain(np.divide),
    "max": _plain(np.maximum),
    "min": _plain(np.minimum),
    "sqrt": _plain(np.sqrt),
}
