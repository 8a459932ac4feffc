import json
import math

import built
import numpy as np
import pytest
import scipy.io

from data_prep import downloads, mpii
from occjax import skeletons
from occjax.errors import UserError


@pytest.fixture
def sample(photographs):
    folder = photographs / "mpii"
    file = folder / "annotations" / "test_mpii.json"
    return folder / "images", file, json.loads(file.read_text())


@pytest.fixture
def validation(photographs):
    return dict(np.load(photographs / "mpii" / "annotations" / "mpii_val.npz"))


def structs(rows: list[dict]) -> np.ndarray:
    """A MATLAB struct array [1, N]."""
    names = list(rows[0])
    array = np.empty((1, len(rows)), [(name, object) for name in names])
    for index, row in enumerate(rows):
        for name in names:
            array[name][0, index] = row[name]
    return array


def point(number, x, y, visible) -> dict:
    return {"x": x, "y": y, "id": number, "is_visible": visible}


def as_official(path, data, chosen):
    """Writes people of the validation arrays as the official file has them."""
    images = []
    for row in chosen:
        points = []
        for number in range(16):
            if data["joint_missing"][row, number]:
                continue
            # Head top and upper neck have no mark; others have text or a number.
            mark = int(data["joint_visible"][row, number])
            mark = [] if number in (8, 9) else str(mark) if number % 2 else mark
            points.append(point(number, *data["joints_xy"][row, number], mark))
        head = dict(
            zip(("x1", "y1", "x2", "y2"), data["headbox_xyxy"][row], strict=True)
        )
        centre = dict(zip("xy", data["center"][row], strict=True))
        person = {**head, "annopoints": {"point": structs(points)},
                  "scale": data["scale"][row], "objpos": centre}  # fmt: skip
        images.append(
            {
                "image": {"name": str(data["image_name"][row])},
                "annorect": structs([person]),
                "frame_sec": [],
                "vididx": [],
            }  # fmt: skip
        )
    nobody = {"image": {"name": "000000009.jpg"}, "annorect": [], "frame_sec": []}
    box_only = {"scale": 2.0, "objpos": {"x": 100.0, "y": 90.0}}
    test = {"image": {"name": "000000010.jpg"}, "annorect": structs([box_only] * 2)}
    images += [{**nobody, "vididx": []}, {**test, "frame_sec": [], "vididx": []}]
    training = [1] * (len(images) - 1) + [0]
    release = {"annolist": structs(images), "img_train": training, "version": "12"}
    scipy.io.savemat(path, {"RELEASE": release})
    return path


def test_photographs_come_back_joint_for_joint(sample, tmp_path):
    images, file, content = sample
    account, source = built.build(tmp_path, images, mpii.read(file))
    assert account.kept == {"images": 4, "persons": 4}
    assert source.skeleton is skeletons.MPII
    people = built.people_of(source)
    for number, original in enumerate(content, start=1):
        joints = people[number]["joints"]
        labelled = np.array(original["joints_vis"]) == 1
        expected = np.float32(original["joints"]) - 1  # the file counts from 1
        np.testing.assert_array_equal(joints[labelled, :2], expected[labelled])
        np.testing.assert_array_equal(joints[:, 2], 2 * labelled)
        assert not joints[~labelled].any()
        # Crops have the side 1.25 x 200 x scale about the centre moved down.
        x, y, w, h = people[number]["bbox"]
        assert w == h == pytest.approx(200 * original["scale"])
        centre = np.array(original["center"]) + (0, 15 * original["scale"]) - 1
        np.testing.assert_allclose((x + w / 2, y + h / 2), centre, rtol=1e-5)
    ids = {int(source[i]["image_id"]) for i in range(4)}
    assert ids == {5808361, 52475643, 51423444, 4645041}
    facts = built.facts_of(source)
    assert facts["remarks"] == {"people whose occluded joints are not marked": 4}


def test_official_file_is_read_in_full(validation, tmp_path):
    chosen = np.arange(0, 2958, 100)
    download = mpii.read(as_official(tmp_path / "mpii.mat", validation, chosen))
    images, people = download.content["images"], download.content["annotations"]
    assert len(images) == len(chosen) + 2
    assert len(people) == len(chosen) + 2
    for person, row in zip(people, chosen, strict=False):
        joints = np.reshape(person["keypoints"], (16, 3))
        missing = validation["joint_missing"][row] == 1
        shown = validation["joint_visible"][row] == 1
        shown[[8, 9]] = True
        marks = np.where(missing, 0, np.where(shown, 2, 1))
        np.testing.assert_array_equal(joints[:, 2], marks)
        places = validation["joints_xy"][row] - 1
        np.testing.assert_allclose(joints[~missing, :2], places[~missing])
        assert not joints[missing].any()
        x0, y0, x1, y1 = validation["headbox_xyxy"][row]
        assert person["head_size"] == pytest.approx(math.hypot(x1 - x0, y1 - y0))
        # What HRNet's form says of the same person gives the same box.
        item = {"image": "1.jpg", "center": validation["center"][row].tolist(),
                "scale": float(validation["scale"][row])}  # fmt: skip
        other = tmp_path / "other.json"
        other.write_text(json.dumps([item]))
        (same,) = mpii.read(other).content["annotations"]
        np.testing.assert_allclose(same["bbox"], person["bbox"])
    assert "keypoints" not in people[-1]
    assert people[-1]["bbox"] == [100 - 1 - 200, 90 - 1 + 30 - 200, 400, 400]
    parts = {part: mpii.read(tmp_path / "mpii.mat", part=part) for part in
             ("train", "test")}  # fmt: skip
    assert [i["id"] for i in parts["test"].content["images"]] == [10]
    assert len(parts["test"].content["annotations"]) == 2
    assert len(parts["train"].content["annotations"]) == len(chosen)
    with pytest.raises(UserError, match="tells test, train apart, not --part val"):
        mpii.read(tmp_path / "mpii.mat", part="val")


def test_counts_are_those_measured_on_the_validation_split(validation, tmp_path):
    """44,240 labelled joints, 10,243 of them occluded (spec of OASNet, 8.1).

    Four of them are at (0, 0), which in this form stands for a joint without a label.
    """
    items = []
    for row in range(2958):
        missing = validation["joint_missing"][row] == 1
        joints = np.where(missing[:, None], 0, validation["joints_xy"][row])
        shown = np.where(missing, 0, validation["joint_visible"][row])
        items.append(
            {
                "img_paths": str(validation["image_name"][row]),
                "isValidation": 1.0,
                "joint_self": np.column_stack([joints, shown]).tolist(),
                "objpos": validation["center"][row].tolist(),
                "scale_provided": float(validation["scale"][row]),
            }
        )
    items.append({**items[0], "img_paths": "000000001.jpg", "isValidation": 0.0})
    file = tmp_path / "mpii_annotations.json"
    file.write_text(json.dumps(items))
    download = mpii.read(file, part="val")
    people = download.content["annotations"]
    marks = np.array([person["keypoints"][2::3] for person in people])
    assert (int(np.sum(marks > 0)), int(np.sum(marks == 1))) == (44236, 10239)
    scored = np.delete(marks, [6, 7], axis=1)
    assert (int(np.sum(scored > 0)), int(np.sum(scored == 1))) == (38426, 7740)
    sizes = np.array([person["head_size"] for person in people])
    corners = validation["headbox_xyxy"]
    diagonal = np.linalg.norm(corners[:, 2:] - corners[:, :2], axis=1)
    assert np.mean(np.abs(sizes / diagonal - 1) < 0.01) > 0.97
    assert download.remarks == {"images of another --part": 1}
    assert len(mpii.read(file, part="train").content["images"]) == 1


def test_list_chooses_images(sample, tmp_path):
    _, file, content = sample
    names = tmp_path / "names.txt"
    names.write_text(f"{content[1]['image']}\nnowhere.jpg\n")
    download = downloads.only_listed(mpii.read(file), names)
    assert [i["file_name"] for i in download.content["images"]] == ["052475643.jpg"]
    assert len(download.content["annotations"]) == 1
    assert download.remarks["images that --list leaves out"] == 3
    assert download.remarks["people of these images"] == 3
    assert download.remarks["names of --list that the annotations do not have"] == 1
    names.write_text("nowhere.jpg\n")
    with pytest.raises(UserError, match="--list: the annotations have none"):
        downloads.only_listed(mpii.read(file), names)
    with pytest.raises(UserError, match="--list: .* cannot be read"):
        downloads.only_listed(mpii.read(file), tmp_path / "no.txt")


def test_bad_entries_reach_the_account(sample, tmp_path):
    images, _, content = sample
    good = content[0]
    bad = [
        {**good, "scale": None},
        {**good, "center": [1]},
        {**good, "scale": -1.0},
        {**good, "joints": good["joints"][:5]},
        {**good, "joints": [["a", "b"]] * 16},
        {**good, "image": None},
        {**good, "image": "portrait.jpg"},
        "nobody",
    ]
    file = tmp_path / "bad.json"
    file.write_text(json.dumps([good, *bad]))
    account, _ = built.build(tmp_path, images, mpii.read(file))
    assert account.kept == {"images": 1, "persons": 1}
    assert account.dropped["persons"] == {
        "box missing": 2,
        "box of negative size": 1,
        "wrong number of joints": 1,
        "joints not finite numbers": 1,
        "annotation of an image that is not listed": 3,
    }


@pytest.mark.parametrize("content", [[], {}, [7], [{"image": "a.jpg"}]])
def test_other_json_is_refused(tmp_path, content):
    file = tmp_path / "other.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is in no known form of MPII"):
        mpii.read(file)


def test_other_mat_is_refused(tmp_path):
    file = tmp_path / "other.mat"
    scipy.io.savemat(file, {"RELEASE": {"annolist": 3.0, "img_train": [1]}})
    with pytest.raises(UserError, match="is not the official file of MPII"):
        mpii.read(file)
    scipy.io.savemat(file, {"detections": 1.0})
    with pytest.raises(UserError, match="no variable 'RELEASE', only detections"):
        mpii.read(file)
