"""Test images once more, with patches over some of the joints: a split "covered".

Patches come from the same image: background, another joint of the person, or a second
copy of a joint. They are the same in every run, and the joints behind them are labelled
as occluded.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np

from configs import study_occluders
from data_prep import builder, crowd, downloads
from data_prep.account import Account
from occjax.data import occlude, sources
from occjax.data.records import Record, decode, pixels
from occjax.types import Batch, Inputs, Labels
from studies import crops, runs

SPLIT = "covered"
_SETTINGS: Any = study_occluders.PATCHES
PATCHES = occlude.PastePatches(**_SETTINGS)

COLUMNS: dict[str, Callable[[dict], float]] = {  # of what `pck` gives
    "clean": lambda pck: pck["test"]["mean"],
    "with occluders": lambda pck: pck[SPLIT]["mean"],
    "covered joints": lambda pck: pck[SPLIT]["occluded"]["mean"],
    "uncovered joints": lambda pck: pck[SPLIT]["visible"]["mean"],
}


def prepare(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Prepares the split of the crops of LSP Extended, if not done already.

    Args:
        folder: of the crops, see studies/crops.py.
        out: folder of datasets to write to.

    Raises:
        UserError: a file is not there or damaged.
    """
    if runs.prepared(out, crops.NAME, SPLIT):
        return
    plain, images = crops.read(folder, "test"), out / f"{crops.NAME}-{SPLIT}"
    images.mkdir(parents=True, exist_ok=True)
    people = plain.content["annotations"]
    for entry, person in zip(plain.content["images"], people, strict=True):
        path = folder / "images" / entry["file_name"]
        image = decode(path.read_bytes(), path.name)
        joints = np.reshape(person["keypoints"], (1, -1, 3))
        box, rng = np.array(person["bbox"]), np.random.default_rng(person["id"])
        image, joints = cover(image, joints, box[2:].prod(keepdims=True), rng, box)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
        cv2.imwrite(str(images / path.name), image[..., ::-1], quality)
        person["keypoints"] = joints.ravel().tolist()
    downloads.prepare(out, crops.NAME, SPLIT, images, plain)


def prepare_scenes(out: pathlib.Path, name: str) -> None:
    """Prepares the split of a dataset of whole images, if not done already.

    Args:
        out: folder of datasets, which has the dataset's split "test".
        name: of the dataset.
    """
    if runs.prepared(out, name, SPLIT):
        return
    source = sources.load({"dir": str(out), "dataset": name}, "test")
    content = builder.Content(
        tasks=list(range(len(source))),
        read=Covered(source),
        account=Account(),
        skeleton=source.skeleton,
        facts={"patches": _SETTINGS},
        settings={"patches": _SETTINGS},
    )
    builder.write(str(out), name, SPLIT, content)


class Covered(NamedTuple):
    """Makes the record of a scene with patches, as many times as it has people."""

    source: sources.Source

    def __call__(self, index: int, account: Account) -> Record:
        """The scene of an index, which is the seed of its patches, as PNG."""
        record, rng = self.source[index], np.random.default_rng(index)
        people = record["persons"]
        account.receive(1, len(people["id"]))
        image, joints = pixels(record), people["joints"]
        for _ in joints:
            image, joints = cover(image, joints, people["area"], rng)
        people = {**people, "joints": joints}
        return {**record, "image": crowd.png(image), "persons": people}


def pck(run: pathlib.Path, **flags: str) -> dict[str, dict]:
    """PCK of a finished run by split: on the test crops and on those with patches.

    Args:
        run: its folder.
        flags: of `occjax.evaluate`, if the run is to be scored otherwise than it was;
            the figures then stand in a folder of that name in the run.
    """
    where = run / "_".join(flags.values()) if flags else run
    scored = {"test": runs.evaluate(run, where, **flags) if flags else run}
    scored[SPLIT] = runs.evaluate(run, where / SPLIT, split=SPLIT, **flags)
    return {
        split: json.loads((where / "metrics.json").read_text(encoding="utf-8"))["pck"]
        for split, where in scored.items()
    }


def cover(
    image: np.ndarray,
    joints: np.ndarray,
    area: np.ndarray,
    rng: np.random.Generator,
    box: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Puts patches on somebody in an image.

    Args:
        image: [H, W, 3] uint8.
        joints: [P, J, 3] x, y, visibility.
        area: [P] of the people, pixels.
        rng: chooses whom and where.
        box: [4] of the person if the image is a crop.

    Returns:
        The image with patches, and the joints with their visibility then.
    """
    height, width = image.shape[:2]
    labels = Labels(
        joints=joints[..., :2].astype(np.float32),
        visibility=joints[..., 2].astype(np.uint8),
        area=area.astype(np.float32),
        ignore=np.zeros((height // 4, width // 4), bool),
        head_size=np.zeros(len(joints), np.float32),
    )
    inputs = Inputs(
        image=image.copy(),
        valid=np.array([height, width], np.int32),
        to_source=np.eye(2, 3, dtype=np.float32),
        box=None if box is None else box.astype(np.float32),
    )
    view = PATCHES.random_map(Batch(inputs, labels), rng)
    assert view.labels is not None  # it came with labels
    seen = view.labels.visibility[..., None]
    return view.inputs.image, np.concatenate([joints[..., :2], seen], -1)
