import gzip
import json
import math

import built
import numpy as np
import pytest

from data_prep import crowdpose
from occjax.data import records
from occjax.errors import UserError


def read(path, content):
    path.write_text(json.dumps(content))
    return crowdpose.read(path)


@pytest.fixture
def sample(photographs):
    folder = photographs / "crowdpose"
    file = folder / "annotations" / "crowdpose_images_1.json"
    return folder / "images", file, json.loads(file.read_text())


def test_photographs_come_back_joint_for_joint(sample, tmp_path):
    images, file, content = sample
    account, source = built.build(tmp_path, images, crowdpose.read(file))
    assert account.given == account.kept == {"images": 6, "persons": 31}
    people = built.people_of(source)
    assert len(people) == len(content["annotations"])
    for original in content["annotations"]:
        person = people[original["id"]]
        joints = np.reshape(original["keypoints"], (14, 3))
        np.testing.assert_array_equal(person["joints"], joints)
        np.testing.assert_array_equal(person["bbox"], np.float32(original["bbox"]))
        area = 0.53 * original["bbox"][2] * original["bbox"][3]
        assert person["area"] == pytest.approx(area)
        assert person["is_crowd"] == original["iscrowd"]
        # Its evaluator counts those whose limbs have a label and who are no crowd.
        counts = original["num_keypoints"] > 0 and not original["iscrowd"]
        assert person["is_target"] == counts
    index = {image["id"]: image["crowdIndex"] for image in content["images"]}
    for record in (source[i] for i in range(len(source))):
        expected = index[int(record["image_id"])]
        assert float(record["crowd_index"]) == pytest.approx(expected)
    assert built.facts_of(source)["area"] == "0.53 of the box"


def test_whole_validation_file_is_understood(photographs):
    file = photographs / "crowdpose" / "annotations" / "crowdpose_val_1.json.gz"
    download = crowdpose.read(file)
    # Every image of the source without marks of visibility, and no other oddity.
    assert download.remarks == {
        "images without a joint marked visible: marks tell nothing": 821
    }
    content = json.loads(gzip.open(file).read())
    without = [image["id"] for image in content["images"] if image["id"] >= 109051]
    assert len(without) == 821
    targets = sum(person["is_target"] for person in download.content["annotations"])
    assert targets == 5251


def test_swapped_sizes_of_an_old_file_are_put_right(sample, tmp_path):
    _, _, content = sample
    swapped = [
        {**image, "height": image["width"], "width": image["height"]}
        for image in content["images"]
    ]
    old = read(tmp_path / "old.json", {**content, "images": swapped})
    assert old.content["images"] == content["images"]
    assert any("swapped back" in remark for remark in old.remarks)
    new = read(tmp_path / "new.json", content)
    assert not any("swapped back" in remark for remark in new.remarks)


def test_num_keypoints_of_another_rule_are_counted(sample, tmp_path):
    _, _, content = sample
    content["annotations"][0]["num_keypoints"] += 1
    download = read(tmp_path / "odd.json", content)
    assert download.remarks["num_keypoints that are not those of the limbs"] == 1


def test_file_with_other_joints_is_refused(photographs):
    file = photographs / "coco" / "annotations" / "person_keypoints_shared.json"
    with pytest.raises(UserError, match="17 joints a person, crowdpose has 14"):
        crowdpose.read(file)


def test_bad_entries_reach_the_account(sample, tmp_path):
    images, _, content = sample
    good = content["annotations"][0]
    bad = [
        {**good, "id": 1, "bbox": None},
        {**good, "id": 2, "bbox": [1, 2, math.nan, 4]},
        {**good, "id": 3, "keypoints": 7},
        {**good, "id": 4, "keypoints": good["keypoints"][:-1]},
        {**good, "id": 5, "image_id": [1]},
        {**good, "id": 6, "keypoints": [[]] * 42},
    ]
    download = read(tmp_path / "bad.json", {**content, "annotations": [good, *bad]})
    assert [one.get("id") for one in download.content["annotations"]][1:] == [
        *range(1, 7)
    ]
    # An id that is a list is the importer's to refuse.
    people = download.content["annotations"]
    people = [one for one in people if isinstance(one["image_id"], int)]
    download = download._replace(content={**download.content, "annotations": people})
    account, source = built.build(tmp_path, images, download)
    assert account.kept["persons"] == 1
    assert sum(account.dropped["persons"].values()) == 5
    kept = source[
        [int(source[i]["image_id"]) for i in range(6)].index(good["image_id"])
    ]
    assert records.labelled(kept["persons"]).any()
