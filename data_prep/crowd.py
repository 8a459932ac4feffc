"""Writes scenes of the built-in crowd as a dataset like any other.

  python -m data_prep.crowd --name crowd_hard --overlap ochuman --scenes 5000

The scenes are those that training on `data.dataset = "crowd"` renders itself with the
same settings; on disk they cost no rendering and can be read by other programs.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from absl import flags

import data_prep
from data_prep import builder
from data_prep.account import Account
from occjax import skeletons
from occjax.data import sources
from occjax.data.records import Record
from occjax.errors import UserError

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines what the command takes."""
    data_prep.define_common_flags(exclude=False)
    flags.DEFINE_string("name", "crowd_scenes", "Name of the dataset to write.")
    flags.DEFINE_enum("split", "train", ["train", "test"], "Split to write.")
    flags.DEFINE_integer("scenes", 1000, "How many scenes.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of all scenes.", lower_bound=0)
    flags.DEFINE_integer("size", 128, "Height and width, pixels.")
    flags.DEFINE_list("people", ["2", "4"], "Fewest and most people.")
    flags.DEFINE_string(
        "overlap", "crowdpose", "crowdpose, ochuman, or a mean of the largest box IoU."
    )
    flags.DEFINE_enum("skeleton", "coco", sorted(skeletons.BY_NAME), "Joints.")


def main() -> None:
    """Writes the scenes that the flags describe."""
    options = {
        "num_scenes": FLAGS.scenes,
        "test_scenes": FLAGS.scenes,
        "seed": FLAGS.seed,
        "size": (FLAGS.size, FLAGS.size),
        "people": tuple(int(number) for number in FLAGS.people),
        "overlap": _number(FLAGS.overlap),
        "skeleton": FLAGS.skeleton,
    }
    write(FLAGS.out, FLAGS.name, FLAGS.split, options, **data_prep.how())


def write(out: str, name: str, split: str, options: dict, **how: Any) -> None:
    """Renders and writes a split.

    Args:
        out: folder of all datasets.
        name: of the dataset; "crowd" itself stands for scenes that are not on disk.
        split: "train" or "test".
        options: as `config.data.crowd`.
        **how: `workers` and Beam, as `builder.write` takes them.

    Raises:
        UserError: an option is out of range or the split cannot be written.
    """
    if name == "crowd":
        raise UserError("--name crowd is the built-in source; choose another name.")
    source = sources.load({"dataset": "crowd", "crowd": options}, split)
    content = builder.Content(
        tasks=list(range(len(source))),
        read=Renderer(source),
        account=Account(),
        skeleton=source.skeleton,
        facts={"crowd": options, "licence": "Apache-2.0, rendered by occjax"},
        settings={},
    )
    builder.write(out, name, split, content, **how)


class Renderer(NamedTuple):
    """Makes the record of one scene; a value, so that any process can do it."""

    source: sources.Source

    def __call__(self, index: int, account: Account) -> Record:
        """The scene of an index with its image as PNG."""
        record = self.source[index]
        account.receive(1, len(record["persons"]["id"]))
        return {**record, "image": png(np.asarray(record["image"]))}


def png(image: np.ndarray) -> bytes:
    """An RGB image [H, W, 3] uint8 as a PNG file."""
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


if __name__ == "__main__":
    define_flags()
    data_prep.run(main)
