r"""Shows what is in a dataset: a contact sheet and the occlusion table.

  python -m data_prep.browse --dataset ochuman --dir datasets --output ochuman.png

Visible joints are solid, occluded ones hollow. The table alone needs no images, only
an annotation file in COCO's format:

  python -m data_prep.browse --annotations crowdpose_val.json --skeleton crowdpose
"""

import pathlib

import cv2
import numpy as np
from absl import flags

import data_prep
from data_prep import census, coco
from occjax import draw, skeletons
from occjax.data import records, sources

FLAGS = flags.FLAGS

_COLUMNS = 6


def define_flags() -> None:
    """Defines what the command takes."""
    flags.DEFINE_string("dataset", "crowd", "Name of a dataset.")
    flags.DEFINE_string("dir", "datasets", "Folder of all datasets.")
    flags.DEFINE_string("split", "train", "Split to look at.")
    flags.DEFINE_string("output", "", "PNG to write; NAME-SPLIT.png by default.")
    flags.DEFINE_integer("count", 24, "Images on the sheet.", lower_bound=1)
    flags.DEFINE_string("annotations", None, "COCO-format file to count instead.")
    flags.DEFINE_enum(
        "skeleton", "coco", sorted(skeletons.BY_NAME), "Joints of --annotations."
    )


def main() -> None:
    """Draws and counts the split that the flags name, or counts a file."""
    if FLAGS.annotations:
        skeleton = skeletons.BY_NAME[FLAGS.skeleton]
        download = coco.read(pathlib.Path(FLAGS.annotations), skeleton)
        print(census.table(census.of_file(download.content, skeleton)))
        return
    data = {"dataset": FLAGS.dataset, "dir": FLAGS.dir}
    source = sources.load(data, FLAGS.split)
    output = pathlib.Path(FLAGS.output or f"{FLAGS.dataset}-{FLAGS.split}.png")
    image = sheet(source, FLAGS.count)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    print(census.table(census.of_source(source)))
    print(f"contact sheet: {output}")


def sheet(source: sources.Source, count: int) -> np.ndarray:
    """Contact sheet [H, W, 3] uint8 RGB of so many records, spread over the split."""
    chosen = np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)
    panels = [_panel(source[int(index)]) for index in chosen]
    rows = [panels[at : at + _COLUMNS] for at in range(0, len(panels), _COLUMNS)]
    return draw.contact_sheet(rows, source.skeleton)


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
    data_prep.run(main)
