r"""Shows what is in a dataset: a contact sheet and the occlusion table.

  python -m data_prep.browse --dataset ochuman --dir datasets --output ochuman.png

Visible joints are solid, occluded ones hollow. The table alone needs no images, only
an annotation file in COCO's format:

  python -m data_prep.browse --annotations crowdpose_val.json --skeleton crowdpose

With --config, the sheet shows what the training of a config makes of its dataset: each
record, and beside it its view with augmentation and occlusions, or the crops of its
people where an example has several.

  python -m data_prep.browse --config configs/pinet.py:coco \
      --config.occlusion="({'name': 'mask_joints'},)"
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from absl import flags

from data_prep import census, coco
from occjax import draw, skeletons
from occjax.data import pipeline, records, sources
from occjax.runtime import cli
from occjax.runtime import config as configs
from occjax.types import Batch

FLAGS = flags.FLAGS

_COLUMNS, _CAPTION = 6, "as trained on"
_SCENES = 1000  # of the built-in crowd that are counted: drawing all takes minutes


def define_flags() -> None:
    """Defines what the command takes."""
    flags.DEFINE_string("dataset", "crowd", "Name of a dataset.")
    flags.DEFINE_string("dir", "datasets", "Folder of all datasets.")
    flags.DEFINE_string("split", "train", "Split to look at.")
    flags.DEFINE_string("output", "", "PNG to write; NAME-SPLIT.png by default.")
    flags.DEFINE_integer("count", 24, "Images on the sheet.", lower_bound=1)
    configs.define_flag()
    flags.DEFINE_string("annotations", None, "COCO-format file to count instead.")
    flags.DEFINE_enum(
        "skeleton", "coco", sorted(skeletons.BY_NAME), "Joints of --annotations."
    )


def main(argv: Sequence[str]) -> None:
    """Draws and counts the split that the flags name, or counts a file."""
    del argv
    if FLAGS.annotations:
        skeleton = skeletons.BY_NAME[FLAGS.skeleton]
        download = coco.read(pathlib.Path(FLAGS.annotations), skeleton)
        print(census.table(census.of_file(download.content, skeleton)))
        return
    data = {"dataset": FLAGS.dataset, "dir": FLAGS.dir, "split": FLAGS.split}
    if FLAGS.config:
        data = configs.data_settings(FLAGS.config)
    source = sources.load(data, data["split"])
    output = pathlib.Path(FLAGS.output or f"{data['dataset']}-{data['split']}.png")
    if FLAGS.config:
        rows = before_and_after(source, FLAGS.count, data)
    else:
        rows = plain(source, FLAGS.count)
    image = draw.contact_sheet(rows, source.skeleton)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    print(census.table(census.of_source(_counted(source, data))))
    print(f"contact sheet: {output}")


def _counted(source: sources.Source, data: Mapping[str, Any]) -> sources.Source:
    """The records to count: of the crowd, which is drawn anew each time, the first."""
    if data["dataset"] != "crowd" or len(source) <= _SCENES:
        return source
    print(f"counted: the first {_SCENES} of {len(source)} scenes")
    crowd = {**data.get("crowd", {}), "num_scenes": _SCENES, "test_scenes": _SCENES}
    return sources.load({**data, "crowd": crowd}, data["split"])


def plain(source: sources.Source, count: int) -> list[list[draw.Panel]]:
    """Rows of so many records, spread over the split."""
    return _rows([_panel(source[index]) for index in _spread(source, count)])


def before_and_after(
    source: sources.Source, count: int, data: dict
) -> list[list[draw.Panel]]:
    """Rows of so many records, each with its training view to its right.

    Raises:
        UserError: `data` does not describe training views.
    """
    drawn_from, example = pipeline.augmented(source, data, seed=0)
    panels = []
    for index in _spread(drawn_from, count):
        panels += [_panel(drawn_from[index]), *_augmented_panels(example(index))]
    return _rows(panels)


def _spread(source: sources.Source, count: int) -> list[int]:
    chosen = np.linspace(0, len(source) - 1, min(count, len(source)))
    return chosen.astype(int).tolist()


def _rows(panels: Sequence[draw.Panel]) -> list[list[draw.Panel]]:
    return [list(panels[i : i + _COLUMNS]) for i in range(0, len(panels), _COLUMNS)]


def _augmented_panels(example: Batch) -> list[draw.Panel]:
    labels, image = example.labels, example.inputs.image
    assert labels is not None
    people = np.flatnonzero(labels.area > 0)
    shown = [(image, people)]
    if image.ndim == 4:  # a crop of each person
        shown = [(image[person], [person]) for person in people]
    return [
        draw.Panel(pixels, labels.joints[rows], labels.visibility[rows], _CAPTION)
        for pixels, rows in shown
    ]


def _panel(record: records.Record) -> draw.Panel:
    people = record["persons"]
    chosen = records.labelled(people)
    joints = people["joints"][chosen]
    caption = f"{int(record['image_id'])}: {len(joints)} people"
    if record["crowd_index"] >= 0:
        caption += f", crowd index {float(record['crowd_index']):.2f}"
    return draw.Panel(records.pixels(record), joints[..., :2], joints[..., 2], caption)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
