"""Which views a config asks for, of whole images or of people, to train or to test.

`data.view` is "image" (also where it is missing); "person", an example is a crop of one
person; or "people", an example has the crops of all people of an image. All take
`size`, one side of a square training view or, for crops, (height, width);
`max_persons`; `augment`, the settings of `augment.TrainView` or `crop.TrainCrop` and
`colour`, the strength of `augment.Colour`. Crops take besides

    padding         of the box, one number or width and height
    clip_boxes      true unless boxes are squares about a centre, as MPII's and LSP's
    detections      file of boxes to test on instead of the annotated ones
    proposals       file of poses: training sees those that show labelled people, as
                    `Inputs.start_pose`
    proposal_oks, proposal_joints    limits of `proposals.Proposed`
    eval_proposals  file of poses to test on, each as `Inputs.start_pose` of its box
    least_people    of a view of people: how many an image needs to be trained on

`config.occlusion`, which the commands hand in with the data, lists what
`occlude.build` takes; a view of people takes none.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from occjax.data import augment, crop, group, occlude, people, proposals, results, warp
from occjax.data.records import Record
from occjax.data.settings import construct
from occjax.data.sources import Source
from occjax.errors import UserError
from occjax.types import WIDEST_CROP, Batch

VIEWS = ("image", "person", "people")
Placed = augment.Placed | group.Placed


class TrainingView(Protocol):
    """Random views of records: `augment.TrainView`, or one of crops."""

    @property
    def canvas(self) -> tuple[int, ...]:
        """Height and width of an input, after P where it has so many crops."""
        ...

    def random_map(self, record: Record, rng: np.random.Generator) -> Any:
        """Draws where to look in a record: `Placed`."""
        ...

    def view(self, placed: Any, out: np.ndarray | None = None) -> Batch:
        """The example at a given place: a Batch without the axis B."""
        ...


class Training(NamedTuple):
    """What training draws its examples from."""

    source: Source  # of images, of people, or of images with their people
    view: TrainingView
    effects: tuple[
        occlude.Occlusion, ...
    ]  # transforms of finished views, in this order


class Testing(NamedTuple):
    """What testing looks at."""

    source: Source  # of images, of boxes, or of images with their boxes
    view: augment.TestView | crop.TestCrop | group.TestGroup
    canvases: list[tuple[int, int]]  # height and width of each input


def of_people(data: Mapping[str, Any]) -> bool:
    """Whether examples are crops of people rather than whole images.

    Raises:
        UserError: there is no such view.
    """
    return _view(data) != "image"


def of_annotated_people(data: Mapping[str, Any]) -> bool:
    """Whether testing crops each annotated person, in the order of the labels."""
    files = data.get("detections") or data.get("eval_proposals")
    return of_people(data) and not files


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
    if of_people(data):
        return _training_crops(source, data, options, effects)
    if source.max_persons > data["max_persons"]:
        raise UserError(
            f"{source.name} has images with {source.max_persons} labelled people, "
            f"data.max_persons is {data['max_persons']}."
        )
    view = construct(
        augment.TrainView,
        "data.augment",
        options,
        size=int(data["size"]),
        max_persons=int(data["max_persons"]),
        skeleton=source.skeleton,
    )
    return Training(source, view, effects)


def testing(
    source: Source, data: Mapping[str, Any], scales: Sequence[float], labels: bool
) -> Testing:
    """The test views of a config.

    Args:
        source: of images.
        data: `config.data`; with `eval_images`, of the first so many only (0 all).
        scales: of a multi-scale test, 1 among them; a view of people has no other.
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
        return _testing_crops(source, data, images, persons, others)
    size = int(data["size"])
    multiple = warp.multiple_for(size, scales)
    view = augment.TestView(size, multiple, source.skeleton, others, persons)
    sizes = _sizes(source, images)
    canvases = [warp.test_canvas(h, w, view.size, view.multiple) for h, w in sizes]
    return Testing(source, view, canvases)


def _view(data: Mapping[str, Any]) -> str:
    """Which of the views."""
    view = data.get("view", "image")
    if view not in VIEWS:
        raise UserError(f"data.view: expected one of {', '.join(VIEWS)}; got {view!r}.")
    return view


def _training_crops(
    source: Source,
    data: Mapping[str, Any],
    options: Mapping[str, Any],
    effects: tuple[occlude.Occlusion, ...],
) -> Training:
    """Views of a person or of the people of an image, with settings of `TrainCrop`."""
    persons, grouped = int(data["max_persons"]), _view(data) == "people"
    if grouped and data.get("occlusion"):
        raise UserError("occlusion: a view of people (data.view) takes none.")
    view = construct(
        crop.TrainCrop,
        "data.augment",
        options,
        max_persons=1 if grouped else persons,
        skeleton=source.skeleton,
        **_geometry(data),
    )
    found = _people(source, data)
    if not grouped:
        return Training(found, view, effects)
    images = group.Grouped(found, int(data.get("least_people", 1)))
    images.warn_of_crowds(persons)
    return Training(images, group.TrainGroup(view, persons), effects)


def _people(source: Source, data: Mapping[str, Any]) -> people.People:
    """Whom to crop in training."""
    if not data.get("proposals"):
        return people.Annotated(source, clip=bool(data.get("clip_boxes", True)))
    names = {"oks": "proposal_oks", "joints": "proposal_joints"}
    limits = {key: data[name] for key, name in names.items() if name in data}
    return proposals.Proposed(source, data["proposals"], **limits)


def _testing_crops(
    source: Source,
    data: Mapping[str, Any],
    images: int,
    labelled: int,
    scales: tuple[float, ...],
) -> Testing:
    """Views of a box or of the boxes of an image, with labels of so many people."""
    grouped, found = _view(data) == "people", _boxes(source, data, images)
    if grouped and scales:
        raise UserError(f"a view of people is tested at scale 1, not {scales}.")
    if any(scale > WIDEST_CROP for scale in scales):
        raise UserError(
            f"person crops are tested at scales up to {WIDEST_CROP}, not {scales}."
        )
    view = crop.TestCrop(
        scales=scales,
        skeleton=source.skeleton,
        max_persons=min(labelled, 1) if grouped else labelled,
        **_geometry(data),
    )
    if not grouped:
        return Testing(found, view, [view.size] * len(found))
    groups = group.Grouped(found)
    groups.check_room(int(data["max_persons"]))
    several = group.TestGroup(view, int(data["max_persons"]))
    return Testing(groups, several, [view.size] * len(groups))


def _boxes(source: Source, data: Mapping[str, Any], images: int) -> people.People:
    """What to crop in the first so many images, 0 for all."""
    given = getattr(source, "boxes", None)
    if given is not None:
        return people.Detected(source, given)
    boxes, poses = data.get("detections"), data.get("eval_proposals")
    if data.get("proposals") and not poses:
        raise UserError("data.eval_proposals: expected a file, as data.proposals is.")
    if boxes and poses:
        raise UserError("data.detections and data.eval_proposals: expected only one.")
    if poses:
        found, _ = results.read(
            poses, "data.eval_proposals", source, images, poses=True
        )
        return people.Detected(source, found)
    if boxes:
        found, _ = results.read(boxes, "data.detections", source, images)
        return people.Detected(source, found)
    return people.Annotated(source, images, bool(data.get("clip_boxes", True)))


def _geometry(data: Mapping[str, Any]) -> dict[str, Any]:
    """Size and padding of person crops."""
    size, padding = data["size"], data.get("padding", 1.25)
    if isinstance(size, int) or len(size) != 2 or any(side % 32 for side in size):
        raise UserError(
            "data.size of a view of crops: expected (height, width), multiples of 32; "
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
