"""Writes a trained model as one file that runs wherever JAX does, without this package.

    python -m occjax.export --workdir DIR --output FILE.zip [--platforms cpu,cuda,tpu]
        [--size HEIGHT,WIDTH]

FILE.zip holds network, decoding and weights for batches of any number of images of one
size, by default that of training. occjax/artefact.py, which needs no other file of this
package, runs it:

    poses = artefact.load("FILE.zip")(images)

Crops come without the suppression of people whom two boxes find. Any version of JAX of
the next six months reads the file.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from etils import epath

from occjax import artefact, files
from occjax.data.sources import skeleton_of
from occjax.errors import UserError
from occjax.runtime import cli

FLAGS = flags.FLAGS
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("workdir", None, "Folder of the run.")
    flags.DEFINE_string("output", None, "File to write.")
    flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], "Where it is to run.")
    flags.DEFINE_list("size", [], "Height and width of its images.")


def main(argv: Any) -> None:
    """Exports what the flags name."""
    del argv
    for name in ("workdir", "output"):
        if not FLAGS[name].value:
            raise UserError(f"--{name} is missing; --help tells more.")
    wrong = [name for name in FLAGS.platforms if name not in PLATFORMS]
    if wrong or not FLAGS.platforms:
        raise UserError(
            f"--platforms={','.join(FLAGS.platforms)}: expected some of "
            f"{', '.join(PLATFORMS)}."
        )
    sides = [int(side) for side in FLAGS.size if side.isdigit() and int(side)]
    if FLAGS.size and (len(sides) != 2 or len(FLAGS.size) != 2):
        raise UserError(
            f"--size={','.join(FLAGS.size)}: expected height and width: 512,512."
        )
    cli.start_jax()
    write(FLAGS.workdir, FLAGS.output, FLAGS.platforms, tuple(sides))


def write(
    workdir: str, output: str, platforms: Sequence[str], size: tuple[int, ...] = ()
) -> None:
    """Writes the artefact of a run's last checkpoint.

    Args:
        workdir: of the run.
        output: file to write.
        platforms: where it is to run.
        size: height and width of its images; (): those of training.

    Raises:
        UserError: the run is at fault, or its model does not take such images.
    """
    from occjax.runtime import config as configs
    from occjax.runtime import step, trained

    number, config = trained.last(workdir)
    *people, height, width, _ = configs.input_shape(config)
    height, width = size or (height, width)
    data = config.data.to_dict()
    skeleton = skeleton_of(data)
    variables = trained.load(workdir, number, config, skeleton).variables
    method, model = step.build_model(config, skeleton)
    inputs = examples(data, skeleton.num_joints, (*people, height, width))
    try:
        program = serialise(method, model, variables, inputs, platforms)
    except ValueError as error:
        raise UserError(f"{workdir}: cannot be exported: {error}") from error
    about = {
        "joints": skeleton.joints,
        "bones": skeleton.bones,
        "size": (height, width),
        "crops": people[0] if people else 0,
        "needs": [name for name in artefact.GIVEN if name in inputs],
        "platforms": list(platforms),
        "step": number,
        "config": configs.as_json(config),
    }
    with (
        files.writing(output) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        archive.writestr(artefact.PROGRAM, program)
        archive.writestr(artefact.ABOUT, json.dumps(about))
    print(f"{output}: {epath.Path(output).stat().length / 2**20:.1f} MiB")


def examples(
    data: Mapping[str, Any], joints: int, shape: tuple[int, ...]
) -> dict[str, Any]:
    """What the model of a config is given, as shapes of any number b of rows.

    Args:
        data: `config.data`.
        joints: how many of its people are asked for.
        shape: [H, W] of an input, or [P, H, W] of so many crops.
    """
    import jax
    import numpy as np
    from jax import export

    from occjax.data import views

    (rows,) = export.symbolic_shape("b")
    lead, sides = (rows, *shape[:-2]), shape[-2:]

    def array(end: tuple[int, ...], dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((*lead, *end), dtype)

    inputs = {
        "image": array((*sides, 3), np.uint8),
        "valid": array((2,), np.int32),
        "to_source": array((2, 3)),
    }
    if views.of_people(data):
        inputs |= {"box": array((4,)), "box_score": array(())}
        if data.get("proposals"):
            inputs["start_pose"] = array((*(() if shape[:-2] else (1,)), joints, 3))
    return inputs


def serialise(
    method: Any,
    model: Any,
    variables: Mapping[str, Any],
    inputs: Mapping[str, Any],
    platforms: Sequence[str],
) -> bytes:
    """Network, decoding and weights as `jax.export` writes them.

    Args:
        method: from `step.build_model`.
        model: likewise.
        variables: weights and statistics.
        inputs: from `examples`.
        platforms: where it is to run.

    Raises:
        ValueError: the model does not take such inputs, or any number of them.
    """
    import jax
    from jax import export

    from occjax.types import Inputs

    weights = jax.device_get(variables)  # they become constants of the program

    def run(given: dict[str, Any]) -> dict[str, Any]:
        seen = Inputs(**given)
        outputs = model.apply(weights, seen, train=False)
        return method.decode(model, outputs, seen)._asdict()

    exported = export.export(jax.jit(run), platforms=tuple(platforms))(dict(inputs))
    return bytes(exported.serialize())


if __name__ == "__main__":
    define_flags()
    cli.run(main)
