import json

import cv2
import numpy as np
import pytest

from data_prep import coco, hashes, importer
from occjax import skeletons
from occjax.data import sources
from occjax.errors import UserError

FACTS = {"annotations": "a.json", "sha256": "0" * 64, "licence": "none"}


def image(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 30, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def prepare(folder, name, split, seeds, **options):
    """A split with one image and one person for each seed, as its own download."""
    images = folder / f"{name}-{split}-images"
    images.mkdir()
    for number, seed in enumerate(seeds):
        (images / f"{name} é\u2028{number}.png").write_bytes(image(seed))
    person = {"bbox": [1, 1, 9, 9], "keypoints": [5, 5, 2] + [0] * 48}
    content = {
        "images": [
            {"id": n, "file_name": f"{name} é\u2028{n}.png"} for n in range(len(seeds))
        ],
        "annotations": [
            {"id": n, "image_id": n, **person} for n in range(len(seeds))
        ],
    }  # fmt: skip
    return importer.prepare(
        folder, name, split, images, content, skeletons.COCO, FACTS, **options
    )


@pytest.fixture
def others(tmp_path):
    prepare(tmp_path, "one", "train", [1, 2])
    prepare(tmp_path, "one", "val", [3, 4])
    prepare(tmp_path, "one", "test", [4, 5])
    prepare(tmp_path, "two", "test", [6])
    return tmp_path


def reasons(account) -> dict[str, int]:
    assert account.dropped["images"] == account.dropped["persons"]
    return {
        reason.removesuffix(", which is excluded"): count
        for reason, count in account.dropped["images"].items()
    }


def test_images_of_evaluation_splits_are_left_out_and_counted(others, capsys):
    seeds = [1, 3, 4, 5, 6, 7, 3]
    capsys.readouterr()
    account = prepare(others, "new", "train", seeds, exclude=["one", "two/test"])
    assert reasons(account) == {
        "image in one/val": 3,
        "image in one/test": 1,
        "image in two/test": 1,
    }
    assert account.kept == {"images": 2, "persons": 2}
    out = capsys.readouterr().out
    assert "excluded: 3 images whose bytes one/val holds" in out
    assert "excluded: 1 images whose bytes one/test holds" in out
    source = sources.load({"dataset": "new", "dir": str(others)}, "train")
    assert [source[i]["image"] for i in range(2)] == [image(1), image(7)]
    facts = json.loads((source.path / "metadata.json").read_text())["splits"]["train"]
    assert facts["images"]["dropped"] == account.dropped["images"]


def test_a_split_is_left_out_by_name(others):
    account = prepare(others, "new", "train", [1, 3, 7], exclude=["one/train"])
    assert reasons(account) == {"image in one/train": 1}


def test_an_exclusion_that_finds_nothing_says_so(others, capsys):
    account = prepare(others, "new", "train", [7], exclude=["one/val"])
    assert reasons(account) == {}
    assert "excluded: 0 images whose bytes one/val holds" in capsys.readouterr().out


def test_what_cannot_be_excluded_is_one_line(others):
    (others / "two" / "1.0.0" / hashes.file_name("two", "test")).unlink()
    prepare(others, "three", "train", [8])
    cases = {
        "four": "--exclude four: there is no prepared dataset",
        "one/dev": "has no split dev, only train, val, test",
        "three": "has no split val or test, only train",
        "two": "two-test.sha256 is not there",
    }
    for number, (name, message) in enumerate(cases.items()):
        with pytest.raises(UserError, match=message) as caught:
            prepare(others, f"new{number}", "train", [7], exclude=[name])
        assert "\n" not in str(caught.value)
        assert not (others / f"new{number}").exists()


def test_other_exclusions_are_other_input(others):
    prepare(others, "new", "train", [1, 3])
    (others / "new-train-images").rename(others / "aside")
    with pytest.raises(UserError, match="of other input"):
        prepare(others, "new", "train", [1, 3], exclude=["one"])


def test_photographs_that_two_datasets_share_are_found(photographs, tmp_path):
    """Four of the six CrowdPose photographs at hand are COCO's files, bit for bit.

    They were taken from COCO, and named by the map of ids; the two that come from
    CrowdPose itself are in no COCO file.
    """
    listed = json.loads(
        (photographs / "crowdpose/annotations/crowdpose_val_to_coco_1.json").read_text()
    )
    file = photographs / "crowdpose/annotations/crowdpose_images_1.json"
    crowdpose = json.loads(file.read_text())["images"]
    pairs = {
        listed[str(one["id"])]["coco_image_id"]: one["id"]
        for one in crowdpose
        if str(one["id"]) in listed
    }
    coco.prepare(
        tmp_path,
        "crowdpose",
        "val",
        photographs / "crowdpose/images",
        file,
        skeletons.CROWDPOSE,
    )
    everything = photographs / "coco/annotations/person_keypoints_shared.json"
    content, facts = coco.read_json(everything)
    account = importer.prepare(
        tmp_path,
        "coco",
        "train",
        photographs / "coco/images",
        content,
        skeletons.COCO,
        {"sha256": facts["sha256"]},
        exclude=["crowdpose"],
    )
    assert len(pairs) == 4
    assert account.dropped["images"] == {"image in crowdpose/val, which is excluded": 4}
    source = sources.load({"dataset": "coco", "dir": str(tmp_path)}, "train")
    kept = {int(source[index]["image_id"]) for index in range(len(source))}
    everyone = {one["id"] for one in content["images"]}
    assert everyone - kept == set(pairs)
