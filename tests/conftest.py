"""Strict JAX settings, eight CPU devices, and the folder of reference data."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import equivalence
import pytest

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where comparisons with published code are to be written."""
    parser.addoption("--equivalence", metavar="FILE.md")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes them, if there are any."""
    path = session.config.getoption("--equivalence")
    if path and equivalence.rows:
        equivalence.write(path)


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
