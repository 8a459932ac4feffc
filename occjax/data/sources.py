"""Random access to records: the built-in crowd, and datasets on disk."""

import json
import os
import threading
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from etils import epath

from occjax import skeletons
from occjax.data.records import VERSION, Record, person_columns
from occjax.errors import UserError


class Source(Protocol):
    """Records by index, the same ones every time.

    A source may know more without reading records: `sizes` [N, 2], height and width
    of every image (or `size`, if all are equal), `labelled_joints` and `image_ids` [N],
    `targets` [N], how many people of an image can be cropped, and `target_joints`, the
    labelled joints of each of these, image after image. One without labels may have
    `boxes`, a list of `results.Result`: whom to crop.
    """

    @property
    def name(self) -> str:
        """Of the dataset."""
        ...

    @property
    def skeleton(self) -> skeletons.Skeleton:
        """The J joints of its people."""
        ...

    @property
    def max_persons(self) -> int:
        """Most labelled people in one image."""
        ...

    def __len__(self) -> int:
        """How many records there are."""
        ...

    def __getitem__(self, index: int) -> Record:
        """The record at an index below the length."""
        ...


# The file that the builder of each dataset reads for a split, and how: PINet trains on
# OCHuman's validation file and on CrowdPose's training and validation files together.
_ANNOTATIONS = {
    ("coco", "train"): "person_keypoints_train2017.json",
    ("coco", "val"): "person_keypoints_val2017.json",
    ("crowdpose", "train"): "crowdpose_trainval.json",
    ("crowdpose", "test"): "crowdpose_test.json",
    ("ochuman", "train"): "ochuman_coco_format_val_range_0.00_1.00.json",
    ("ochuman", "test"): "ochuman_coco_format_test_range_0.00_1.00.json",
    ("ocpose", "train"): "annot_all.json --list train_list.txt",
    ("ocpose", "test"): "annot_all.json --list test_list.txt",
    ("mpii", "train"): "mpii_human_pose_v1_u12_1.mat --part train",
    ("mpii", "val"): "mpii_annotations.json --part val",
    ("lsp", "train"): "joints.mat --part train",
    ("lsp", "test"): "joints.mat --part test",
}
_SKELETONS = {
    "coco": skeletons.COCO,
    "crowdpose": skeletons.CROWDPOSE,
    "ochuman": skeletons.COCO,
    "ocpose": skeletons.OCPOSE,
    "mpii": skeletons.MPII,
    "lsp": skeletons.LSP,
}


def load(data: Mapping[str, Any], split: str) -> Source:
    """Opens the records of a split.

    Args:
        data: `config.data`. `dataset` names the built-in "crowd", whose options stand
            in `crowd` (those of `Crowd`, and `test_scenes`, the number of scenes of
            the split "test"), or a dataset that data_prep has written below `dir`.
            With `cache`, records are kept in memory once read.
        split: name of the split; the built-in crowd has "train" and "test".

    Raises:
        UserError: the dataset or split is not there, with the command to prepare it.
    """
    if data["dataset"] == "crowd":
        source = _crowd(data.get("crowd", {}), split)
    else:
        source = Prepared(data["dir"], data["dataset"], split)
    return Cached(source) if data.get("cache", False) else source


def load_test(data: Mapping[str, Any], split: str | None = None) -> Source:
    """Opens what a run is tested on.

    Args:
        data: `config.data`. `eval_dataset`, if it is there, names another dataset of
            the same joints than the one trained on; `eval_split` the split.
        split: to take instead.

    Raises:
        UserError: as `load`, or the joints are others.
    """
    name = data.get("eval_dataset") or data["dataset"]
    source = load({**data, "dataset": name}, split or data["eval_split"])
    trained_on = skeleton_of(data)
    if source.skeleton != trained_on:
        raise UserError(
            f"data.eval_dataset: expected the joints of {trained_on.name}, "
            f"{name} has those of {source.skeleton.name}."
        )
    return source


def skeleton_of(data: Mapping[str, Any]) -> skeletons.Skeleton:
    """The joints of a dataset, which need not be there if a shipped config names it.

    Args:
        data: `config.data`.

    Raises:
        UserError: the dataset is not there and its name tells nothing.
    """
    name = data["dataset"]
    if name == "crowd":
        return skeletons.BY_NAME[data.get("crowd", {}).get("skeleton", "coco")]
    if name in _SKELETONS:
        return _SKELETONS[name]
    return Prepared(data["dir"], name, data["split"]).skeleton


def _crowd(options: Mapping[str, Any], split: str) -> Source:
    from occjax.data.crowd import Crowd

    if split not in ("train", "test"):
        raise UserError(f"the built-in crowd has no split {split!r}, only train, test.")
    chosen = dict(options)
    test_scenes = chosen.pop("test_scenes", 300)
    # Even seeds train and odd ones test, so that no two runs mix them up either.
    chosen["seed"] = 2 * chosen.get("seed", 0) + (split == "test")
    if split == "test":
        chosen["num_scenes"] = test_scenes
    return Crowd(**chosen)


class Prepared:
    """A split of a dataset that data_prep has written, opened when first read.

    Attributes:
        facts: what the builder noted about the split.
        sizes: [N, 2] height and width of every image.
        labelled_joints: [N] how many joints of its people are labelled.
        image_ids, targets, target_joints: see `Source`; missing where the dataset was
            prepared before they were noted.
    """

    def __init__(self, folder: str, name: str, split: str):
        """Reads the dataset's facts, no image.

        Raises:
            UserError: there is no such dataset or split, or its facts are damaged.
        """
        self.name, self.split = name, split
        self.path = epath.Path(folder) / name / VERSION
        facts = self._facts()
        self.facts = facts["splits"][split]
        self.skeleton = skeletons.BY_NAME[facts["skeleton"]]
        self.max_persons = int(self.facts["max_persons"])
        self.sizes = np.array(self.facts["sizes"], np.int64).reshape(-1, 2)
        self.labelled_joints = np.array(self.facts["labelled_joints"])
        for name in ("image_ids", "targets", "target_joints"):
            if name in self.facts:
                setattr(self, name, np.array(self.facts[name], np.int64))
        self._records: Any = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many images the split has."""
        return len(self.sizes)

    def __getitem__(self, index: int) -> Record:
        """Reads one record; its image stays encoded.

        Raises:
            UserError: the file that holds the record is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: no record {index} of {len(self)}.")
        try:
            record = self._open()[index]
        except (RuntimeError, ValueError, OSError, IndexError) as error:
            raise UserError(
                f"{self._file(index)} is damaged, record {index} of split "
                f"{self.split} cannot be read ({str(error).splitlines()[0]}); "
                f"prepare {self.name} again."
            ) from error

        columns = person_columns(self.skeleton.num_joints)
        count = len(record["persons"]["id"])
        persons = {
            name: np.asarray(record["persons"][name], dtype).reshape(count, *shape)
            for name, (dtype, shape) in columns.items()
        }
        name = record["file_name"].decode()  # TFDS gives text as bytes
        return {**record, "file_name": name, "persons": persons}

    def __getstate__(self) -> dict:
        """Leaves open files and the lock behind, so that a source can be sent away."""
        return {**self.__dict__, "_records": None, "_lock": None}

    def __setstate__(self, state: dict) -> None:
        """Takes over all but the open files."""
        self.__dict__.update(state, _lock=threading.Lock())

    def _open(self) -> Any:
        with self._lock:
            if self._records is None:
                import tensorflow_datasets as tfds

                builder: Any = tfds.builder_from_directory(os.fspath(self.path))
                self._records = builder.as_data_source(
                    self.split, decoders={"image": tfds.decode.SkipDecoding()}
                )
        return self._records

    def _file(self, index: int) -> epath.Path:
        """The file that holds a record."""
        splits = json.loads((self.path / "dataset_info.json").read_text())["splits"]
        lengths = [s["shardLengths"] for s in splits if s["name"] == self.split][0]
        shard = np.searchsorted(np.cumsum([int(n) for n in lengths]), index, "right")
        file = f"{self.name}-{self.split}.array_record-{shard:05d}"
        return self.path / f"{file}-of-{len(lengths):05d}"

    def _facts(self) -> dict:
        """What the builder noted about the dataset."""
        if not (self.path / "dataset_info.json").exists():
            raise UserError(
                f"{self.path.parent} is not there; prepare it with: {self._command()}"
            )
        facts = {}
        for file in ("features.json", "dataset_info.json", "metadata.json"):
            try:
                facts = json.loads((self.path / file).read_text())
            except (OSError, ValueError) as error:
                raise UserError(
                    f"{self.path / file} is damaged ({error}); "
                    f"prepare {self.name} again."
                ) from error
        if self.split not in facts["splits"]:
            raise UserError(
                f"{self.path.parent} has no split {self.split!r}, only "
                f"{', '.join(facts['splits'])}; prepare it with: {self._command()}"
            )
        return facts

    def _command(self) -> str:
        file = _ANNOTATIONS.get((self.name, self.split), "ANNOTATIONS")
        known = self.name in _SKELETONS
        builder = self.name if known else f"coco --name {self.name}"
        return (
            f"python -m data_prep.{builder} --split {self.split} --images IMAGES "
            f"--annotations {file} --out {self.path.parent.parent}"
        )


class Cached:
    """Keeps every record in memory once it was read; threads share it."""

    def __init__(self, source: Source):
        """Wraps a source."""
        self._source = source
        self._kept: dict[int, Record] = {}
        self.name, self.skeleton = source.name, source.skeleton
        self.max_persons = source.max_persons

    def __getattr__(self, name: str) -> Any:
        """What else the wrapped source knows."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._source, name)

    def __len__(self) -> int:
        """How many records there are."""
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        """The record, read at most once but for races, which give equal records."""
        record = self._kept.get(index)
        if record is None:
            record = self._kept[index] = self._source[index]
        return record

    def __getstate__(self) -> dict:
        """Sends the source away without what is in memory."""
        return {**self.__dict__, "_kept": {}}
