import json

import built
import numpy as np
import pytest
import scipy.io

from data_prep import downloads, lsp
from occjax import skeletons
from occjax.errors import UserError


def as_official(folder, joints: np.ndarray, form: lsp.Form):
    """Writes joints [N, 14, 3] as the joints.mat of LSP or of its extension."""
    order = (2, 1, 0) if form is lsp.LSP else (1, 2, 0)
    path = folder / "joints.mat"
    scipy.io.savemat(path, {"joints": np.transpose(joints, order)})
    return path


@pytest.fixture
def sample(photographs):
    folder = photographs / "lsp_extended"
    content = json.loads((folder / "annotations" / "lspet_images.json").read_text())
    return folder / "images", content


def test_photographs_come_back_joint_for_joint(sample, tmp_path):
    """Through the extension's own layout, images of other numbers being absent."""
    images, content = sample
    assert content["joint_names"] == list(skeletons.LSP.joints)
    originals = {image["index"]: image for image in content["images"]}
    joints = np.zeros((max(originals), 14, 3))
    for number, image in originals.items():
        joints[number - 1] = image["joints"]
    path = as_official(tmp_path, joints, lsp.EXTENDED)
    download = lsp.read(path, images)
    listed = {entry["id"]: entry["file_name"] for entry in download.content["images"]}
    assert {n: listed[n] for n in originals} == {
        n: image["file_name"] for n, image in originals.items()
    }
    account, source = built.build(tmp_path, images, download)
    assert account.kept == {"images": 300, "persons": 300}
    absent = len(joints) - 300
    assert account.dropped["images"] == {"image file missing": absent}
    people = built.people_of(source)
    for number, image in originals.items():
        expected = np.float32(image["joints"])
        expected[:, 2] *= 2
        expected[expected[:, 2] == 0] = 0  # no label, whatever its coordinates
        np.testing.assert_array_equal(people[number]["joints"], expected)
        box = people[number]["bbox"]
        assert box[2] == box[3] == image["height"]
        seen = expected[expected[:, 2] > 0, :2]
        middle = (seen.min(axis=0) + seen.max(axis=0)) / 2
        np.testing.assert_allclose(box[:2] + box[2:] / 2, middle, atol=1e-4)


def test_crops_come_back_joint_for_joint(photographs, tmp_path):
    folder = photographs / "lsp_extended_crops"
    data = np.load(folder / "annotations" / "test.npz")
    chosen = slice(0, 40)
    sizes = {
        f"im{number:05d}.jpg": tuple(map(int, size))
        for number, size in zip(data["index"], data["size_hw"], strict=True)
    }
    content = lsp.content_of(
        data["joints"][chosen], data["index"][chosen], lsp.EXTENDED, sizes.get
    )
    download = downloads.Download(content, skeletons.LSP, {}, {})
    account, source = built.build(tmp_path, folder / "images", download)
    assert account.kept == {"images": 40, "persons": 40}
    assert not account.notes.get("images whose listed size is not that of their pixels")
    people = built.people_of(source)
    for number, joints in zip(
        data["index"][chosen], data["joints"][chosen], strict=True
    ):
        expected = np.float32(joints)
        expected[:, 2] *= 2
        np.testing.assert_array_equal(people[int(number)]["joints"], expected)


def test_third_row_of_lsp_marks_occluded_joints(tmp_path):
    joints = np.random.default_rng(0).uniform(1, 90, (2000, 14, 3))
    joints[..., 2] = joints[..., 2] > 60
    path = as_official(tmp_path, joints, lsp.LSP)
    download = lsp.read(path, tmp_path)
    found = [one["keypoints"] for one in download.content["annotations"]]
    found = np.reshape(found, (2000, 14, 3))
    np.testing.assert_array_equal(found[..., :2], joints[..., :2])
    np.testing.assert_array_equal(found[..., 2], np.where(joints[..., 2] == 1, 1, 2))
    names = [entry["file_name"] for entry in download.content["images"]]
    assert (names[0], names[-1]) == ("im0001.jpg", "im2000.jpg")
    parts = {
        part: [i["id"] for i in lsp.read(path, tmp_path, part=part).content["images"]]
        for part in ("train", "test")
    }
    assert parts["train"] == list(range(1, 1001))
    assert parts["test"] == list(range(1001, 2001))


def test_test_images_have_a_box_that_tells_nothing_of_the_joints():
    joints = np.full((2, 14, 3), 10.0)
    content = lsp.content_of(
        joints, np.array([1000, 1001]), lsp.LSP, lambda name: (100, 201)
    )
    train, test = (person["bbox"] for person in content["annotations"])
    assert train == [10 - 50, 10 - 50, 100, 100]
    assert test == [100 - 50, 49.5 - 50, 100, 100]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((14, 2, 9)), r"joints of shape \[14, 2, 9\], expected numbers"),
        (np.zeros(()), r"joints of shape \[\], expected"),
        (np.array([["a"]]), "expected numbers"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, message):
    path = tmp_path / "joints.mat"
    scipy.io.savemat(path, {"joints": array})
    with pytest.raises(UserError, match=message):
        lsp.read(path, tmp_path)


def test_files_without_the_joints_are_refused(tmp_path):
    path = as_official(tmp_path, np.ones((30, 14, 3)), lsp.EXTENDED)
    with pytest.raises(UserError, match="has no test part"):
        lsp.read(path, tmp_path, part="test")
    scipy.io.savemat(path, {"points": np.ones(3)})
    with pytest.raises(UserError, match="has no variable 'joints', only points"):
        lsp.read(path, tmp_path)
    path.write_bytes(b"no matlab")
    with pytest.raises(UserError, match="is no MATLAB file"):
        lsp.read(path, tmp_path)
    with pytest.raises(UserError, match="--annotations: .* cannot be read"):
        lsp.read(tmp_path / "none.mat", tmp_path)
