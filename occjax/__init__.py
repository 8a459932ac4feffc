"""Human pose estimation for people who are hidden, in JAX and Flax."""

__version__ = "0.1.0"

TYPE_CHECKING = False  # typing's own takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

    from etils import epath

    from occjax.estimator import Estimator


def load(workdir: "epath.PathLike", **options: "Any") -> "Estimator":
    """A trained model as a function of images.

    Args:
        workdir: folder of a run.
        options: `flip`, `scales`, `changes` and `scores` of
            `occjax.runtime.options.Options`.

    Raises:
        UserError: there is no run, it is damaged, or an option does not suit it.
    """
    from occjax import estimator  # late: `import occjax` needs no JAX
    from occjax.runtime.options import Options

    return estimator.Estimator(workdir, Options(**options))
