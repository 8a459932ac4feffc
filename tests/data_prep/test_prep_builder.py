import json
import os
import pathlib
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import scenes

from data_prep import builder, crowd
from data_prep.account import Account
from occjax import skeletons
from occjax.data import records, sources
from occjax.errors import UserError


def encoded(count: int):
    for index in range(count):
        record = scenes.Scenes()[index]
        data = cv2.imencode(".png", record["image"])[1].tobytes()
        yield {**record, "image": data}


def received(count: int) -> Account:
    account = Account()
    people = [len(scenes.Scenes()[i]["persons"]["id"]) for i in range(count)]
    account.receive(count, sum(people))
    return account


def write(folder, split="train", count=4, items=None, account=None, **options):
    options = {"skeleton": skeletons.COCO, "facts": {"licence": "none"}, **options}
    items = encoded(count) if items is None else items
    account = account or received(count)
    return builder.write(folder, "scenes", split, items, account, **options)


def load(folder, split="train"):
    return sources.load({"dataset": "scenes", "dir": str(folder)}, split)


def ids(source) -> list[int]:
    return [int(source[index]["image_id"]) for index in range(len(source))]


def test_splits_are_added_one_by_one(tmp_path, capsys):
    write(tmp_path, "train", 4)
    write(tmp_path, "val", 2)
    path = write(tmp_path, "test", 3)
    assert ids(load(tmp_path, "train")) == [100, 101, 102, 103]
    assert ids(load(tmp_path, "val")) == [100, 101]
    assert ids(load(tmp_path, "test")) == [100, 101, 102]
    facts = json.loads((path / "metadata.json").read_text())
    assert facts["splits"]["val"]["images"] == {"in": 2, "kept": 2, "dropped": {}}
    assert facts["splits"]["val"]["licence"] == "none"
    assert "images    in        3  kept        3" in capsys.readouterr().out
    assert [entry.name for entry in path.parent.iterdir()] == [records.VERSION]


def test_other_programs_read_the_dataset_through_tfds(tmp_path):
    import tensorflow_datasets as tfds

    path = write(tmp_path)
    reader = tfds.builder_from_directory(os.fspath(path))
    first = reader.as_data_source("train")[0]
    np.testing.assert_array_equal(
        first["image"][..., ::-1], scenes.Scenes()[0]["image"]
    )
    assert reader.info.splits["train"].num_examples == 4


def test_existing_split_is_never_replaced(tmp_path):
    write(tmp_path)
    with pytest.raises(UserError, match="has a split 'train' already"):
        write(tmp_path, count=2)
    with pytest.raises(UserError, match="has coco joints, the new split crowdpose"):
        write(tmp_path, "val", skeleton=skeletons.CROWDPOSE)
    assert len(load(tmp_path)) == 4


def test_failed_run_leaves_nothing_and_the_next_one_finishes(tmp_path):
    def failing():
        yield from encoded(2)
        raise KeyError("broken input")

    with pytest.raises(KeyError):
        write(tmp_path, items=failing())
    assert list((tmp_path / "scenes").iterdir()) == []
    with pytest.raises(UserError, match="is not there"):
        load(tmp_path)
    write(tmp_path)
    assert len(load(tmp_path)) == 4


def test_failed_split_leaves_the_others_alone(tmp_path):
    write(tmp_path, "train", 3)
    with pytest.raises(UserError, match="came in"):
        write(tmp_path, "val", 2, account=received(3))
    with pytest.raises(UserError, match="no split 'val'"):
        load(tmp_path, "val")
    assert ids(load(tmp_path)) == [100, 101, 102]


@pytest.mark.slow
def test_killed_run_leaves_nothing_that_loads_and_the_next_one_finishes(tmp_path):
    code = (
        "import sys, time, itertools\n"
        "import test_prep_builder as t\n"
        "def slow():\n"
        "    for number, record in enumerate(t.encoded(4)):\n"
        "        if number == 3: print('writing', flush=True); time.sleep(60)\n"
        "        yield record\n"
        "t.builder._CHUNK = 1\n"
        f"t.write({str(tmp_path)!r}, items=slow())"
    )
    here = pathlib.Path(__file__).parent
    path = ":".join([str(here), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"writing"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert list((tmp_path / "scenes").iterdir()) != []  # what the killed run wrote
    with pytest.raises(UserError, match="is not there"):
        load(tmp_path)
    write(tmp_path)
    assert ids(load(tmp_path)) == [100, 101, 102, 103]
    assert [e.name for e in (tmp_path / "scenes").iterdir()] == [records.VERSION]


def test_kill_between_the_steps_of_adding_a_split_loses_nothing(tmp_path, monkeypatch):
    write(tmp_path, "train", 3)
    real = os.replace

    for survived in (0, 1):
        moves = iter([real] * survived)

        def dying(source, target, moves=moves):
            move = next(moves, None)
            if move is None:
                raise KeyboardInterrupt
            move(source, target)

        monkeypatch.setattr(os, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, "val", 2)
        monkeypatch.undo()
        assert ids(load(tmp_path, "train")) == [100, 101, 102]
        with pytest.raises(UserError, match="no split 'val'"):
            load(tmp_path, "val")
    write(tmp_path, "val", 2)
    assert ids(load(tmp_path, "val")) == [100, 101]


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
