"""`python -m occjax.train` with the method "tiny": the real command, only fast."""

import tiny_method

from occjax import train
from occjax.runtime import cli

if __name__ == "__main__":
    tiny_method.install()
    train.define_flags()
    cli.run(train.main)
