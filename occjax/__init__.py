"""Human pose estimation for people who are hidden, in JAX and Flax."""

from typing import Any

__version__ = "0.1.0"


def load(workdir: Any, **options: Any) -> Any:
    """A trained model as a function of images: `occjax.estimator.Estimator`.

    Args:
        workdir: folder of a run.
        options: `flip`, `scales`, `changes` and `scores` of
            `occjax.runtime.options.Options`.

    Raises:
        UserError: there is no run, it is damaged, or an option does not suit it.
    """
    from occjax.estimator import Estimator  # late: `import occjax` needs no JAX
    from occjax.runtime.options import Options

    return Estimator(workdir, Options(**options))
