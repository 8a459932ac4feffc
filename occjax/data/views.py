"""Which views a config asks for, of whole images or of people, to train or to test.

`data.view` is "image" (also where it is missing) or "person". Both take `size`, one
side of a square training view or, for people, (height, width); `max_persons`;
`augment`, the settings of `augment.TrainView` or `crop.TrainCrop` and `colour`, the
strength of `augment.Colour`. A person view takes besides `padding` (of the box, one
number or width and height), `clip_boxes` (true unless the dataset's boxes are squares
about a centre: MPII, LSP) and `detections`, a file of boxes to test on instead of the
annotated ones. `config.occlusion`, which the commands hand in with the data, lists what
`occlude.build` takes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from occjax.data import augment, crop, occlude, people, warp
from occjax.data.settings import construct
from occjax.data.sources import Source
from occjax.errors import UserError


class Training(NamedTuple):
    """What training draws its examples from."""

    source: Source  # of images, or of people
    view: augment.TrainView | crop.TrainCrop
    effects: tuple[
        occlude.Occlusion, ...
    ]  # transforms of finished views, in this order


class Testing(NamedTuple):
    """What testing looks at."""

    source: Source  # of images, or of boxes
    view: augment.TestView | crop.TestCrop
    canvases: list[tuple[int, int]]  # height and width of each input


def of_people(data: Mapping[str, Any]) -> bool:
    """Whether an example is one person rather than a whole image.

    Raises:
        UserError: there is no such view.
    """
    view = data.get("view", "image")
    if view not in ("image", "person"):
        raise UserError(f"data.view: expected image or person; got {view!r}.")
    return view == "person"


def training(source: Source, data: Mapping[str, Any]) -> Training:
    """The training views of a config.

    Args:
        source: of images.
        data: `config.data` and `occlusion`.

    Raises:
        UserError: a setting is at fault, or an image has more people than
            `max_persons`.
    """
    options = _options(data["augment"])
    colour = options.pop("colour", 0.0)
    effects = occlude.build(data.get("occlusion", ()), source.skeleton)
    if colour:
        effects = (*effects, augment.Colour(colour))
    given = {"max_persons": int(data["max_persons"]), "skeleton": source.skeleton}
    if of_people(data):
        given |= _geometry(data)
        view = construct(crop.TrainCrop, "data.augment", options, **given)
        clip = bool(data.get("clip_boxes", True))
        return Training(people.Annotated(source, clip=clip), view, effects)
    if source.max_persons > data["max_persons"]:
        raise UserError(
            f"{source.name} has images with {source.max_persons} labelled people, "
            f"data.max_persons is {data['max_persons']}."
        )
    given["size"] = int(data["size"])
    view = construct(augment.TrainView, "data.augment", options, **given)
    return Training(source, view, effects)


def testing(
    source: Source, data: Mapping[str, Any], scales: Sequence[float], labels: bool
) -> Testing:
    """The test views of a config.

    Args:
        source: of images.
        data: `config.data`; with `eval_images`, of the first so many only (0 all).
        scales: of a multi-scale test, 1 among them; a person view has no other.
        labels: whether there shall be any.

    Raises:
        UserError: a setting is at fault, the scales do not suit it, or the boxes
            cannot be read.
    """
    if 1 not in scales:
        raise UserError(f"the test scales {tuple(scales)} must have 1 among them.")
    others = tuple(float(scale) for scale in scales if scale != 1)
    images = int(data.get("eval_images", 0))
    persons = int(data["max_persons"]) if labels else 0
    if of_people(data):
        if others:
            raise UserError(f"person crops are tested at scale 1, not {others}.")
        boxes = _boxes(source, data, images)
        view = crop.TestCrop(
            skeleton=source.skeleton, max_persons=persons, **_geometry(data)
        )
        return Testing(boxes, view, [view.size] * len(boxes))
    size = int(data["size"])
    multiple = warp.multiple_for(size, scales)
    view = augment.TestView(size, multiple, source.skeleton, others, persons)
    sizes = _sizes(source, images)
    canvases = [warp.test_canvas(h, w, view.size, view.multiple) for h, w in sizes]
    return Testing(source, view, canvases)


def _boxes(
    source: Source, data: Mapping[str, Any], images: int
) -> people.Annotated | people.Detected:
    """What to crop in the first so many images, 0 for all."""
    if data.get("detections", ""):
        return people.Detected(source, data["detections"], images)
    return people.Annotated(source, images, bool(data.get("clip_boxes", True)))


def _geometry(data: Mapping[str, Any]) -> dict[str, Any]:
    """Size and padding of person crops."""
    size, padding = data["size"], data.get("padding", 1.25)
    if isinstance(size, int) or len(size) != 2 or any(side % 32 for side in size):
        raise UserError(
            "data.size of a person view: expected (height, width), multiples of 32; "
            f"got {size!r}."
        )
    pair = (padding, padding) if isinstance(padding, int | float) else tuple(padding)
    return {"size": (int(size[0]), int(size[1])), "padding": pair}


def _options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a training view; pairs become tuples, which hash."""
    options = dict(settings)
    if "scale" in options:
        options["scale"] = tuple(options["scale"])
    return options


def _sizes(source: Source, limit: int) -> np.ndarray:
    """Height and width [N, 2] of the images to test on."""
    count = min(limit, len(source)) if limit else len(source)
    known = getattr(source, "sizes", None)
    if known is not None:
        return known[:count]
    same = getattr(source, "size", None)
    if same is not None:
        return np.tile(same, (count, 1))
    sizes = [(source[i]["height"], source[i]["width"]) for i in range(count)]
    return np.array(sizes, np.int64).reshape(-1, 2)
