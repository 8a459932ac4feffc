"""The photographs of a folder, chosen and prepared like any other dataset.

The folder has, below coco/, crowdpose/ and ochuman/, `images/` and the COCO-format
`annotations/` named here.
"""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from data_prep import coco
from occjax import skeletons
from occjax.data import sources
from occjax.errors import UserError

SPLIT = "chosen"


class Album(NamedTuple):
    """One dataset of the folder."""

    annotations: str  # file below annotations/
    skeleton: skeletons.Skeleton


ALBUMS = {
    "coco": Album("person_keypoints_shared.json", skeletons.COCO),
    "crowdpose": Album("crowdpose_images_1.json", skeletons.CROWDPOSE),
    "ochuman": Album("ochuman_coco17.json", skeletons.COCO),
}


def prepare(
    folder: pathlib.Path,
    album: str,
    out: pathlib.Path,
    choose: Callable[[dict, list[dict]], bool],
    limit: int | None = None,
) -> sources.Source:
    """Prepares chosen photographs, with all their annotations, if not done already.

    Args:
        folder: of all albums.
        album: key of ALBUMS, and the name of the dataset.
        out: folder of datasets to write to.
        choose: whether to take an image, given its entry and its annotations.
        limit: take only the first so many of those chosen, by image id.

    Raises:
        UserError: a file is not there or damaged, or too few photographs were chosen.
    """
    file, skeleton = ALBUMS[album]
    if (out / album).exists():
        return sources.load({"dir": str(out), "dataset": album}, SPLIT)
    content, _ = coco.read_json(folder / album / "annotations" / file)
    images = sorted(content["images"], key=lambda image: image["id"])
    people = by_image(content)
    images = [i for i in images if choose(i, people.get(i["id"], []))][:limit]
    if len(images) < (limit or 1):
        raise UserError(f"{folder / album}: expected {limit or 1} fitting photographs.")
    ids = {image["id"] for image in images}
    kept = [a for a in content["annotations"] if a["image_id"] in ids]
    out.mkdir(parents=True, exist_ok=True)
    chosen = out / f"{album}.json"
    content = {**content, "images": images, "annotations": kept}
    chosen.write_text(json.dumps(content), encoding="utf-8")
    coco.prepare(out, album, SPLIT, folder / album / "images", chosen, skeleton)
    return sources.load({"dir": str(out), "dataset": album}, SPLIT)


def by_image(content: dict) -> dict[int, list[dict]]:
    """Annotations of each image."""
    people: dict[int, list[dict]] = {}
    for annotation in content["annotations"]:
        people.setdefault(annotation["image_id"], []).append(annotation)
    return people


def labelled(annotations: Sequence[dict]) -> list[dict]:
    """The persons, no crowd regions, that have a labelled joint."""
    return [a for a in annotations if not a.get("iscrowd") and joints_of(a)]


def joints_of(annotation: dict) -> int:
    """How many joints of an annotation are labelled."""
    return sum(v > 0 for v in annotation.get("keypoints", [])[2::3])


def crowded(image: dict, annotations: list[dict]) -> bool:
    """Whether an image has two labelled persons or more."""
    del image
    return len(labelled(annotations)) >= 2
