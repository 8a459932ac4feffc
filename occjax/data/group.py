"""All people of an image at once: a crop of each, in one example.

Such an example's arrays have the people as their second axis, P of them; rows without
a person are black and have no area. Its record is the image's, and has besides

    people  [p] what `people.People.person` says of each, at least one
"""

import collections
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from occjax.data import augment, crop, records, results, stacking
from occjax.data.people import People
from occjax.errors import UserError
from occjax.types import Batch


class Grouped:
    """Images with the people of a source of people, in the order of both.

    Attributes:
        name, skeleton, max_persons: of the images' source.
        dropped: how many images were left out, by reason.
    """

    def __init__(self, people: People, least: int = 1):
        """Groups the people by image.

        Args:
            people: who can be cropped.
            least: how many of them an image needs to be taken.

        Raises:
            UserError: no image has so many.
        """
        self.name, self.skeleton = people.name, people.skeleton
        self.max_persons = people.max_persons
        self._people = people
        images, image_of, counts = np.unique(
            people.images, return_inverse=True, return_counts=True
        )
        order = np.argsort(image_of, kind="stable")
        groups = np.split(order, np.cumsum(counts)[:-1])
        chosen = np.flatnonzero(counts >= least)
        if not len(chosen):
            raise UserError(f"{self.name}: no image has {least} people to crop.")
        self.images, self.counts = images[chosen], counts[chosen]
        self._groups = [groups[i] for i in chosen]
        few = f"images with fewer than {least} people"
        self.dropped = collections.Counter({few: len(counts) - len(chosen)})
        results.warn(self.name, self.dropped)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._groups)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record of an image."""
        record = self._people.source[int(self.images[index])]
        everyone = [self._people.person(record, i) for i in self._groups[index]]
        return {**record, "people": everyone}

    @property
    def labelled_joints(self) -> np.ndarray:
        """How many joints of each image's people are labelled."""
        counts = self._people.labelled_joints
        return np.array([counts[group].sum() for group in self._groups])

    def check_room(self, persons: int) -> None:
        """Sees that no image has more than so many people.

        Raises:
            UserError: naming the first that has.
        """
        for index in np.flatnonzero(self.counts > persons)[:1]:
            record = self._people.source[int(self.images[index])]
            raise UserError(
                f"{records.describe(record)} has {self.counts[index]} boxes to crop, "
                f"data.max_persons is {persons}; raise it."
            )

    def warn_of_crowds(self, persons: int) -> None:
        """Logs how many people find no room where so many are drawn of an image."""
        over = np.maximum(self.counts - persons, 0)
        if over.any():
            reason = f"people of {np.sum(over > 0)} images, drawn anew each time"
            results.warn(self.name, collections.Counter({reason: int(over.sum())}))


class Placed(NamedTuple):
    """Where to look in a record, once for each person."""

    places: list[augment.Placed]
    seed: int  # of what happens to the view afterwards


@dataclasses.dataclass(frozen=True)
class TrainGroup:
    """Random crops of the people of an image in random order, all turned alike.

    One draw of scale, rotation and mirroring is for all: people who are close stay
    comparable. Of more than P people P are drawn, so that nobody is left out for good;
    choosing by labelled joints would leave out the occluded.

    Attributes:
        single: crop of one person, with `max_persons` 1.
        max_persons: P.
    """

    single: crop.TrainCrop
    max_persons: int

    @property
    def canvas(self) -> tuple[int, int, int]:
        """P, and height and width of each crop."""
        return self.max_persons, *self.single.size

    def random_map(self, record: records.Record, rng: np.random.Generator) -> Placed:
        """Draws whom to look at in a record, and where."""
        order = rng.permutation(len(record["people"]))[: self.max_persons]
        turn = self.single.turn(rng)
        places = []
        for number in order:
            person = {**record, **record["people"][number]}
            places.append(
                self.single.place(person, self.single.window(person, rng), turn)
            )
        return Placed(places, augment.draw_seed(rng))

    def view(self, placed: Placed, out: np.ndarray | None = None) -> Batch:
        """The example at a given place: a Batch without the axis B.

        Args:
            placed: from `random_map`.
            out: [P, H, W, 3] uint8 to put the images into.

        Raises:
            UserError: the image cannot be read.
        """
        places = placed.places
        images = np.empty((*self.canvas, 3), np.uint8) if out is None else out
        images[len(places) :] = 0
        image = records.pixels(places[0].record)  # decoded once for all
        crops = [
            self.single.view(
                place._replace(record={**place.record, "image": image}), row
            )
            for place, row in zip(places, images, strict=False)
        ]
        whole = stacking.around(images, _padded(crops, self.max_persons))
        return _example(whole, places[0].record)


@dataclasses.dataclass(frozen=True)
class TestGroup:
    """The crops of the people of an image as they are, in their order, for testing.

    Attributes:
        single: crop of one person, with `max_persons` 1, or 0 to leave labels out.
        max_persons: P, no fewer than people of any image.
    """

    __test__ = False  # not a test of pytest

    single: crop.TestCrop
    max_persons: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of each crop."""
        return self.single.size

    def map(self, record: records.Record) -> Batch:
        """One test example: a Batch without the axis B.

        Raises:
            UserError: as `crop.TestCrop.map`.
        """
        record = {**record, "image": records.pixels(record)}
        crops = [self.single.map({**record, **person}) for person in record["people"]]
        return _example(stacking.stack(_padded(crops, self.max_persons)), record)


def _padded(crops: list[Batch], persons: int) -> list[Batch]:
    """The crops, and blank ones up to P."""
    return crops + [stacking.blank(crops[0])] * (persons - len(crops))


def _example(people: Batch, record: records.Record) -> Batch:
    """An example out of stacked crops, each of whose labels are of one person."""
    inputs, truth = people.inputs, people.labels
    if inputs.start_pose is not None:
        inputs = inputs._replace(start_pose=inputs.start_pose[:, 0])
    if truth is not None:
        truth = truth._replace(
            joints=truth.joints[:, 0],
            visibility=truth.visibility[:, 0],
            area=truth.area[:, 0],
            head_size=truth.head_size[:, 0],
            oks_area=None if truth.oks_area is None else truth.oks_area[:, 0],
        )
    return Batch(inputs, truth, np.int64(record["image_id"]))
