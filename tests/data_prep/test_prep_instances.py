import json
import subprocess
import sys

import numpy as np
import pytest

from data_prep import coco, crowd, instances
from occjax import skeletons
from occjax.data import pool, records, sources
from occjax.errors import UserError

CROWD = {
    "num_scenes": 30,
    "test_scenes": 4,
    "size": (256, 256),
    "people": (1, 2),
    "height": (0.6, 0.9),
    "overlap": 0.1,
}


@pytest.fixture(scope="module")
def scenes_on_disk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    crowd.write(str(folder), "scenes", "train", CROWD)
    crowd.write(str(folder), "scenes", "test", CROWD)
    return folder


def opened(folder, split="train") -> sources.Prepared:
    return sources.Prepared(str(folder), "scenes", split)


def test_every_person_is_accounted_for_and_can_be_pasted(scenes_on_disk, tmp_path):
    source = opened(scenes_on_disk)
    account = instances.collect(source, tmp_path / "people.npz", 1000, seed=0)
    people = sum(len(source[i]["persons"]["id"]) for i in range(len(source)))
    assert account.given == {"images": 30, "persons": people}
    found = pool.Pool.load(str(tmp_path / "people.npz"), skeletons.COCO)
    assert len(found) == account.kept["persons"] > 5
    assert found.facts["persons"]["in"] == people
    assert found.facts["split"] == "train"


def test_limit_keeps_two_whole_bodies_to_an_upper_one():
    kinds = [True] * 50 + [False] * 50
    found = [(i, 0, whole) for i, whole in enumerate(kinds)]
    cases = {
        30: (20, 10),
        100: (50, 50),  # there are enough for all
        90: (50, 40),
    }
    for limit, expected in cases.items():
        account = instances.Account()
        rng = np.random.default_rng(0)
        chosen = instances._balanced(found, limit, rng, account)
        wholes = sum(whole for *_, whole in chosen)
        assert (wholes, len(chosen) - wholes) == expected
        assert len(set(chosen)) == len(chosen)
        assert sum(account.dropped["persons"].values()) == 100 - len(chosen)
    few = [item for item in found if item[2]] + found[50:53]
    chosen = instances._balanced(few, 30, np.random.default_rng(0), instances.Account())
    assert sum(not whole for *_, whole in chosen) == 3
    assert len(chosen) == 30


def test_evaluation_images_are_refused(scenes_on_disk, tmp_path):
    with pytest.raises(UserError, match="split test .*evaluation images must not"):
        instances.collect(opened(scenes_on_disk, "test"), tmp_path / "p.npz", 10, 0)
    assert not (tmp_path / "p.npz").exists()


@pytest.mark.parametrize(
    ("name", "split", "file", "refused"),
    [
        ("coco", "train", "person_keypoints_train2017.json", False),
        ("coco", "train", "person_keypoints_val2017.json", True),
        ("coco", "val", "", True),
        ("mine", "validation", "", True),
        ("crowdpose", "train", "crowdpose_trainval.json", False),
        ("ochuman", "train", "ochuman.json", True),
        ("och", "train", "ochuman_coco_format_val_range_0.00_1.00.json", True),
        ("latest", "train", "", False),
    ],
)
def test_evaluation_is_told_by_split_and_file(
    scenes_on_disk, name, split, file, refused
):
    source = opened(scenes_on_disk)
    source.name, source.split, source.facts = name, split, {"annotations": file}
    if refused:
        with pytest.raises(UserError, match="evaluation images"):
            instances.refuse_evaluation(source)
    else:
        instances.refuse_evaluation(source)


def test_command_writes_the_pool_and_names_mistakes(scenes_on_disk, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "data_prep.instances", *arguments]
        command += [f"--dir={scenes_on_disk}", "--dataset=scenes"]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    done = run(f"--output={tmp_path / 'p.npz'}", "--limit=5")
    assert done.returncode == 0, done.stderr
    assert "persons   in" in done.stdout
    assert "more than 5" in done.stdout
    assert len(pool.Pool.load(str(tmp_path / "p.npz"), skeletons.COCO)) == 5
    refused = run(f"--output={tmp_path / 'q.npz'}", "--split=test")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: scenes, split test")


def test_people_cut_out_of_photographs_are_those_of_their_masks(photographs, tmp_path):
    file = photographs / "coco/annotations/person_keypoints_shared.json"
    coco.prepare(tmp_path, "photos", "train", photographs / "coco/images", file)
    source = sources.Prepared(str(tmp_path), "photos", "train")
    account = instances.collect(source, tmp_path / "people.npz", 1000, seed=0)
    found = pool.Pool.load(str(tmp_path / "people.npz"), skeletons.COCO)
    assert len(found) == account.kept["persons"] >= 20
    ids = {a["id"] for a in json.loads(file.read_text())["images"]}
    assert set(found._columns["image_ids"]) <= ids
    for index in range(len(found)):
        one = found[index]
        seen = one.joints[one.joints[:, 2] == 2]
        at = np.clip(
            np.rint(seen[:, :2]).astype(int), 0, np.array(one.mask.shape[::-1]) - 1
        )
        # Annotators' joints lie on the annotators' mask but for a few at the edge.
        assert np.mean(one.mask[at[:, 1], at[:, 0]] > 127) > 0.6
    shown = records.pixels(source[0])
    assert shown.dtype == np.uint8
