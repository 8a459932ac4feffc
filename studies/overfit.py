"""Laptops' networks learn a few photographs by heart, and are scored on them.

Labels, warps, masks, training, decoding and back-projection must agree to get there.
"""

import json
import pathlib
import subprocess
import sys
from typing import Any

from studies import albums

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
    datasets: pathlib.Path,
    workdir: pathlib.Path,
    variant: str = "",
    *overrides: str,
) -> dict:
    """Trains and scores, unless that is done already; gives metrics.json.

    Args:
        datasets: folder of datasets.
        workdir: of the run.
        variant: of configs/study_photographs.py.
        overrides: of its settings, "steps=10".
    """
    if not (workdir / "metrics.json").exists():
        command = [sys.executable, "-m", "occjax.train", f"--workdir={workdir}"]
        command += [f"--config=configs/study_photographs.py:{variant}"]
        overrides = (f"data.dir={datasets}", *overrides)
        command += [f"--config.{override}" for override in overrides]
        subprocess.run(command, check=True)
    return json.loads((workdir / "metrics.json").read_text(encoding="utf-8"))


def couples(
    datasets: pathlib.Path, workdir: pathlib.Path, *overrides: str
) -> dict[str, dict]:
    """OPEC-Net, then CoupleGraph upon it: by name what `train` gives."""
    first = workdir / "opecnet"
    after = f"init_from={first}"
    second = workdir / "couplegraph"
    return {
        "OPEC-Net": train(datasets, first, "opecnet", *overrides),
        "CoupleGraph": train(datasets, second, "couplegraph", after, *overrides),
    }
