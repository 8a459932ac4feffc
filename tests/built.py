"""Records that a builder wrote, for comparison with the file it read."""

import json

from data_prep import downloads
from occjax.data import sources


def build(folder, images, download):
    """Writes a split; returns its account and its source."""
    account = downloads.prepare(folder / "datasets", "built", "some", images, download)
    data = {"dataset": "built", "dir": str(folder / "datasets")}
    return account, sources.load(data, "some")


def people_of(source) -> dict:
    """Each person's columns by the person's id."""
    found = {}
    for index in range(len(source)):
        people = source[index]["persons"]
        for row, number in enumerate(people["id"]):
            found[int(number)] = {name: column[row] for name, column in people.items()}
    return found


def facts_of(source) -> dict:
    """What is stored about the split."""
    return json.loads((source.path / "metadata.json").read_text())["splits"]["some"]
