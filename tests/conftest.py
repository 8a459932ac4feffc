"""Strict JAX settings, eight CPU devices, and the folder of reference data."""

import gc
import os
import pathlib
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Most programs of tests run a few times: to compile them well would take longest.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import equivalence
import jax
import pytest

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where comparisons with published code are to be written."""
    parser.addoption("--equivalence", metavar="FILE.md", help="the page to be made")


def pytest_configure(config: pytest.Config) -> None:
    """Says whether this run makes the page."""
    equivalence.writing = config.getoption("--equivalence") is not None
    if equivalence.writing and config.getoption("numprocesses", None):
        raise pytest.UsageError("--equivalence: one process sees all, leave out -n")


@pytest.hookimpl(optionalhook=True)  # pytest-xdist may not be there
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files are shared out among workers, all networks of full size to one of them.

    Two trainings in float64 at once need over 24 GB.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            full = file.startswith("tests/nn/") or "published" in file
            return "networks" if full else file

    return Scheduling(config, log)


def slow(item: pytest.Function) -> bool:
    """Whether a test is marked so."""
    return item.get_closest_marker("slow") is not None


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Function]
) -> None:
    """What takes long first; for the page, only tests of figures that compare."""
    if not equivalence.writing:
        items.sort(key=slow, reverse=True)
        return
    chosen, others = [], []
    for item in items:
        compares = any(x is equivalence for x in vars(item.module).values())
        figures = {"golden", "photographs"} & set(item.fixturenames)
        (chosen if compares and figures else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = chosen


def pytest_runtest_setup(item: pytest.Function) -> None:
    """Networks of full size, which compute for long, are compiled as for users."""
    large = slow(item) or "golden" in item.fixturenames
    jax.config.update("jax_disable_most_optimizations", not large)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Writes the page if all is well."""
    config = session.config
    path = config.getoption("--equivalence")
    if path and exitstatus == 0 and equivalence.rows:
        named = config.args_source is pytest.Config.ArgsSource.ARGS
        chosen = config.getoption("-k") or config.getoption("-m")
        equivalence.write(path, whole=not (named or chosen))


@pytest.fixture(scope="module", autouse=True)
def programs_of_one_file() -> Iterator[None]:
    """Compiled programs of a file are forgotten with it: they fill gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """Reference figures of the papers' official code."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"reference figures not found at {SHARED / 'golden'}")
    return SHARED / "golden"


@pytest.fixture(scope="session")
def photographs() -> pathlib.Path:
    """Real images with annotations, and reference evaluation figures."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"photographs not found at {SHARED / 'data'}")
    return SHARED / "data"
