"""The flags that studies share."""

import pathlib

from absl import flags

from occjax.errors import UserError

FLAGS = flags.FLAGS


def define_flags(
    name: str, *, output: str = "", photographs: str = "", seeds: bool = True
) -> None:
    """Declares --workdir and --output, and what else a study wants.

    Args:
        name: of the study, and of its page in docs/.
        output: the page, if it has another name.
        photographs: what the folder of --photographs holds; empty: no such flag.
        seeds: whether there is --seeds.
    """
    flags.DEFINE_string("workdir", f"runs/study-{name}", "Datasets and runs.")
    flags.DEFINE_string("output", output or f"docs/{name}.md", "Page to write.")
    if photographs:
        flags.DEFINE_string("photographs", None, f"Folder of {photographs}.")
    if seeds:
        flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds to train with.")


def photographs() -> pathlib.Path:
    """The folder of --photographs.

    Raises:
        UserError: it is not given.
    """
    if FLAGS.photographs is None:
        raise UserError(f"--photographs is missing: {FLAGS['photographs'].help}")
    return pathlib.Path(FLAGS.photographs)
