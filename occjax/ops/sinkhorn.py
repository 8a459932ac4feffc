"""Entropic optimal transport by Sinkhorn's iterations, in the log domain.

A fixed number of iterations under `lax.scan`, float32 or wider, for any number of
problems at once. Nothing overflows: the potentials are bounded by the cost, and no
kernel exp(-cost / epsilon) is ever formed.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from occjax.types import Array

_DEAD = 1e-8  # squared norm from which on a row has a direction


def plan(cost: Array, *, epsilon: float, iterations: int) -> Array:
    """Transport plan between two uniform distributions (OASNet, algorithm 1).

    The algorithm as printed updates both factors from the last iterate, and then no
    mass is kept; it is read as its source has it: columns first, then rows by the new
    columns. Its 1_C is 1 / C, as below the paper's equation 9. Hence the sums of rows
    are exact after any number of iterations, those of columns in the limit.

    Args:
        cost: [..., N, M], from any points to any others.
        epsilon: weight of the entropy, in units of the cost.
        iterations: of both updates.

    Returns:
        [..., N, M], whose rows sum to 1 / N.

    Raises:
        ValueError: epsilon or iterations are not positive.
    """
    if epsilon <= 0 or iterations < 1:
        raise ValueError(
            "sinkhorn: expected epsilon above 0 and at least 1 iteration, got "
            f"{epsilon} and {iterations}."
        )
    logits = cost.astype(np.promote_types(cost.dtype, np.float32)) / -epsilon
    rows, columns = (-float(np.log(n)) for n in logits.shape[-2:])

    def by_columns(u: Array) -> Array:
        """Logarithm of the plan but for the rows' factors, whose old ones are u."""
        v = columns - jax.nn.logsumexp(logits + u, axis=-2, keepdims=True)
        return logits + v

    def update(u: Array, _: None) -> tuple[Array, None]:
        return rows - jax.nn.logsumexp(by_columns(u), axis=-1, keepdims=True), None

    start = jnp.zeros((*logits.shape[:-1], 1), logits.dtype)
    u, _ = jax.lax.scan(update, start, length=iterations - 1)
    # the last update of the rows and the plan in one
    return jax.nn.softmax(by_columns(u), axis=-1) / logits.shape[-2]


def cosine_cost(x: Array, y: Array) -> Array:
    """1 - cos between all rows of two sets, in full precision.

    A row of zeros has no direction: it costs 1 to and from everywhere, and its gradient
    is 0.

    Args:
        x: [..., N, K].
        y: [..., M, K].

    Returns:
        [..., N, M] in 0..2, float32 or wider.
    """
    wide = np.promote_types(x.dtype, np.float32)
    x, y = unit(x.astype(wide)), unit(y.astype(wide))
    # less than full precision on an accelerator would err by 4 % of exp(-cost / 0.1)
    product = jnp.einsum(
        "...nk,...mk->...nm", x, y, precision=jax.lax.Precision.HIGHEST
    )
    return 1 - product


def transport_cost(
    cost: Array, *, epsilon: float = 0.1, iterations: int = 5, unrolled: bool = False
) -> Array:
    """What the plan costs, <plan, cost>, without the entropy (OASNet, eq. 10).

    Args:
        cost: [..., N, M].
        epsilon: see `plan`.
        iterations: see `plan`.
        unrolled: differentiate through the iterations as well. Otherwise the plan
            counts as constant; at convergence that is the gradient of the value with
            its entropy (envelope theorem), and what the code does that OASNet cites.

    Returns:
        [...].
    """
    chosen = plan(cost, epsilon=epsilon, iterations=iterations)
    if not unrolled:
        chosen = jax.lax.stop_gradient(chosen)
    return jnp.sum(chosen * cost, axis=(-2, -1))


def divergence(x: Array, y: Array, *, debias: bool = False, **how: Any) -> Array:
    """Transport cost between the rows of two sets by their cosines.

    Args:
        x: [..., N, K].
        y: [..., M, K].
        debias: 2 W(x, y) - W(x, x) - W(y, y), which is 0 where both are the same; as
            printed W(x, x) is not.
        how: arguments of `transport_cost`.

    Returns:
        [...].
    """
    value = transport_cost(cosine_cost(x, y), **how)
    if not debias:
        return value
    own = (transport_cost(cosine_cost(z, z), **how) for z in (x, y))
    return 2 * value - sum(own)


def unit(rows: Array) -> Array:
    """Rows [..., K] brought to a length of 1; rows of zeros stay zeros."""
    square = jnp.sum(jnp.square(rows), axis=-1, keepdims=True)
    alive = square > _DEAD
    # both branches of `where` are differentiated: none may divide by 0
    scale = jax.lax.rsqrt(jnp.where(alive, square, 1))
    return rows * jnp.where(alive, scale, 0)
