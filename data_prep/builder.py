"""Writes records as a split of a TFDS dataset in ArrayRecord files.

The TFDS builder class needs TensorFlow to sort more than a gigabyte. Its sequential
writer does not, keeps the order of the records, and holds one shard's worth at most.
"""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm
from tensorflow_datasets.core.dataset_info import DatasetIdentity

from data_prep.account import Account
from occjax import skeletons
from occjax.data.records import VERSION, Record, labelled, person_columns, targets
from occjax.errors import UserError

SHARD = 1000  # records to a file: some 150 MB of photographs
_CHUNK = 64  # records to an update of the writer's notes


def features(num_joints: int) -> tfds.features.FeaturesDict:
    """The schema of `occjax.data.records` for J joints."""
    person = {
        name: tfds.features.Tensor(shape=shape, dtype=dtype)
        for name, (dtype, shape) in person_columns(num_joints).items()
    }
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),  # bytes go through as they are
            "image_id": np.int64,
            "file_name": tfds.features.Text(),
            "height": np.int32,
            "width": np.int32,
            "crowd_index": np.float32,
            "persons": tfds.features.Sequence(person),
        }
    )


def write(
    out: str | os.PathLike,
    name: str,
    split: str,
    records: Iterable[Record],
    account: Account,
    *,
    skeleton: skeletons.Skeleton,
    facts: Mapping[str, Any],
    total: int | None = None,
) -> pathlib.Path:
    """Writes a split of the dataset OUT/NAME and prints what became of the input.

    The split is there as a whole or not at all: it grows in a folder of its own, which
    a failed run takes away and a killed one leaves to be replaced by the next.

    Args:
        out: folder of all datasets.
        name: of the dataset, lower case with underscores; it may have other splits.
        split: name of the split.
        records: with images as encoded bytes.
        account: what `records` says about its input while it is read.
        skeleton: J joints of all splits.
        facts: about the split, kept with it: `annotations`, `licence` and so on.
        total: how many records to expect, for the progress bar.

    Returns:
        The folder of the dataset, OUT/NAME/VERSION.

    Raises:
        UserError: the split is there already, the dataset has another skeleton, the
            account does not balance, or the folder cannot be written.
    """
    folder = pathlib.Path(out) / name
    _check_new(folder / VERSION, split, skeleton)
    with _staging(folder, split) as stage:
        index = _write_records(stage, name, split, records, account, skeleton, total)
        account.check()
        notes = {**facts, **account.facts(), **index}
        metadata = {"skeleton": skeleton.name, "splits": {split: notes}}
        (stage / "metadata.json").write_text(json.dumps(metadata))
        _publish(stage, folder / VERSION)
    print(f"{folder / VERSION}, split {split}\n{account.table()}")
    return folder / VERSION


def _write_records(
    stage: pathlib.Path,
    name: str,
    split: str,
    records: Iterable[Record],
    account: Account,
    skeleton: skeletons.Skeleton,
    total: int | None,
) -> dict:
    """Writes all records below `stage`; returns what a reader wants to know early."""
    identity = DatasetIdentity(
        name=name,
        version=tfds.core.Version(VERSION),
        data_dir=os.fspath(stage),
        module_name=__name__,
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=features(skeleton.num_joints),
        disable_shuffling=True,
    )
    writer = tfds.core.SequentialWriter(info, SHARD, file_format="array_record")
    writer.initialize_splits([split])
    sizes, joints, people = [], [], [0]
    crops: dict[str, list[int]] = {"image_ids": [], "targets": [], "target_joints": []}
    pending = []
    # Without a terminal the bar would be noise in a log.
    for record in tqdm.tqdm(records, name, total, unit=" images", disable=None):
        persons = record["persons"]
        pending.append(record)
        account.keep(len(persons["id"]))
        sizes.append((int(record["height"]), int(record["width"])))
        joints.append(int(np.sum(persons["joints"][:, :, 2] > 0)))
        people.append(int(np.sum(labelled(persons))))
        chosen = persons["joints"][targets(record)]
        crops["image_ids"].append(int(record["image_id"]))
        crops["targets"].append(len(chosen))
        crops["target_joints"] += np.sum(chosen[:, :, 2] > 0, axis=1).tolist()
        if len(pending) == _CHUNK:
            writer.add_examples({split: pending})
            pending = []
    writer.add_examples({split: pending})
    writer.close_all()
    index = {"sizes": sizes, "labelled_joints": joints, "max_persons": max(people)}
    return index | crops


@contextlib.contextmanager
def _staging(folder: pathlib.Path, split: str) -> Iterator[pathlib.Path]:
    """A fresh folder to write into, gone afterwards."""
    stage = folder / f"incomplete.{split}"
    try:
        shutil.rmtree(stage, ignore_errors=True)  # of a run that was killed
        stage.mkdir(parents=True)
        yield stage
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _check_new(path: pathlib.Path, split: str, skeleton: skeletons.Skeleton) -> None:
    """Refuses to replace a split or to mix skeletons."""
    if not (path / "metadata.json").exists():
        return
    known = json.loads((path / "metadata.json").read_text())
    if split in known["splits"]:
        raise UserError(
            f"{path} has a split {split!r} already; remove the folder or choose "
            "another --name or --split."
        )
    if known["skeleton"] != skeleton.name:
        raise UserError(
            f"{path} has {known['skeleton']} joints, the new split {skeleton.name}."
        )


def _publish(stage: pathlib.Path, path: pathlib.Path) -> None:
    """Moves a finished split to its place, alone or beside others.

    Readers go by metadata.json, which changes last and at once.
    """
    if not (path / "metadata.json").exists():
        shutil.rmtree(path, ignore_errors=True)
        stage.rename(path)
        return
    for part in ("dataset_info.json", "metadata.json"):
        _merge_json(path / part, stage / part)
    for shard in stage.glob("*.array_record*"):
        shard.rename(path / shard.name)
    for part in ("dataset_info.json", "metadata.json"):
        os.replace(stage / part, path / part)


def _merge_json(old: pathlib.Path, new: pathlib.Path) -> None:
    """Adds the splits of the old file to those of the new one."""
    before, after = json.loads(old.read_text()), json.loads(new.read_text())
    if isinstance(after["splits"], dict):
        after["splits"] = {**before["splits"], **after["splits"]}
    else:
        fresh = {split["name"] for split in after["splits"]}
        kept = [split for split in before["splits"] if split["name"] not in fresh]
        after["splits"] = kept + after["splits"]
    new.write_text(json.dumps(after))
