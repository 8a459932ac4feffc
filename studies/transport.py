"""Time and memory of our Sinkhorn iterations beside those of ott-jax, in one run.

    python -m studies.transport [--batch 16] [--repeats 20]

Both solve the same problems, 256 points against 256 in five iterations, as OASNet's
mimicry does; ott-jax comes with requirements-dev.txt. Prints a table in Markdown:
milliseconds (median of the repeats, the two taking turns) and the memory that the
compiled program needs beside its arguments.
"""

import functools
import importlib.metadata
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from occjax.ops import sinkhorn

FLAGS = flags.FLAGS
POINTS, PLACES, EPSILON, ITERATIONS = 256, 1024, 0.1, 5


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_integer("batch", 16, "Problems at once.", lower_bound=1)
    flags.DEFINE_integer("repeats", 20, "Of each measurement.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Measures and prints."""
    del argv
    keys = jax.random.split(jax.random.key(0))
    shape = (FLAGS.batch, POINTS, PLACES)
    x, y = (jax.random.normal(key, shape) for key in keys)
    device = jax.devices()[0].device_kind
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _NAMES]
    print(f"{FLAGS.batch} problems of {POINTS} x {POINTS} on {device},", *versions)
    print("\n| what | ours, ms | ott-jax, ms | ratio | ours, MiB | ott-jax, MiB |")
    print("|---|---|---|---|---|---|")
    costs = sinkhorn.cosine_cost(x, y)
    print(row("the iterations alone", _solve, _solve_ott, costs))
    ours, theirs = map(_learn, (_solve, _solve_ott))
    print(row("with costs, value and gradient, plan constant", ours, theirs, x, y))
    through = _learn(functools.partial(_solve, unrolled=True))
    print(row("the same, gradient through the iterations", through, theirs, x, y))


_NAMES = ("jax", "ott-jax")


def row(what: str, ours: Callable, theirs: Callable, *arrays: jax.Array) -> str:
    """One line of the table."""
    compiled = [jax.jit(f).lower(*arrays).compile() for f in (ours, theirs)]
    times: list[list[float]] = [[], []]
    for _ in range(1 + FLAGS.repeats):
        for run, seconds in zip(compiled, times, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(run(*arrays))
            seconds.append(time.perf_counter() - start)
    a, b = (1e3 * statistics.median(seconds[1:]) for seconds in times)
    memory = [_mebibytes(one) for one in compiled]
    return f"| {what} | {a:.1f} | {b:.1f} | {a / b:.2f} | {memory[0]} | {memory[1]} |"


def _mebibytes(compiled: Any) -> str:
    found = compiled.memory_analysis()
    return f"{found.temp_size_in_bytes / 2**20:.1f}" if found else "unknown"


def _solve(costs: jax.Array, unrolled: bool = False) -> jax.Array:
    """Sum of what the plans of costs [B, N, M] cost."""
    how: Any = {"epsilon": EPSILON, "iterations": ITERATIONS, "unrolled": unrolled}
    return jnp.sum(sinkhorn.transport_cost(costs, **how))


def _solve_ott(costs: jax.Array) -> jax.Array:
    """The same by ott-jax, whose gradient goes through the iterations."""
    from ott.geometry import geometry
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn as solver

    solve = solver.Sinkhorn(
        min_iterations=ITERATIONS,
        max_iterations=ITERATIONS,
        inner_iterations=1,
        implicit_diff=None,
    )

    def one(cost: jax.Array) -> jax.Array:
        problem = geometry.Geometry(cost_matrix=cost, epsilon=EPSILON)
        return solve(linear_problem.LinearProblem(problem)).primal_cost

    return jnp.sum(jax.vmap(one)(costs))


def _learn(solve: Callable) -> Callable:
    """Value and gradients of points from their costs."""
    return jax.value_and_grad(lambda x, y: solve(sinkhorn.cosine_cost(x, y)), (0, 1))


if __name__ == "__main__":
    define_flags()
    app.run(main)
