"""Brings weights of the published PyTorch code in, and takes ours out again.

    python -m occjax.convert --config configs/NAME.py[:VARIANT] --torch FILE
        --workdir DIR [--dry_run] [--widen]

makes DIR a run that `evaluate --workdir DIR`, `predict --workdir DIR` and training
with `--config.init_from=DIR` accept. FILE is .pth, .pth.tar or .pt (torch is not
needed, and nothing in the file is run), .safetensors or .npz. Every array must have its
place in the config's model and every variable its array, else all that do not are
named and nothing is written. --dry_run prints where each array goes; `keep` and `drop`
in its last column are arrays taken as they are and left out. Weights that were
published in several files come in together: --torch MODEL.pth,RESCORER.pth.

    python -m occjax.convert --workdir DIR --output FILE

writes the weights of a run, with the averaged parameters where there are some, under
the names of the published code: .pth for torch.load, .safetensors or .npz.

16-bit files have lost figures: they are refused unless --widen says to take them.
"""

from typing import Any

from absl import flags
from etils import epath

from occjax.data import sources
from occjax.errors import UserError
from occjax.runtime import cli
from occjax.runtime import config as configs

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Declares the command's flags."""
    configs.define_flag()
    flags.DEFINE_string("torch", None, "File(s) of weights to bring in.")
    flags.DEFINE_string("workdir", None, "Folder of the run, to make or to read.")
    flags.DEFINE_string("output", None, "File to write a run's weights to.")
    flags.DEFINE_bool("dry_run", False, "Say where arrays go, and write nothing.")
    flags.DEFINE_bool("widen", False, "Take float16 and bfloat16 as float32.")


def main(argv: Any) -> None:
    """Converts what the flags name."""
    del argv
    _check_flags()
    cli.start_jax()
    if FLAGS.output:
        write_torch(FLAGS.workdir, FLAGS.output)
    else:
        given = (FLAGS.config, FLAGS.torch, FLAGS.workdir)
        read_torch(*given, FLAGS.dry_run, FLAGS.widen)


def _check_flags() -> None:
    """One direction, and all that it needs."""
    if FLAGS.output or not (FLAGS.config or FLAGS.torch):
        needed = ["workdir", "output"]
        other = ("torch", "config", "dry_run", "widen")
    else:
        needed, other = ["config", "torch", "workdir"], ()
        needed = needed[:2] if FLAGS.dry_run else needed
    for name in needed:
        if not FLAGS[name].value:
            raise UserError(f"--{name} is missing; --help tells more.")
    for name in other:
        if FLAGS[name].present:
            raise UserError(f"--{name} does not go with --output.")


def read_torch(
    config: Any, file: str, workdir: str | None, dry_run: bool, widen: bool
) -> None:
    """Makes a run from a file of weights with torch's names.

    Args:
        config: of the model.
        file: path of the file, or of several, with commas.
        workdir: folder to make; not needed for a dry run.
        dry_run: print where arrays go, and write nothing.
        widen: take arrays of 16 bits.

    Raises:
        UserError: the file is unsound or does not fit, or the folder has a run.
    """
    from occjax.runtime import mesh, step, transfer, weight_files, weights

    if workdir and (epath.Path(workdir) / "checkpoints").exists():
        raise UserError(f"--workdir={workdir}: has checkpoints; choose a new folder.")
    state_dict = weight_files.read_together(file.split(","))
    state_dict = state_dict.widened() if widen else state_dict
    skeleton = sources.skeleton_of(config.data.to_dict())
    method, model = step.build_model(config, skeleton)
    rows = transfer.tables_of(method, model).whole
    if dry_run:
        _print_table(weights.listing(state_dict, rows))
    shapes = step.variable_shapes(model, configs.input_shape(config))
    layout = mesh.Layout.create()
    try:
        variables = weights.convert(state_dict, rows, shapes, place=layout.replicate)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    if workdir and not dry_run:
        _write_run(workdir, variables, config)
        print(f"{workdir}: {config.method} with {len(state_dict)} arrays converted")


def _print_table(lines: list[tuple[str, ...]]) -> None:
    head = ("name", "variable", "shape", "kind")
    widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]
    for line in (head, *lines):
        cells = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def _write_run(workdir: str, variables: Any, config: Any) -> None:
    from occjax.runtime import checkpoint

    with checkpoint.Checkpoints(workdir) as checkpoints:
        checkpoints.save_weights(variables, config)
    configs.write(config, epath.Path(workdir) / "config.json")


def write_torch(workdir: str, output: str) -> None:
    """Writes the weights of a run's last checkpoint under torch's names.

    Args:
        workdir: of the run.
        output: file to write; its name tells the kind.

    Raises:
        UserError: there is no sound run, its method has no published names, or the
            file's name tells no kind.
    """
    from occjax.runtime import checkpoint, mesh, step, trained, transfer, weight_files
    from occjax.runtime import weights as names

    weight_files.check_name(output)
    number, config = trained.last(workdir)
    skeleton = sources.skeleton_of(config.data.to_dict())
    rows = transfer.tables_of(*step.build_model(config, skeleton)).whole
    with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
        layout = mesh.Layout.create()
        variables = checkpoints.variables(number, layout.replicated)
    state_dict = names.revert(variables, rows)
    weight_files.write(output, state_dict)
    print(f"{output}: {len(state_dict)} arrays of {workdir}, step {number}")


if __name__ == "__main__":
    define_flags()
    cli.run(main)
