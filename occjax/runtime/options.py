"""How a trained model looks at images: flags that evaluate and predict share."""

from typing import NamedTuple

from absl import flags

from occjax.errors import UserError

flags.disclaim_key_flags()  # they are the commands' own, in --help too


SCORES = ("heatmap", "oaks", "oracle")


class Options(NamedTuple):
    """What the flags say."""

    flip: bool | None = None  # None: as the config has it
    scales: tuple[float, ...] = (1.0,)
    changes: tuple[str, ...] = ()  # of the run's config, KEY=VALUE
    scores: tuple[str, ...] = ()  # what ranks the poses; (): as the config has it


def define_flags() -> None:
    """Declares --flip, --scales, --score and --set."""
    flags.DEFINE_bool(
        "flip",
        None,
        "Average with the mirrored image; by default as the config says.",
    )
    flags.DEFINE_list(
        "scales", ["1"], "Image scales of the test, 1 among them: 0.5,1,2."
    )
    flags.DEFINE_list(
        "score",
        [],
        "What ranks the poses: heatmap or, with KS-net, oaks; by default as the config "
        "says. Evaluation takes several, and oracle, and prints them side by side; the "
        "first makes the files.",
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
    changes, ranks = tuple(flags.FLAGS.set), tuple(flags.FLAGS.score)
    wrong = set(ranks) - set(SCORES)
    if wrong:
        raise UserError(
            f"--score={','.join(ranks)}: expected some of {', '.join(SCORES)}."
        )
    return Options(flags.FLAGS.flip, scales, changes, ranks)
