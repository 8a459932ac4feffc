"""Public datasets, as downloaded, to TFDS datasets in ArrayRecord files.

`python -m data_prep.NAME --help` tells what each command takes.
"""

import sys
from collections.abc import Callable, Sequence

from absl import app, logging

from occjax.errors import UserError


def run(main: Callable[[], None]) -> None:
    """Runs a command; what its user can put right is one line and exit status 1."""

    def guarded(argv: Sequence[str]) -> None:
        if argv[1:]:
            raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
        logging.set_verbosity(logging.WARNING)  # TFDS tells about every file
        try:
            main()
        except UserError as error:
            sys.exit(f"error: {error}")

    app.run(guarded)
