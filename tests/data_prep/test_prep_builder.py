import json
import os
import shutil
import signal
import subprocess

import cv2
import numpy as np
import pytest
import scenes

from data_prep import builder, crowd, shards
from data_prep.account import Account
from occjax import skeletons
from occjax.data import records, sources
from occjax.errors import UserError


def read(index: int, account: Account):
    """A scene as a record, but for every seventh."""
    record = scenes.Scenes()[index]
    people = len(record["persons"]["id"])
    account.receive(1, people)
    if index % 7 == 6:
        account.drop("images", "seventh")
        account.drop("persons", "seventh", people)
        return None
    data = cv2.imencode(".png", record["image"])[1].tobytes()
    return {**record, "image": data}


def write(folder, split="train", count=4, how=None, **changes):
    content = builder.Content(
        tasks=list(range(count)),
        read=read,
        account=Account(),
        skeleton=skeletons.COCO,
        facts={"licence": "none"},
        settings={},
    )
    content = content._replace(**changes)
    return builder.write(folder, "scenes", split, content, **(how or {}))


def load(folder, split="train"):
    return sources.load({"dataset": "scenes", "dir": str(folder)}, split)


def ids(source) -> list[int]:
    return [int(source[index]["image_id"]) for index in range(len(source))]


def content(folder) -> dict[str, bytes]:
    """Every file below a folder."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def small_files(monkeypatch):
    """Three tasks to a file."""
    monkeypatch.setattr(shards, "SHARD", 3)


def test_splits_are_added_one_by_one(tmp_path, capsys, small_files):
    write(tmp_path, "train", 4)
    write(tmp_path, "val", 2)
    account = write(tmp_path, "test", 8)
    path = tmp_path / "scenes" / records.VERSION
    assert ids(load(tmp_path, "train")) == [100, 101, 102, 103]
    assert ids(load(tmp_path, "val")) == [100, 101]
    assert ids(load(tmp_path, "test")) == [100, 101, 102, 103, 104, 105, 107]
    facts = json.loads((path / "metadata.json").read_text())
    assert facts["splits"]["val"]["images"] == {"in": 2, "kept": 2, "dropped": {}}
    assert facts["splits"]["val"]["licence"] == "none"
    assert account.dropped["images"] == {"seventh": 1}
    assert "images    in        8  kept        7" in capsys.readouterr().out
    assert [entry.name for entry in path.parent.iterdir()] == [records.VERSION]
    assert sorted(p.name for p in path.glob("*-test.array*")) == [
        f"scenes-test.array_record-0000{number}-of-00003" for number in range(3)
    ]


def test_other_programs_read_the_dataset_through_tfds(tmp_path):
    import tensorflow_datasets as tfds

    write(tmp_path)
    path = tmp_path / "scenes" / records.VERSION
    reader = tfds.builder_from_directory(os.fspath(path))
    first = reader.as_data_source("train")[0]
    np.testing.assert_array_equal(
        first["image"][..., ::-1], scenes.Scenes()[0]["image"]
    )
    assert reader.info.splits["train"].num_examples == 4


def test_existing_split_is_never_replaced(tmp_path, capsys):
    write(tmp_path)
    before = content(tmp_path)
    with pytest.raises(UserError, match="has a split 'train' already, of other input"):
        write(tmp_path, count=2)
    with pytest.raises(UserError, match="of other input"):
        write(tmp_path, settings={"images": "elsewhere"})
    with pytest.raises(UserError, match="has coco joints, the new split crowdpose"):
        write(tmp_path, "val", skeleton=skeletons.CROWDPOSE)
    capsys.readouterr()
    account = write(tmp_path)
    assert account.kept["images"] == 4
    assert capsys.readouterr().out.startswith("there is nothing to do\n")
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["", "a/b", "../a", "1a", "a-b", "ä"])
def test_names_that_tfds_would_not_find_are_refused(tmp_path, name):
    content = builder.Content([0], read, Account(), skeletons.COCO, {}, {})
    with pytest.raises(UserError, match="--name: "):
        builder.write(tmp_path, name, "train", content)
    split = "all" if name == "1a" else name
    with pytest.raises(UserError, match="--split: "):
        builder.write(tmp_path, "scenes", split, content)
    assert list(tmp_path.iterdir()) == []


def failing(index: int, account: Account):
    if index == 7:
        raise KeyError("broken input")
    return read(index, account)


def counting(index: int, account: Account):
    done.append(index)
    return read(index, account)


done: list[int] = []


def test_failed_run_goes_on_where_it_was(tmp_path, capsys, small_files):
    write(tmp_path / "whole", count=10)
    with pytest.raises(KeyError):
        write(tmp_path / "failed", count=10, read=failing)
    with pytest.raises(UserError, match="is not there"):
        load(tmp_path / "failed")
    done.clear()
    capsys.readouterr()
    write(tmp_path / "failed", count=10, read=counting)
    # The file of 3, 4, 5 was finished, and so that of 0, 1, 2; none of 6, 7, 8 was.
    assert done == [6, 7, 8, 9]
    assert "goes on: 2 of 4 files are finished" in capsys.readouterr().out
    assert content(tmp_path / "failed") == content(tmp_path / "whole")


def test_files_of_other_input_are_thrown_away(tmp_path, capsys, small_files):
    with pytest.raises(KeyError):
        write(tmp_path / "failed", count=10, read=failing)
    done.clear()
    capsys.readouterr()
    other = {"settings": {"images": "elsewhere"}, "read": counting}
    write(tmp_path / "failed", count=5, **other)
    assert done == [0, 1, 2, 3, 4]
    assert "begins anew with 2 files" in capsys.readouterr().out
    write(tmp_path / "whole", count=5, settings=other["settings"])
    assert content(tmp_path / "failed") == content(tmp_path / "whole")


def late(index: int, account: Account):
    """Misses the first image and fails after the second file."""
    if index == 0:
        account.receive(1, 0)
        account.drop("images", "image file missing")
        return None
    return failing(index, account)


def test_missing_images_are_looked_for_again(tmp_path, small_files):
    write(tmp_path / "whole", count=10)
    with pytest.raises(KeyError):
        write(tmp_path / "failed", count=10, read=late)
    done.clear()
    write(tmp_path / "failed", count=10, read=counting)
    assert done == [0, 1, 2, 6, 7, 8, 9]
    assert content(tmp_path / "failed") == content(tmp_path / "whole")


def unbalanced(index: int, account: Account):
    account.receive(1, 0)
    return read(index, account)


def test_failed_split_leaves_the_others_alone(tmp_path):
    write(tmp_path, "train", 3)
    before = content(tmp_path)
    with pytest.raises(UserError, match="came in"):
        write(tmp_path, "val", 2, read=unbalanced)
    with pytest.raises(UserError, match="no image is left: nothing came in"):
        write(tmp_path, "val", 0)
    with pytest.raises(UserError, match="no split 'val'"):
        load(tmp_path, "val")
    assert content(tmp_path) == before


def test_files_are_the_same_from_any_number_of_processes(tmp_path, small_files):
    for workers in (0, 1, 2, 3):
        write(tmp_path / str(workers), count=20, how={"workers": workers})
        assert content(tmp_path / str(workers)) == content(tmp_path / "0")
    assert len(load(tmp_path / "2")) == 18


def dying(index: int, account: Account):
    if index == 7:
        os._exit(1)
    return read(index, account)


def test_a_worker_that_dies_is_one_line_and_the_next_run_goes_on(tmp_path, small_files):
    with pytest.raises(UserError, match="a worker process was ended") as caught:
        write(tmp_path / "failed", count=20, read=dying, how={"workers": 2})
    assert "\n" not in str(caught.value)
    write(tmp_path / "failed", count=20, how={"workers": 2})
    write(tmp_path / "whole", count=20)
    assert content(tmp_path / "failed") == content(tmp_path / "whole")


def modules(index: int, account: Account):
    import sys

    heavy = {"jax", "jaxlib", "flax", "tensorflow"} & set(sys.modules)
    account.note(f"loaded {sorted(heavy)}")
    return read(index, account)


def test_workers_never_import_jax(tmp_path, small_files):
    account = write(tmp_path, count=6, read=modules, how={"workers": 2})
    assert account.notes == {"loaded []": 6}


def test_hashes_are_those_of_the_images(tmp_path, small_files):
    write(tmp_path, count=8)
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(8):
        record = read(index, Account())
        if record is not None:
            (folder / record["file_name"]).write_bytes(record["image"])
    listing = tmp_path / "scenes" / records.VERSION / "scenes-train.sha256"
    assert len(listing.read_text().splitlines()) == 7
    assert check(listing, folder) == 0
    (folder / "103.png").write_bytes(b"other")
    assert check(listing, folder) == 1


def check(listing, folder) -> int:
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("there is no sha256sum on this machine")
    command = [tool, "--check", "--status", "--strict", str(listing)]
    return subprocess.run(command, cwd=folder, check=False).returncode


def test_kill_between_the_steps_of_adding_a_split_loses_nothing(tmp_path, monkeypatch):
    write(tmp_path, "train", 3)
    real = os.replace

    for survived in (0, 1):
        moves = iter([real] * survived)

        def dying_move(source, target, moves=moves):
            move = next(moves, None)
            if move is None:
                raise KeyboardInterrupt
            move(source, target)

        monkeypatch.setattr(os, "replace", dying_move)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, "val", 2)
        monkeypatch.undo()
        assert ids(load(tmp_path, "train")) == [100, 101, 102]
        with pytest.raises(UserError, match="no split 'val'"):
            load(tmp_path, "val")
    write(tmp_path, "val", 2)
    assert ids(load(tmp_path, "val")) == [100, 101]


@pytest.mark.parametrize("limit", [100, 3000, 90000])
def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tmp_path, small_files, limit):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    answer = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        with pytest.raises(UserError, match="scenes cannot be written") as caught:
            write(tmp_path / "full", count=10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, answer)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is not there"):
        load(tmp_path / "full")
    write(tmp_path / "full", count=10)
    write(tmp_path / "whole", count=10)
    assert content(tmp_path / "full") == content(tmp_path / "whole")


def test_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "scenes").write_text("a file")
    with pytest.raises(UserError, match="scenes cannot be written"):
        write(tmp_path)


def test_account_demands_that_sums_match():
    account = Account()
    account.receive(3, 5)
    account.keep(2)
    account.drop("images", "image unreadable")
    account.drop("persons", "image unreadable", 3)
    with pytest.raises(UserError, match="3 images came in, but 1 kept and 1 dropped"):
        account.check()
    account.keep(0)
    account.check()
    twice = Account()
    twice.merge(account.facts())
    twice.merge(account.facts())
    twice.check()
    assert twice.kept == {"images": 4, "persons": 4}
    assert twice.dropped["persons"] == {"image unreadable": 6}
    assert account.facts()["persons"]["dropped"] == {"image unreadable": 3}
    assert "dropped      3  image unreadable" in account.table()


def test_nothing_kept_is_an_error_that_says_why():
    account = Account()
    account.receive(2, 0)
    account.drop("images", "image file missing", 2)
    with pytest.raises(UserError, match="no image is left: 2 images: image file miss"):
        account.check()


def test_written_crowd_equals_the_rendered_one(tmp_path):
    options = {"num_scenes": 3, "size": (64, 64), "seed": 2}
    crowd.write(tmp_path, "crowd_scenes", "train", options)
    disk = sources.load({"dataset": "crowd_scenes", "dir": str(tmp_path)}, "train")
    live = sources.load({"dataset": "crowd", "crowd": options}, "train")
    assert len(disk) == len(live) == 3
    for index in range(3):
        a, b = disk[index], live[index]
        np.testing.assert_array_equal(records.pixels(a), b["image"])
        for name, column in b["persons"].items():
            np.testing.assert_array_equal(a["persons"][name], column)
    with pytest.raises(UserError, match="choose another name"):
        crowd.write(tmp_path, "crowd", "train", options)
