"""Shows what is in a prepared dataset: a contact sheet and occlusion statistics.

  python -m data_prep.browse --dataset ochuman --dir datasets --output ochuman.png

Visible joints are solid, occluded ones hollow.
"""

import pathlib
from typing import NamedTuple

import cv2
import numpy as np
import tqdm
from absl import flags

import data_prep
from occjax import draw
from occjax.data import records, sources
from occjax.evaluation import occlusion
from occjax.types import OCCLUDED, UNLABELLED, VISIBLE

FLAGS = flags.FLAGS

_COLUMNS = 6
_IOUS = (0.3, 0.5, 0.75)


class Statistics(NamedTuple):
    """How crowded and how hidden the people of a split are."""

    images: int
    persons: int  # single people, crowd regions left out
    labelled: int  # of these, people with a labelled joint
    joints: dict[str, int]  # of labelled people, by visibility
    iou_mean: float  # of the largest box IoU in an image
    iou_shares: dict[float, float]  # images whose largest box IoU is above a limit


def define_flags() -> None:
    """Defines what the command takes."""
    flags.DEFINE_string("dataset", "crowd", "Name of a dataset.")
    flags.DEFINE_string("dir", "datasets", "Folder of all datasets.")
    flags.DEFINE_string("split", "train", "Split to look at.")
    flags.DEFINE_string("output", "", "PNG to write; NAME-SPLIT.png by default.")
    flags.DEFINE_integer("count", 24, "Images on the sheet.", lower_bound=1)


def main() -> None:
    """Draws and counts the split that the flags name."""
    data = {"dataset": FLAGS.dataset, "dir": FLAGS.dir}
    source = sources.load(data, FLAGS.split)
    output = pathlib.Path(FLAGS.output or f"{FLAGS.dataset}-{FLAGS.split}.png")
    image = sheet(source, FLAGS.count)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    print(table(statistics(source)))
    print(f"contact sheet: {output}")


def sheet(source: sources.Source, count: int) -> np.ndarray:
    """Contact sheet [H, W, 3] uint8 RGB of so many records, spread over the split."""
    chosen = np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)
    panels = [_panel(source[int(index)]) for index in chosen]
    rows = [panels[at : at + _COLUMNS] for at in range(0, len(panels), _COLUMNS)]
    return draw.contact_sheet(rows, source.skeleton)


def statistics(source: sources.Source) -> Statistics:
    """Counts people, joints and overlaps of a split."""
    names = {UNLABELLED: "unlabelled", OCCLUDED: "occluded", VISIBLE: "visible"}
    joints = dict.fromkeys(names.values(), 0)
    persons = labelled = 0
    overlaps = []
    for index in tqdm.trange(len(source), unit=" images", disable=None):
        people = source[index]["persons"]
        single = ~people["is_crowd"].astype(bool)
        chosen = single & records.labelled(people)
        persons += int(single.sum())
        labelled += int(chosen.sum())
        for value, name in names.items():
            joints[name] += int(np.sum(people["joints"][chosen, :, 2] == value))
        boxes = np.asarray(people["bbox"], float)[chosen]
        overlaps.append(np.max(occlusion.box_iou(boxes), initial=0))
    largest = np.array(overlaps)
    shares = {limit: float(np.mean(largest > limit)) for limit in _IOUS}
    mean = float(np.mean(largest))
    return Statistics(len(source), persons, labelled, joints, mean, shares)


def table(found: Statistics) -> str:
    """The statistics, for people."""
    total = max(sum(found.joints.values()), 1)
    lines = [
        f"images                     {found.images:8}",
        f"people                     {found.persons:8}",
        f"people with joints         {found.labelled:8}",
        *(
            f"joints {name:12}        {count:8}  {count / total:6.1%}"
            for name, count in found.joints.items()
        ),
        f"largest box IoU, mean      {found.iou_mean:8.3f}",
        *(
            f"largest box IoU > {limit:<4}     {share:8.1%}  of images"
            for limit, share in found.iou_shares.items()
        ),
    ]
    return "\n".join(lines)


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
