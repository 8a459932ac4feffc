"""A split's files of records: each one is written by itself, in any process.

A shard is planned as a json file of tasks. Whoever takes it writes the records to a
file that appears whole, and then, as the sign that it is finished, a json file of what
became of the tasks. A plan that is made again keeps the shards that are finished.
"""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore
from tensorflow_datasets.core import example_serializer

from data_prep import hashes
from data_prep.account import Account
from occjax import files
from occjax.data.records import Record, labelled, person_columns, targets

SHARD = 500  # tasks to a file: some 80 MB of photographs

# What is noted about each record of a file: for readers, and for the split's list.
INDEX = ("image_ids", "sizes", "labelled_joints", "targets", "target_joints")
_OF_FILES = ("labelled_persons", "sha256", "names")

# Makes a record of a task, or none, and tells the account why. It is sent to other
# processes, so it is a plain function or a value with `__call__`.
Read = Callable[[Any, Account], Record | None]


class Shard(NamedTuple):
    """One file of records to be written."""

    path: str  # of the file
    tasks: str  # json to read: what to write
    done: str  # json to write: what became of it
    digest: str  # SHA-256 of the tasks and of all settings
    size: int  # how many tasks
    read: Read
    num_joints: int  # J


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


def count(tasks: Sequence[Any]) -> int:
    """How many shards so many tasks make."""
    return -(-len(tasks) // SHARD)


def digest(tasks: Sequence[Any], settings: Mapping[str, Any]) -> str:
    """Fingerprint of all that the files of a split depend on, but the images."""
    return _total(_digest(text) for text in _texts(tasks, settings))


def total(shards: Sequence[Shard]) -> str:
    """The `digest` of the tasks that were planned as these shards."""
    return _total(shard.digest for shard in shards)


def plan(
    stage: pathlib.Path,
    paths: Sequence[str | os.PathLike],
    tasks: Sequence[Any],
    settings: Mapping[str, Any],
    read: Read,
    num_joints: int,
) -> tuple[list[Shard], int]:
    """Lays out a split's work and clears the stage of all but what is finished.

    A finished shard is kept if its tasks and settings are still the same, and if it
    has every image: a missing one may be there now.

    Args:
        stage: folder of unfinished work, on the disk of the paths.
        paths: of the files to write, below the stage, `count(tasks)` of them.
        tasks: what json can hold.
        settings: what else the records depend on; json, too.
        read: makes the records.
        num_joints: J.

    Returns:
        The shards, and how many that an earlier run finished are thrown away.
    """
    shards, kept = [], set()
    thrown_away = 0
    for number, text in enumerate(_texts(tasks, settings)):
        base = stage / f"{number:05d}"
        shard = Shard(
            path=os.fspath(paths[number]),
            tasks=f"{base}.tasks.json",
            done=f"{base}.done.json",
            digest=_digest(text),
            size=len(tasks[number * SHARD : (number + 1) * SHARD]),
            read=read,
            num_joints=num_joints,
        )
        shards.append(shard)
        found = finished(shard)
        if found and not found["account"]["images"]["dropped"]:
            kept |= {shard.path, shard.done}
        else:
            pathlib.Path(shard.tasks).write_bytes(text)
            kept.add(shard.tasks)
    for path in [path for path in stage.rglob("*") if path.is_file()]:
        if os.fspath(path) not in kept:
            thrown_away += path.name.endswith(".done.json")
            path.unlink()
    return shards, thrown_away


def finished(shard: Shard) -> dict[str, Any] | None:
    """What became of a shard's tasks, or None if it is not finished."""
    try:
        facts = json.loads(pathlib.Path(shard.done).read_text())
    except (OSError, ValueError):
        return None
    same = facts["digest"] == shard.digest and os.path.exists(shard.path)
    return facts if same else None


def write(shard: Shard) -> int:
    """Writes a shard, unless it is finished, and returns its number of records."""
    facts = finished(shard)
    if facts is None:
        facts = _write(shard)
    return len(facts["sizes"])


def _write(shard: Shard) -> dict[str, Any]:
    facts: dict[str, Any] = {name: [] for name in (*INDEX, *_OF_FILES)}
    account = Account()
    # Beside the other work, not beside the files: those are published as they are.
    unfinished = f"{shard.done}.{os.getpid()}"
    writer = array_record_module.ArrayRecordWriter(unfinished, "group_size:1")
    for example in _examples(shard, account, facts):
        _put(writer.write, example)
    _put(writer.close)
    os.replace(unfinished, shard.path)
    facts = {"digest": shard.digest, "account": account.facts(), **facts}
    files.write_json(shard.done, facts)
    return facts


def _put(write: Callable, *data: bytes) -> None:
    """Writes to an ArrayRecord file, which tells of a full disk in its own way."""
    try:
        write(*data)
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _examples(shard: Shard, account: Account, facts: dict) -> Iterator[bytes]:
    """The encoded records of a shard; what is told about them goes to `facts`."""
    schema, serializer = _serializer(shard.num_joints)
    for task in json.loads(pathlib.Path(shard.tasks).read_bytes())["tasks"]:
        record = shard.read(task, account)
        if record is None:
            continue
        people = record["persons"]
        cropped = people["joints"][targets(record)]
        account.keep(len(people["id"]))
        facts["image_ids"].append(int(record["image_id"]))
        facts["sizes"].append((int(record["height"]), int(record["width"])))
        facts["labelled_joints"].append(int(np.sum(people["joints"][:, :, 2] > 0)))
        facts["targets"].append(len(cropped))
        facts["target_joints"] += np.sum(cropped[:, :, 2] > 0, axis=1).tolist()
        facts["labelled_persons"].append(int(np.sum(labelled(people))))
        facts["sha256"].append(hashes.of(record["image"]))
        facts["names"].append(record["file_name"])
        example = serializer.get_tf_example(schema.encode_example(record))
        # Otherwise the order of the columns differs from process to process.
        yield example.SerializeToString(deterministic=True)


@functools.cache
def _serializer(num_joints: int) -> tuple[Any, Any]:
    schema = features(num_joints)
    info: Any = schema.get_serialized_info()
    return schema, example_serializer.ExampleSerializer(info)


def _texts(tasks: Sequence[Any], settings: Mapping[str, Any]) -> Iterator[bytes]:
    """Each shard's tasks with all settings, as json."""
    for start in range(0, len(tasks), SHARD):
        content = {"settings": settings, "tasks": tasks[start : start + SHARD]}
        yield json.dumps(content, default=_plain).encode()


def _plain(value: Any) -> Any:
    """Json for NumPy's numbers and arrays."""
    return value.tolist()


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _total(digests: Iterator[str]) -> str:
    return _digest("".join(digests).encode())
