"""Measures what training and inference of a config cost on this machine.

    python -m occjax.benchmark --config configs/pinet.py[:VARIANT] [--output FILE.json]

prints, with machine, devices and versions, and writes to --output as json:

    train step      compile time, images/s, achieved FLOP/s beside the device's own
                    matmul rate measured in the same run, device memory
    inference       images/s of the network and of the network with decoding, and the
                    share of time that decoding takes
    input pipeline  images/s of training batches beside a plain loop that only decodes
                    and warps, in as many threads

Times are medians over --repeats. Anything of the config can be changed, for instance
--config.batch_size=8 --config.dtype=bfloat16. Images of a config whose dataset is not
there are noise, and the input pipeline is then left out.
"""

import concurrent.futures
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from absl import flags

from occjax import files
from occjax.errors import UserError
from occjax.runtime import cli, config

_CONFIG = config.define_flag()
_OUTPUT = flags.DEFINE_string("output", None, "Json file for the figures.")
_REPEATS = flags.DEFINE_integer("repeats", 10, "Timed runs of everything.", 1)
_BATCH = flags.DEFINE_integer(
    "inference_batch", None, "Images of an inference batch; by default batch_size.", 1
)


def main(argv: Any) -> None:
    """Measures, prints and writes."""
    del argv
    spec = flags.FLAGS["config"].unparsed_value if False else None
