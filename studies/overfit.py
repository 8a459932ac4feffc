"""Laptops' networks learn a few photographs by heart, and are scored on them.

Labels, warps, masks, training, decoding and back-projection must agree to get there.
"""

import json
import pathlib
from typing import Any

from studies import albums, runs

PHOTOGRAPHS = 16
BOX = 0.05  # least share of the photograph that a person's box covers
JOINTS = 5  # least labelled joints of a person


def prepare(folder: pathlib.Path, out: pathlib.Path, lost: set[int]) -> Any:
    """The photographs to learn: the first of COCO, by id, that fit.

    Two labelled persons or more, each with JOINTS labelled joints and BOX of the
    photograph, and nobody whom the method cannot represent.

    Args:
        folder: of all albums.
        out: folder of datasets to write to.
        lost: ids of photographs with such persons, as the oracle finds them.
    """

    def fits(image: dict, annotations: list[dict]) -> bool:
        people = albums.labelled(annotations)
        least = BOX * image["width"] * image["height"]
        return len(people) >= 2 and all(
            person["bbox"][2] * person["bbox"][3] >= least
            and albums.joints_of(person) >= JOINTS
            for person in people
        )

    def choose(image: dict, annotations: list[dict]) -> bool:
        return image["id"] not in lost and fits(image, annotations)

    return albums.prepare(folder, "coco", out, choose, PHOTOGRAPHS)


def train(
    datasets: pathlib.Path, workdir: pathlib.Path, variant: str = "", **settings: Any
) -> dict:
    """Trains and scores, unless that is done already; gives metrics.json.

    Args:
        datasets: folder of datasets.
        workdir: of the run.
        variant: of configs/study_photographs.py.
        settings: of it, as `runs.train` takes them.
    """
    config = f"configs/study_photographs.py:{variant}"
    runs.train(config, workdir, data__dir=datasets, **settings)
    return json.loads((workdir / "metrics.json").read_text(encoding="utf-8"))


def couples(
    datasets: pathlib.Path, workdir: pathlib.Path, **settings: Any
) -> dict[str, dict]:
    """OPEC-Net, then CoupleGraph upon it: by name what `train` gives."""
    first, second = workdir / "opecnet", workdir / "couplegraph"
    one = train(datasets, first, "opecnet", **settings)
    two = train(datasets, second, "couplegraph", init_from=first, **settings)
    return {"OPEC-Net": one, "CoupleGraph": two}
