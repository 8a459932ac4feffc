"""Writes a split of a TFDS dataset in ArrayRecord files, whole or not at all.

TFDS's usual builder class needs TensorFlow to sort more than a gigabyte. Its
`ShardBasedBuilder` keeps the order, needs none, and can hand its shards to Apache Beam.
"""

import functools
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters
from tensorflow_datasets.core import writer as tfds_writer

import occjax
from data_prep import hashes, parallel, shards
from data_prep.account import Account
from occjax import files, skeletons
from occjax.data.records import VERSION
from occjax.errors import UserError


class Split(tfds.core.ShardBasedBuilder, skip_registration=True):
    """A split of a dataset as TFDS knows it: its schema and its shards."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, name: str, split: str, stage: pathlib.Path, num_joints: int):
        """Files go below STAGE/NAME/VERSION; people have J joints."""
        # TFDS has one class for each dataset; here one class is all of them.
        self.name = name  # pyright: ignore[reportAttributeAccessIssue]
        self.split, self.stage = split, stage
        self.folder = stage / name / VERSION
        self.shards: list[shards.Shard] = []
        self._num_joints = num_joints
        # TFDS would read what a killed run has left, perhaps half of it.
        (self.folder / "dataset_info.json").unlink(missing_ok=True)
        super().__init__(data_dir=stage, file_format="array_record")

    def plan(
        self, tasks: Sequence[Any], settings: Mapping[str, Any], read: shards.Read
    ) -> None:
        """Lays out the shards, and tells how much of an earlier run is of use."""
        self.folder.mkdir(parents=True, exist_ok=True)
        template = self._get_filename_template(self.split)
        self.shards, lost = shards.plan(
            self.stage,
            template.sharded_filepaths(shards.count(tasks)),
            tasks,
            settings,
            read,
            self._num_joints,
        )
        kept = sum(shards.finished(shard) is not None for shard in self.shards)
        if kept:
            print(f"goes on: {kept} of {len(self.shards)} files are finished")
        if lost:
            print(
                f"begins anew with {lost} files of an earlier run, which had other "
                "input or lacked images"
            )

    def generate(self, workers: int, beam_runner: str | None, options: Any) -> None:
        """Writes the shards that are not finished, and TFDS's index of all.

        `download_and_prepare` would do it in a folder that it throws away when it
        fails, so that a killed run had to begin anew.
        """
        config: Any = tfds.download.DownloadConfig()
        if beam_runner:
            config.beam_runner, config.beam_options = beam_runner, options
        else:
            parallel.run(self.shards, workers, self.name)
        self._download_and_prepare(None, config)  # pyright: ignore[reportArgumentType]
        for path in self.folder.glob("*.shard_infos.json"):
            path.unlink()  # what Beam's workers told TFDS
        self.info.write_to_directory(os.fspath(self.folder))

    def _info(self) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            features=shards.features(self._num_joints),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable]]:
        made = [functools.partial(_written, shard) for shard in self.shards]
        return {self.split: made}

    def _example_writer(self) -> tfds_writer.ExampleWriter:
        return _Nothing(file_adapters.FileFormat.ARRAY_RECORD)


class _Info(tfds.core.DatasetInfo):
    """What TFDS tells of a dataset that Google has no copy of."""

    def initialize_from_bucket(self) -> None:
        """Asks no server, and leaves no temporary folder behind, as TFDS would."""


class _Nothing(tfds_writer.ExampleWriter):
    """Writes nothing: shards write themselves, so that they are whole or not there."""

    def write(self, path: Any, examples: Any) -> None:
        """Leaves the examples alone."""


def _written(shard: shards.Shard) -> Iterator[tuple[int, None]]:
    """Writes a shard; TFDS counts what comes out and never looks at it."""
    for index in range(shards.write(shard)):
        yield index, None


class Content(NamedTuple):
    """What a split is made of."""

    tasks: Sequence[Any]  # one for each image, as json can hold it
    read: shards.Read  # makes the record of a task; its image is encoded bytes
    account: Account  # what came in, and what was left out before the tasks
    skeleton: skeletons.Skeleton  # J joints of all splits
    facts: Mapping[str, Any]  # kept with the split: `annotations`, `licence` and so on
    settings: Mapping[str, Any]  # what else `read` depends on, as json can hold it


def write(
    out: str | os.PathLike,
    name: str,
    split: str,
    content: Content,
    *,
    workers: int = 0,
    beam_runner: str | None = None,
    beam_options: Sequence[str] = (),
) -> Account:
    """Writes a split of the dataset OUT/NAME and prints what became of the input.

    The split grows in a folder of its own. A run that was killed goes on where it was
    when it is started again. The files do not depend on who writes them.

    Args:
        out: folder of all datasets.
        name: of the dataset, lower case with underscores; it may have other splits.
        split: name of the split.
        content: to write.
        workers: processes to write with; 0 and 1 mean this one.
        beam_runner: of Apache Beam, which then writes instead, such as "DirectRunner".
        beam_options: of Apache Beam, each KEY=VALUE.

    Returns:
        The account of the whole split.

    Raises:
        UserError: the split is there with other input, the dataset has another
            skeleton, the account does not balance, or the folder cannot be written.
    """
    _check_names(name, split)
    if not content.tasks:
        _check_account(content.account, content)
    options = parallel.beam_options(beam_options) if beam_runner else None
    path = pathlib.Path(out) / name / VERSION
    stage = path.with_name(f"incomplete.{split}")
    settings = {
        **content.settings,
        **content.facts,
        "skeleton": content.skeleton.name,
        "versions": [occjax.__version__, VERSION, tfds.__version__],
    }
    try:
        known = _known(path, split, content.skeleton)
        if known is None:
            builder = Split(name, split, stage, content.skeleton.num_joints)
            builder.plan(content.tasks, settings, content.read)
            builder.generate(workers, beam_runner, options)
            known = _describe(builder, content)
            _publish(builder.folder, path)
        else:
            _check_same(known, shards.digest(content.tasks, settings), path, split)
        shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{path.parent} cannot be written: {error}") from error
    total = Account()
    total.merge(known)
    print(f"{path}, split {split}\n{total.table()}")
    return total


def _check_names(name: str, split: str) -> None:
    """Refuses names that TFDS would not find again."""
    if not re.fullmatch(r"[a-zA-Z]\w*", name, re.ASCII):
        raise UserError(f"--name: {name!r} is no word of letters, digits, underscores.")
    if not re.fullmatch(r"\w+", split, re.ASCII) or split == "all":
        raise UserError(f"--split: {split!r} is no name for a split.")


def _known(
    path: pathlib.Path, split: str, skeleton: skeletons.Skeleton
) -> dict[str, Any] | None:
    """What is noted about a split that is there; refuses to mix skeletons."""
    if not (path / "metadata.json").exists():
        return None
    known = json.loads((path / "metadata.json").read_text())
    if known["skeleton"] != skeleton.name:
        raise UserError(
            f"{path} has {known['skeleton']} joints, the new split {skeleton.name}."
        )
    return known["splits"].get(split)


def _check_same(
    known: dict[str, Any], digest: str, path: pathlib.Path, split: str
) -> None:
    """Refuses to replace a split by one that is made of something else."""
    if known.get("digest") != digest:
        raise UserError(
            f"{path} has a split {split!r} already, of other input; remove the folder "
            "or choose another --name or --split."
        )
    print("there is nothing to do")


def _check_account(account: Account, content: Content) -> None:
    """Makes sure that nothing was lost, and names the file where it was."""
    try:
        account.check()
    except UserError as error:
        where = content.facts.get("annotations")
        raise UserError(f"{where}: {error}" if where else str(error)) from error


def _describe(builder: Split, content: Content) -> dict[str, Any]:
    """Notes beside the shards what a reader wants to know early, and returns it."""
    done = [shards.finished(shard) or {} for shard in builder.shards]
    total = Account()
    for part in (content.account.facts(), *(one["account"] for one in done)):
        total.merge(part)
    try:
        _check_account(total, content)
    except UserError:
        shutil.rmtree(builder.stage)  # there is nothing to go on with
        raise

    def joined(key: str) -> list:
        return [value for one in done for value in one[key]]

    notes = {
        **content.facts,
        **total.facts(),
        "digest": shards.total(builder.shards),
        **{key: joined(key) for key in shards.INDEX},
        "max_persons": max(joined("labelled_persons")),
    }
    folder = builder.folder
    listed = hashes.text(joined("sha256"), joined("names"))
    listing = folder / hashes.file_name(builder.name, builder.split)
    listing.write_text(listed, "utf-8")
    metadata = {"skeleton": content.skeleton.name, "splits": {builder.split: notes}}
    files.write_json(folder / "metadata.json", metadata)
    return notes


def _publish(stage: pathlib.Path, path: pathlib.Path) -> None:
    """Moves a finished split to its place, alone or beside others.

    Readers go by metadata.json, which changes last and at once.
    """
    if not (path / "metadata.json").exists():
        shutil.rmtree(path, ignore_errors=True)
        os.rename(stage, path)
        return
    described = ("dataset_info.json", "metadata.json")
    for part in described:
        _merge_json(path / part, stage / part)
    for file in stage.iterdir():
        if file.name not in described:
            os.replace(file, path / file.name)
    for part in described:
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
