import gzip
import json

import built
import numpy as np
import pytest

from data_prep import downloads, inspection, ocpose
from occjax import skeletons
from occjax.data import convert
from occjax.errors import UserError

OCPOSE = skeletons.OCPOSE.joints


@pytest.fixture(scope="module")
def crowd(photographs):
    """Real poses with marks of visibility: CrowdPose's images that came from COCO."""
    file = photographs / "crowdpose" / "annotations" / "crowdpose_val_1.json.gz"
    content = json.loads(gzip.open(file).read())
    images = [image for image in content["images"] if image["id"] < 109000][:300]
    ids = {image["id"] for image in images}
    people = [a for a in content["annotations"] if a["image_id"] in ids]
    people = [a for a in people if a["num_keypoints"] > 0 and not a["iscrowd"]]
    return {"images": images, "annotations": people}


def limbs_of(person) -> np.ndarray:
    return np.reshape(person["keypoints"], (14, 3))[:12]


def as_layout(crowd, joints, **changes) -> dict:
    """The same people with the joints of another layout, by name."""
    people = []
    for person in crowd["annotations"]:
        limbs = limbs_of(person).astype(float)
        moved = convert.reorder(limbs, OCPOSE, joints)
        people.append({**person, "keypoints": moved.ravel().tolist(), **changes})
    return {**crowd, "annotations": people}


def read(tmp_path, content, **options):
    file = tmp_path / "annot_all.json"
    file.write_text(json.dumps(content))
    return ocpose.read(file, **options)


def found_limbs(download) -> np.ndarray:
    joints = [person["keypoints"] for person in download.content["annotations"]]
    return np.reshape(joints, (-1, 12, 3))


@pytest.mark.parametrize("name", list(inspection.ORDERS))
@pytest.mark.parametrize("named", [False, True])
def test_known_layouts_are_recognised_joint_for_joint(
    crowd, tmp_path, capsys, name, named
):
    joints = skeletons.BY_NAME[name].joints
    content = as_layout(crowd, joints)
    if named:
        content["categories"] = [{"name": "person", "keypoints": list(joints)}]
    download = read(tmp_path, content)
    expected = np.array([limbs_of(person) for person in crowd["annotations"]])
    np.testing.assert_array_equal(found_limbs(download), expected)
    for person, original in zip(
        download.content["annotations"], crowd["annotations"], strict=True
    ):
        assert person["bbox"] == original["bbox"]
        area = 0.53 * original["bbox"][2] * original["bbox"][3]
        assert person["area"] == pytest.approx(area)
    printed = capsys.readouterr().out
    assert f"{len(joints)} joints, {name} by" in printed
    assert "boxes are xywh" in printed
    assert "mark 2 is visible" in printed


def test_mpii_own_poses_are_recognised(photographs, tmp_path):
    data = np.load(photographs / "mpii" / "annotations" / "mpii_val.npz")
    seen = (data["joint_missing"] == 0) * (1 + data["joint_visible"])
    joints = np.concatenate([data["joints_xy"], seen[..., None]], axis=-1)
    looks = inspection.plausibility(joints, skeletons.MPII)
    assert looks.holds
    assert looks.asymmetry < 0.2


def test_coco_own_poses_are_recognised(photographs):
    folder = photographs / "coco_full" / "annotations"
    file = folder / "person_keypoints_val2017_from_labels.json.gz"
    content = json.loads(gzip.open(file).read())
    joints = [person["keypoints"] for person in content["annotations"]]
    joints = np.reshape(joints, (-1, 17, 3)).astype(float)
    assert inspection.plausibility(joints, skeletons.COCO).holds


SIDES = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
WRONG = {
    "right first": [f"{s}_{j}" for j in SIDES for s in ("right", "left")],
    "one side after the other": [f"{s}_{j}" for s in ("left", "right") for j in SIDES],
    "from the feet up": [f"{s}_{j}" for j in SIDES[::-1] for s in ("left", "right")],
    "of MPII": [name for name in skeletons.MPII.joints if name in OCPOSE],
    "of OCHuman": list(skeletons.OCHUMAN.joints[:12]),
}


@pytest.mark.parametrize("order", list(WRONG))
def test_other_orders_are_refused(crowd, tmp_path, order):
    content = as_layout(crowd, WRONG[order])
    with pytest.raises(
        UserError, match="12 joints a person of uncertain order"
    ) as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value)
    assert "give --order" in str(error.value)
    # Whoever knows better decides.
    assert read(tmp_path, content, order="ocpose").skeleton is skeletons.OCPOSE


def test_unknown_numbers_and_names_are_refused(crowd, tmp_path):
    content = as_layout(crowd, [*OCPOSE, "navel"])
    with pytest.raises(UserError, match="13 joints .* no known scheme"):
        read(tmp_path, content)
    content = as_layout(crowd, OCPOSE)
    content["categories"] = [{"keypoints": WRONG["of MPII"]}]
    with pytest.raises(UserError, match="no known scheme .right_ankle, right_knee"):
        read(tmp_path, content)
    with pytest.raises(UserError, match="12 joints a person, --order mpii has 16"):
        read(tmp_path, content, order="mpii")
    few = {**content, "annotations": content["annotations"][:5]}
    with pytest.raises(UserError, match="too few to tell"):
        read(tmp_path, few)
    mixed = as_layout(crowd, skeletons.COCO.joints)["annotations"]
    half = len(mixed) // 2
    people = [*content["annotations"][:half], *mixed[half:]]
    with pytest.raises(UserError, match="too few to tell"):
        read(tmp_path, {**content, "annotations": people})


def test_corners_are_told_from_sizes(crowd, tmp_path, capsys):
    content = as_layout(crowd, OCPOSE)
    for person in content["annotations"]:
        x, y, w, h = person["bbox"]
        person["bbox"] = [x, y, x + w, y + h]
    download = read(tmp_path, content)
    assert "boxes are xyxy" in capsys.readouterr().out
    for person, original in zip(
        download.content["annotations"], crowd["annotations"], strict=True
    ):
        np.testing.assert_allclose(person["bbox"], original["bbox"])
    for person in content["annotations"]:
        person["bbox"] = [5, 5, 1, 1]
    with pytest.raises(UserError, match="which decides nothing; give --boxes"):
        read(tmp_path, content)
    assert read(tmp_path, content, boxes="xywh").content["annotations"]


def marked(crowd, change) -> dict:
    content = as_layout(crowd, OCPOSE)
    for person in content["annotations"]:
        joints = np.reshape(person["keypoints"], (12, 3))
        joints[:, 2] = [change(v) for v in joints[:, 2]]
        person["keypoints"] = joints.ravel().tolist()
    return content


def test_meaning_of_marks_is_found(crowd, tmp_path):
    expected = np.array([limbs_of(person) for person in crowd["annotations"]])
    # 1 and 2 the other way round; and a flag of 0 or 1 beside a place.
    for change in ({0: 0, 1: 2, 2: 1}, {0: 0, 1: 0, 2: 1}):
        download = read(tmp_path, marked(crowd, change.get))
        np.testing.assert_array_equal(found_limbs(download), expected)
    flat = marked(crowd, lambda v: min(v, 1))
    with pytest.raises(UserError, match="does not tell which mark is visible"):
        read(tmp_path, flat)
    chosen = found_limbs(read(tmp_path, flat, visible=1))
    np.testing.assert_array_equal(chosen[..., 2], 2 * (expected[..., 2] > 0))
    with pytest.raises(UserError, match=r"marks joints with \[5.0\]"):
        read(tmp_path, marked(crowd, {0: 0, 1: 5, 2: 2}.get))


def test_photographs_go_through_with_the_official_lists(photographs, tmp_path):
    """OCPose's own are nowhere: COCO's stand in for them."""

    lists = photographs / "ocpose_lists"
    names = [(lists / f"{s}_list.txt").read_text().split() for s in ("train", "test")]
    assert [len(one) for one in names] == [7200, 1801]
    folder = photographs / "coco"
    file = folder / "annotations" / "person_keypoints_shared.json"
    download = ocpose.read(file)
    assert any("by the names in the file" in line for line in download.facts["found"])
    chosen = tmp_path / "list.txt"
    entries = download.content["images"][:20]
    chosen.write_text("\n".join(entry["file_name"] for entry in entries))
    download = downloads.only_listed(download, chosen)
    account, source = built.build(tmp_path, folder / "images", download)
    assert account.kept["images"] == 20
    assert account.given["persons"] == account.kept["persons"]
    people = built.people_of(source)
    content = json.loads(file.read_text())
    ids = {entry["id"] for entry in entries}
    originals = [a for a in content["annotations"] if a["image_id"] in ids]
    assert set(people) == {original["id"] for original in originals}
    for original in originals:
        joints = np.float32(original["keypoints"]).reshape(17, 3)[5:]
        np.testing.assert_array_equal(people[original["id"]]["joints"], joints)
    assert built.facts_of(source)["list"] == "list.txt"
