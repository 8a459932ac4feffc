"""Public datasets, as downloaded, to TFDS datasets in ArrayRecord files.

`python -m data_prep.NAME --help` tells what each command takes.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from occjax.errors import UserError

# Common flags belong to the command that asks for them, and stand in its --help.
flags.disclaim_key_flags()


def define_common_flags(exclude: bool = True) -> None:
    """Defines what every command that writes a dataset takes; `how` reads it.

    Args:
        exclude: for images as downloaded; rendered ones are in no other dataset.
    """
    flags.DEFINE_string("out", "datasets", "Folder of all datasets.")
    flags.DEFINE_integer(
        "workers",
        os.cpu_count() or 1,
        "Processes to write with; 0 and 1 mean this one. The files are the same.",
        lower_bound=0,
    )
    flags.DEFINE_string(
        "beam_runner",
        None,
        "Runner of Apache Beam that writes instead, such as DirectRunner, for sets too "
        "large for one machine; all its workers must see the images and --out. Needs "
        "pip install 'occjax[beam]'.",
    )
    flags.DEFINE_list(
        "beam_options", [], "Options of Apache Beam, KEY=VALUE,KEY=VALUE."
    )
    if exclude:
        flags.DEFINE_multi_string(
            "exclude",
            [],
            "DATASET or DATASET/SPLIT below --out: leaves out images whose bytes the "
            "splits val and test of DATASET, or SPLIT, hold, and says how many. The "
            "same photograph saved anew has other bytes and is not found. May be "
            "given several times.",
        )


def how() -> dict[str, Any]:
    """What the common flags say, as arguments for the functions that write."""
    chosen = flags.FLAGS.flag_values_dict()
    names = ("workers", "beam_runner", "beam_options", "exclude")
    return {name: chosen[name] for name in names if name in chosen}


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
        except KeyboardInterrupt:
            print("stopped; the same command goes on where it was", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    app.run(guarded)
