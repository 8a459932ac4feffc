"""Entropic transport: reference figures in float64, ott-jax, marginals, bad inputs."""

import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occjax.ops import sinkhorn

CASES = ("c32", "c256", "degenerate", "eps001", "eps001_signed", "zero_rows")
# epsilon 0.01 wants thousands of iterations; the reference was finished by Newton's
CONVERGED = {"c32": 200, "c256": 200, "degenerate": 20, "zero_rows": 400}


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def load(golden, case, dtype=np.float64):
    arrays = dict(np.load(golden / "sinkhorn" / f"{case}.npz"))
    x, y = (jnp.asarray(arrays[key], dtype) for key in "XY")
    return x, y, float(arrays["eps"]), arrays


def loss(x, y, **how):
    return sinkhorn.divergence(x, y, **how)


@pytest.mark.parametrize("case", CASES)
def test_five_iterations_are_those_of_the_reference(golden, double, case):
    x, y, epsilon, figures = load(golden, case)
    how = {"epsilon": epsilon, "iterations": 5}
    found = sinkhorn.plan(sinkhorn.cosine_cost(x, y), **how)
    check = equivalence.check
    check("Sinkhorn", "forward: plan, 5 iterations", found, figures["plan_R5"], 1e-6)
    value = loss(x, y, **how)
    check("Sinkhorn", "loss: 5 iterations", value, figures["cost_R5"], 1e-10, "each")
    exchanged = loss(y, x, **how)
    cited = figures["cost_R5_cited"]
    if case != "eps001_signed":  # where the guard of the cited code bites
        check("Sinkhorn", "loss: the code cited", exchanged, cited, 1e-6, "each")
    for name, unrolled in (("", True), ("_detached", False)):
        grads = jax.grad(loss, (0, 1))(x, y, unrolled=unrolled, **how)
        for axis, grad in zip("xy", grads, strict=True):
            link = f"gradient norm: 5 iterations{name.replace('_', ', ')}"
            check("Sinkhorn", link, grad, figures[f"grad_{axis}_R5{name}"], 1e-6)


@pytest.mark.parametrize("case", CASES)
def test_float32_is_as_good_as_float32_can_be(golden, case):
    x, y, epsilon, figures = load(golden, case, np.float32)
    value = loss(x, y, epsilon=epsilon, iterations=5)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, figures["cost_R5"], rtol=1e-5, atol=3e-7)


@pytest.mark.parametrize("case", CONVERGED)
def test_many_iterations_converge_to_the_reference(golden, double, case):
    x, y, epsilon, figures = load(golden, case)
    how = {"epsilon": epsilon, "iterations": CONVERGED[case]}
    found = sinkhorn.plan(sinkhorn.cosine_cost(x, y), **how)
    check = equivalence.check
    check("Sinkhorn", "forward: plan, converged", found, figures["plan"], 1e-6)
    value = loss(x, y, **how)
    check("Sinkhorn", "loss: converged", value, figures["cost"], 1e-9, "each")
    grads = jax.grad(loss, (0, 1))(x, y, unrolled=True, **how)
    for axis, grad in zip("xy", grads, strict=True):
        link = "gradient norm: converged"
        check("Sinkhorn", link, grad, figures[f"grad_{axis}"], 1e-6)


def test_the_printed_order_of_updates_keeps_no_mass(golden, double):
    x, y, epsilon, figures = load(golden, "c32")
    kernel = np.exp(-np.asarray(sinkhorn.cosine_cost(x, y)) / epsilon)
    a = b = np.full(32, 1 / 32)
    for _ in range(5):
        a, b = 1 / 32 / (kernel.T @ b), 1 / 32 / (kernel @ a)
    plan = b[:, None] * kernel * a
    assert plan.sum() > 100
    jacobi = np.sum(plan * figures["M"])
    np.testing.assert_allclose(jacobi, figures["cost_R5_jacobi"], rtol=1e-9)


def ott(cost, epsilon, iterations, threshold=-1.0):
    """ott-jax's plan and cost; it updates columns first as well."""
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn as solver

    limits = {"min_iterations": iterations, "max_iterations": iterations}
    if threshold > 0:
        limits = {"max_iterations": iterations, "threshold": threshold}
    solve = solver.Sinkhorn(inner_iterations=1, implicit_diff=None, **limits)
    problem = linear_problem.LinearProblem(
        geometry.Geometry(cost_matrix=cost, epsilon=epsilon)
    )
    found = solve(problem)
    return found.matrix, found.primal_cost


def points(seed, shape, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


@pytest.mark.parametrize(("iterations", "threshold"), [(5, -1.0), (2000, 1e-9)])
def test_plan_and_cost_are_those_of_ott(double, iterations, threshold):
    pytest.importorskip("ott")
    cost = sinkhorn.cosine_cost(
        points(0, (24, 10), np.float64), points(1, (16, 10), np.float64)
    )
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        plan, value = ott(cost, 0.1, iterations, threshold)
    how = {"epsilon": 0.1, "iterations": iterations}
    np.testing.assert_allclose(sinkhorn.plan(cost, **how), plan, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(sinkhorn.transport_cost(cost, **how), value, rtol=1e-6)


@settings(deadline=None, max_examples=25)  # most of them compile
@given(
    seed=st.integers(0, 2**20),
    rows=st.sampled_from([1, 2, 9]),
    columns=st.sampled_from([1, 4, 9]),
    epsilon=st.sampled_from([1.0, 0.01, 0.001]),
    iterations=st.sampled_from([1, 21]),
)
def test_mass_is_kept(seed, rows, columns, epsilon, iterations):
    cost = sinkhorn.cosine_cost(points(seed, (rows, 5)), points(seed + 1, (columns, 5)))
    plan = sinkhorn.plan(cost, epsilon=epsilon, iterations=iterations)
    assert np.all(plan >= 0)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / rows, rtol=2e-4)
    if epsilon == 1.0 and iterations > 20:
        np.testing.assert_allclose(plan.sum(axis=0), 1 / columns, rtol=1e-3)


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("unrolled", [False, True])
@pytest.mark.parametrize("kind", ["zero rows", "all zero", "equal", "far", "large"])
def test_value_and_gradient_are_finite(epsilon, dtype, unrolled, kind):
    points_at_once = 256 if (kind, epsilon) == ("zero rows", 0.001) else 32
    shape = (2, points_at_once, 16)
    x, y = points(0, shape, dtype), points(1, shape, dtype)
    if kind == "zero rows":
        x = x.at[:, ::3].set(0)
    elif kind == "all zero":
        x = jnp.zeros_like(x)
    elif kind == "equal":
        x = y = jnp.broadcast_to(x[:, :1], x.shape)
    elif kind == "far":
        x, y = jnp.abs(x), -jnp.abs(x)
    else:
        x = x * 1e4
    how = {"epsilon": epsilon, "iterations": 5, "unrolled": unrolled}
    values, grads = jax.jit(
        jax.value_and_grad(lambda x, y: jnp.sum(loss(x, y, **how)), (0, 1))
    )(x, y)
    assert values.dtype == jnp.float32
    for grad in grads:
        assert np.all(np.isfinite(grad.astype(jnp.float32)))
    assert -1e-5 <= float(values) <= 4 + 1e-5  # of two problems, each 0..2


def test_a_row_of_zeros_costs_one_and_learns_nothing():
    x, y = points(0, (6, 4)).at[2].set(0), points(1, (6, 4))
    np.testing.assert_array_equal(sinkhorn.cosine_cost(x, y)[2], 1)
    for unrolled in (False, True):
        grad = jax.grad(loss)(x, y, unrolled=unrolled)
        assert not np.any(grad[2])
        assert np.all(np.any(np.delete(grad, 2, axis=0), axis=1))


def test_the_order_of_either_set_changes_nothing():
    x, y = points(0, (12, 7)), points(1, (12, 7))
    turned = np.random.default_rng(0).permutation(12)
    np.testing.assert_allclose(loss(x, y[turned]), loss(x, y), rtol=1e-6)
    np.testing.assert_allclose(loss(x[turned], y), loss(x, y), rtol=1e-6)


def test_a_set_is_no_way_from_itself_once_debiased(double):
    x = points(0, (10, 6), np.float64)
    how = {"epsilon": 0.1, "iterations": 300}
    assert loss(x, x, **how) > 0.01
    value, grad = jax.value_and_grad(loss)(x, x, debias=True, **how)
    np.testing.assert_allclose(value, 0, atol=1e-12)
    biased = jax.grad(loss)(x, x, **how)
    assert np.abs(grad).max() < 1e-3 * np.abs(biased).max()
    assert loss(x, points(1, (10, 6), np.float64), debias=True, **how) > 0.1


def test_problems_of_a_batch_are_solved_each_by_itself():
    x, y = points(0, (3, 2, 8, 5)), points(1, (3, 2, 8, 5))
    together = loss(x, y)
    assert together.shape == (3, 2)
    for i in np.ndindex(3, 2):
        np.testing.assert_allclose(together[i], loss(x[i], y[i]), rtol=1e-6)


def test_the_constant_plan_has_the_gradient_of_the_regularised_value(double):
    x, y = points(0, (8, 5), np.float64), points(1, (8, 5), np.float64)
    how = {"epsilon": 0.1, "iterations": 500}

    def regularised(x):
        cost = sinkhorn.cosine_cost(x, y)
        plan = sinkhorn.plan(cost, **how)
        return jnp.sum(plan * cost) + 0.1 * jnp.sum(plan * jnp.log(plan))

    detached, whole = jax.grad(loss)(x, y, **how), jax.grad(regularised)(x)
    np.testing.assert_allclose(detached, whole, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("epsilon", "iterations"), [(0.0, 5), (-1.0, 5), (0.1, 0)])
def test_settings_that_make_no_sense_are_refused(epsilon, iterations):
    with pytest.raises(ValueError, match="sinkhorn: expected epsilon above 0"):
        sinkhorn.plan(jnp.zeros((2, 2)), epsilon=epsilon, iterations=iterations)
