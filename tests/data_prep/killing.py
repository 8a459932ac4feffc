"""Builds a dataset, killed at every step that touches the disk; see test_prep_kill.

python killing.py FOLDER            kills at each step, and prints how many there were
python killing.py FOLDER WORKERS    builds once, after the line "begins"
"""

import os
import pathlib
import sys
from typing import Any

import cv2
import numpy as np

from data_prep import importer, shards
from occjax import skeletons
from occjax.data import sources
from occjax.errors import UserError

SPLITS = {"train": 7, "val": 4}
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


def content(split: str, folder: pathlib.Path) -> dict[str, Any]:
    """Images that differ, with one person each; written if they are not there."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(len(split))
    entries = []
    for number in range(SPLITS[split]):
        name = f"{split}-{number}.png"
        image = rng.integers(0, 255, (40, 50, 3), np.uint8)
        if not (folder / name).exists():
            (folder / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
        entries.append({"id": number, "file_name": name})
    person = {"bbox": [1, 1, 9, 9], "keypoints": [5, 5, 2] + [0] * 48}
    people = [{"id": n, "image_id": n, **person} for n in range(len(entries))]
    return {"images": entries, "annotations": people}


def build(folder: pathlib.Path, images: pathlib.Path, workers: int = 0) -> None:
    """Builds both splits with three images to a file."""
    shards.SHARD = 3
    for split in SPLITS:
        given = (content(split, images), skeletons.COCO, {"annotations": split})
        importer.prepare(folder, "killed", split, images, *given, workers=workers)


def whole(folder: pathlib.Path) -> list[str]:
    """The splits that load; each has all its images."""
    there = []
    for split in SPLITS:
        data = {"dataset": "killed", "dir": str(folder)}
        try:
            source = sources.load(data, split)
        except UserError as error:
            if "prepare it with" not in str(error):
                raise  # it is there, but damaged
            continue
        found = [int(source[index]["image_id"]) for index in range(len(source))]
        assert found == list(range(SPLITS[split]))
        there.append(split)
    return there


def tfds_reads(folder: pathlib.Path) -> None:
    """What other programs find through TFDS is whole, too."""
    import tensorflow_datasets as tfds

    path = folder / "killed" / "1.0.0"
    if path.exists():
        reader: Any = tfds.builder_from_directory(os.fspath(path))
        for split in reader.info.splits:
            assert len([*reader.as_data_source(split)]) == SPLITS[split]


def files(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below a folder."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def apart(work: Any, *arguments: Any) -> int:
    """Exit status of a process that does some work: ArrayRecord's threads forbid to
    fork after it was used, so that this one never uses it.
    """
    sys.stdout.flush()
    number = os.fork()
    if not number:
        status = 1
        try:
            work(*arguments)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def killed(folder: pathlib.Path, images: pathlib.Path, step: int) -> None:
    """Builds up to a step that touches the dataset, and ends there at once."""
    left = step

    def watch(event: str, given: tuple) -> None:
        nonlocal left
        if event in STEPS and str(folder) in str(given[0]):
            left -= 1
            if not left:
                os._exit(9)

    sys.addaudithook(watch)
    build(folder, images)


def finish(folder: pathlib.Path, images: pathlib.Path, reference: pathlib.Path) -> None:
    """Checks what a killed build has left, and that the same command finishes it."""
    whole(folder)
    tfds_reads(folder)
    build(folder, images)
    assert whole(folder) == list(SPLITS)
    assert files(folder) == files(reference)


def main() -> None:
    """Kills a build at its first step, another one at its second, and so on."""
    folder = pathlib.Path(sys.argv[1])
    images, reference = folder / "images", folder / "reference"
    assert apart(build, reference, images) == 0
    step, status = 0, 9
    while status == 9:
        step += 1
        place = folder / str(step)
        status = apart(killed, place, images, step)
        assert apart(finish, place, images, reference) == 0, f"step {step}"
    assert status == 0
    sys.stdout.write(f"steps: {step - 1}\n")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main()
    else:
        sys.stdout.write("begins\n")
        sys.stdout.flush()
        where = pathlib.Path(sys.argv[1])
        build(where / "datasets", where / "images", int(sys.argv[2]))
