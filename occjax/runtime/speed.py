"""Times of what runs on the device."""

import contextlib
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from occjax.types import Batch


def seconds(run: Callable[[], Any]) -> float:
    """Time of a run, which is done when its result is on the device."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    """Median time of a run."""
    return statistics.median(seconds(run) for _ in range(repeats))


def in_turns(runs: Sequence[Callable[[], Any]], repeats: int) -> np.ndarray:
    """Seconds [repeats, runs] of runs that take turns, after one that compiles each."""
    for run in runs:
        seconds(run)
    return np.array([[seconds(run) for run in runs] for _ in range(repeats)])


def matmul_rate(dtype: str, repeats: int) -> float:
    """FLOP/s of one device in a product of two square matrices."""
    side = 1024 if jax.default_backend() == "cpu" else 8192
    factor = jnp.ones((side, side), dtype)
    multiply = jax.jit(jnp.matmul)
    jax.block_until_ready(multiply(factor, factor))
    taken = median_seconds(lambda: multiply(factor, factor), repeats)
    return 2 * side**3 / taken


def training(train_step: Any, state: Any, batch: Batch, repeats: int) -> dict[str, Any]:
    """Compile time and rate of the train step, its FLOPs and memory."""
    with _empty_cache():
        start = time.perf_counter()
        lowered = train_step.lower(state, batch)
        traced = time.perf_counter()
        compiled = lowered.compile()
        cold = time.perf_counter()
        jax.clear_caches()
        again = time.perf_counter()
        train_step.lower(state, batch).compile()
        warm = time.perf_counter()

    def run() -> Any:
        nonlocal state
        state, measured = compiled(state, batch)
        return measured

    jax.block_until_ready(run())
    per_step, images = median_seconds(run, repeats), images_of(batch)
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    flops = (cost or {}).get("flops")  # of one device's share
    peak = jax.local_devices()[0].memory_stats()
    return {
        "batch_size": images,
        "trace_s": traced - start,
        "compile_cold_s": cold - traced,
        "trace_and_compile_cached_s": warm - again,
        "step_s": per_step,
        "images_per_s": images / per_step,
        "flop_per_step": flops,
        "flop_per_s": flops / per_step if flops else None,
        "planned_bytes": _planned(memory),
        "peak_bytes": peak["peak_bytes_in_use"] if peak else None,
    }


def images_of(batch: Batch) -> int:
    """How many images or crops of people a batch has."""
    return math.prod(batch.inputs.image.shape[:-3])


@contextlib.contextmanager
def _empty_cache() -> Iterator[None]:
    """Compilations are cold at first and then cached, in no cache but this one's."""
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    usual = {name: getattr(jax.config, name) for name in names}
    with tempfile.TemporaryDirectory() as cache:
        for name, value in zip(names, (cache, 0.0), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        jax.clear_caches()
        try:
            yield
        finally:  # the folder goes, so nothing else can compile into it
            for name, value in usual.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


def _planned(memory: Any) -> int | None:
    """Bytes of one device that the compiler has laid out for a step."""
    if memory is None:
        return None
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return held + memory.temp_size_in_bytes - memory.alias_size_in_bytes
