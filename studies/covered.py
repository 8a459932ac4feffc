"""The test crops of LSP Extended once more, with patches over some of the joints.

A split "covered" beside those of studies/crops.py. Patches come from the same
photograph: background, another joint of the person, or a second copy of a joint. They
are the same in every run, and the joints behind them are labelled as occluded.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from configs import study_occluders
from data_prep import downloads
from occjax.data import occlude
from occjax.data.records import decode
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
    """Prepares the split, if not done already.

    Args:
        folder: of the crops.
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
        image, visibility = cover(decode(path.read_bytes(), path.name), person)
        quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
        cv2.imwrite(str(images / path.name), image[..., ::-1], quality)
        joints = np.reshape(person["keypoints"], (-1, 3))
        joints[:, 2] = visibility
        person["keypoints"] = joints.ravel().tolist()
    downloads.prepare(out, crops.NAME, SPLIT, images, plain)


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


def cover(image: np.ndarray, person: dict) -> tuple[np.ndarray, np.ndarray]:
    """Puts patches on a crop; the seed is the number of its person.

    Args:
        image: [H, W, 3] uint8.
        person: COCO's entry, whose box is the crop.

    Returns:
        The image with patches, and the visibility [J] of the joints then.
    """
    joints = np.reshape(person["keypoints"], (1, -1, 3))
    height, width = image.shape[:2]
    labels = Labels(
        joints=joints[..., :2].astype(np.float32),
        visibility=joints[..., 2].astype(np.uint8),
        area=np.array([height * width], np.float32),
        ignore=np.zeros((height // 4, width // 4), bool),
        head_size=np.zeros(1, np.float32),
    )
    inputs = Inputs(
        image=image.copy(),
        valid=np.array([height, width], np.int32),
        to_source=np.eye(2, 3, dtype=np.float32),
        box=np.array(person["bbox"], np.float32),
    )
    rng = np.random.default_rng(person["id"])
    view = PATCHES.random_map(Batch(inputs, labels), rng)
    assert view.labels is not None  # it came with labels
    return view.inputs.image, view.labels.visibility[0]
