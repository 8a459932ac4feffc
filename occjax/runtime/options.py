"""How a trained model looks at images: flags that evaluate and predict share."""

from typing import NamedTuple

from absl import flags

from occjax.errors import UserError

flags.disclaim_key_flags()  # they are the commands' own, in --help too


class Options(NamedTuple):
    """What the flags say."""

    flip: bool | None  # None: as the config has it
    scales: tuple[float, ...]
    changes: tuple[str, ...] = ()  # of the run's config, KEY=VALUE


def define_flags() -> None:
    """Declares --flip, --scales and --set."""
    flags.DEFINE_bool(
        "flip",
        None,
        "Average with the mirrored image; by default as the config says.",
    )
    flags.DEFINE_list(
        "scales", ["1"], "Image scales of the test, 1 among them: 0.5,1,2."
    )
    flags.DEFINE_multi_string(
        "set", [], "Setting of the run's config to change, such as model.nms=0.8."
    )


def parsed() -> Options:
    """The options given.

    Raises:
        UserError: --scales holds something else than positive numbers.
    """
    given = flags.FLAGS.scales
    try:
        scales = tuple(float(scale) for scale in given)
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale < float("inf") for scale in scales):
        raise UserError(
            f"--scales={','.join(given)}: expected positive numbers such as 0.5,1,2."
        )
    return Options(flags.FLAGS.flip, scales, tuple(flags.FLAGS.set))
