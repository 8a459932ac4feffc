"""What a user can put right is one line on stderr, and the exit status is 1."""

import subprocess
import sys

import pytest

FAILS = """
import errno
from occjax.errors import UserError
from occjax.runtime import cli

def main(argv):
    raise {error}

cli.run(main)
"""
ERRORS = {
    'UserError("a.json: expected a list.")': "error: a.json: expected a list.\n",
    'OSError(errno.ENOSPC, "No space left on device", "runs/a")': (
        "error: [Errno 28] No space left on device: 'runs/a'\n"
    ),
}


def fail(error, *flags):
    command = [sys.executable, "-c", FAILS.format(error=error), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("error", ERRORS)
def test_a_users_mistake_is_one_line(error):
    assert fail(error) == (1, ERRORS[error])


@pytest.mark.parametrize("error", ERRORS)
def test_verbosity_shows_where_it_happened(error):
    status, said = fail(error, "--verbosity=1")
    assert status == 1
    assert "Traceback" in said


def test_a_mistake_of_ours_shows_where_it_happened():
    status, said = fail('ZeroDivisionError("ours")')
    assert status == 1
    assert "Traceback" in said
