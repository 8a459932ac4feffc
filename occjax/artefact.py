"""Runs a model that `python -m occjax.export` wrote. It needs jax and flatbuffers.

Copy it beside the artefact, wherever that is to run:

    import artefact

    model = artefact.load("pinet.zip")
    poses = model(images)  # [B, H, W, 3] uint8 RGB, H and W being model.size

An artefact is a zip file: `program`, serialised by jax.export with the weights in it,
and `about.json`.
"""

import json
import zipfile
from typing import Any

import numpy as np
from jax import export

PROGRAM, ABOUT = "program", "about.json"  # in the zip file
GIVEN = ("box", "start_pose")  # what not all models take


class Artefact:
    """A trained model, whole: network, decoding and weights.

    Attributes:
        joints: names of the J joints.
        bones: pairs of numbers of joints.
        size: height and width of its images.
        crops: number of crops of people an input has; 0: it is an image, or one crop.
        needs: which of `GIVEN` it takes.
        platforms: on which it runs.
    """

    def __init__(self, program: bytes, about: dict[str, Any]):
        """Takes the two parts of an artefact."""
        self._run = export.deserialize(bytearray(program)).call
        self.joints = tuple(about["joints"])
        self.bones = tuple(map(tuple, about["bones"]))
        self.size: tuple[int, int] = tuple(about["size"])
        self.crops: int = about["crops"]
        self.needs = tuple(about["needs"])
        self.platforms = tuple(about["platforms"])

    def __call__(self, image: Any, **given: Any) -> dict[str, Any]:
        """Poses of a batch.

        Args:
            image: [B, H, W, 3] uint8 RGB; with `crops`, [B, crops, H, W, 3], as all
                that follows.
            given: `to_source` [B, 2, 3], the affine map from pixels of the input to
                those of its source, by default none; `valid` [B, 2], height and width
                that the source reaches into, by default all; of crops `box` [B, 4],
                the person's in the source, by default the middle four fifths, and
                `box_score` [B], by default 1; `start_pose` [B, 1, J, 3], with `crops`
                [B, crops, J, 3], poses to correct in pixels of the crop.

        Returns:
            `joints` [B, P, J, 2] in pixels of the source, `joint_score`, `visible` and
            `labelled` [B, P, J], NaN if not predicted, and `score` [B, P], -inf where
            there is nobody.

        Raises:
            ValueError: an array is missing, unknown or of another shape than promised.
        """
        rows = (*np.shape(image)[:1], *((self.crops,) if self.crops else ()))
        expected = (*rows, *self.size, 3)
        if np.shape(image) != expected or image.dtype != np.uint8:
            raise ValueError(
                f"image: expected {expected} uint8, found {np.shape(image)} "
                f"{image.dtype}."
            )
        inputs = {"image": image, **self._defaults(rows)}
        for name, value in given.items():
            if name not in inputs and name not in self.needs:
                raise ValueError(f"{name}: this model takes none.")
            default = inputs.get(name)
            kind = np.float32 if default is None else default.dtype
            inputs[name] = np.asarray(value, kind)
        missing = [name for name in self.needs if name not in inputs]
        if missing:
            raise ValueError(f"{missing[0]} is missing.")
        found: Any = self._run(inputs)
        return found

    def _defaults(self, rows: tuple[int, ...]) -> dict[str, np.ndarray]:
        """What need not be given, for a batch of such rows."""
        height, width = self.size
        plain = {
            "valid": np.tile(np.array([height, width], np.int32), (*rows, 1)),
            "to_source": np.tile(np.eye(2, 3, dtype=np.float32), (*rows, 1, 1)),
        }
        if "box" in self.needs:
            box = np.array([width / 10, height / 10, width * 0.8, height * 0.8])
            plain["box"] = np.tile(box.astype(np.float32), (*rows, 1))
            plain["box_score"] = np.ones(rows, np.float32)
        return plain


def load(path: Any) -> Artefact:
    """Opens an artefact.

    Raises:
        ValueError: the file is none.
    """
    try:
        with zipfile.ZipFile(path) as file:
            program, about = file.read(PROGRAM), json.loads(file.read(ABOUT))
    except (zipfile.BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: no artefact of occjax.export ({error}).") from error
    return Artefact(program, about)
