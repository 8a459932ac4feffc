import json

import numpy as np
import pytest
import scipy.io

from occjax.errors import UserError
from occjax.evaluation import coco, pck, single


@pytest.fixture
def mpii(photographs):
    """Labels of MPII's validation split and poses of a real network."""
    data = np.load(photographs / "mpii/annotations/mpii_val.npz")
    folder = photographs / "mpii/predictions"
    expected = json.loads((folder / "newell.expected_pckh.json").read_text())
    return data, folder / "newell.npz", expected["PCKh@0.5"]["mean_14"]


def written(folder, data):
    flags = np.where(data["joint_missing"], 0, 1 + data["joint_visible"])
    box = data["headbox_xyxy"]
    joints = np.concatenate([data["joints_xy"], flags[..., None]], axis=-1)
    head = np.linalg.norm(box[:, 2:] - box[:, :2], axis=1)
    np.savez(folder / "T.npz", joints=joints, head=head)
    return folder / "T.npz"


def test_own_form_gives_the_published_figure(mpii, tmp_path):
    data, poses, mean = mpii
    metrics, facts = single.score(pck.MPII, str(written(tmp_path, data)), str(poses))
    assert 100 * metrics["mean"] == pytest.approx(mean, abs=1e-9)
    assert 0 < metrics["occluded"]["mean"] < metrics["visible"]["mean"]
    assert facts["persons"] == 2958
    assert f"{mean:.1f}" in single.table(metrics).splitlines()[1]


def test_form_of_hrnet_gives_the_same_without_visibility(mpii, tmp_path):
    data, poses, mean = mpii
    places, missing = data["joints_xy"].transpose(1, 2, 0), data["joint_missing"].T
    boxes = data["headbox_xyxy"].reshape(-1, 2, 2).transpose(1, 2, 0)
    labels = {"pos_gt_src": places, "jnt_missing": missing, "headboxes_src": boxes}
    scipy.io.savemat(tmp_path / "gt_valid.mat", labels)
    found = np.load(poses)["preds_xy"]
    scipy.io.savemat(tmp_path / "pred.mat", {"preds": found})
    paths = [str(tmp_path / name) for name in ("gt_valid.mat", "pred.mat")]
    metrics, _ = single.score(pck.MPII, *paths)
    assert 100 * metrics["mean"] == pytest.approx(mean, abs=1e-9)
    assert metrics["occluded"]["mean"] == coco.UNDEFINED


def test_joints_of_leeds_are_turned_and_their_third_row_marks_the_occluded(tmp_path):
    rng = np.random.default_rng(0)
    joints = rng.uniform(0, 100, (5, 14, 3))
    joints[..., 2] = rng.integers(0, 2, (5, 14))
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": joints.transpose(2, 1, 0)})
    (tmp_path / "P.json").write_text(json.dumps(joints[..., :2].tolist()))
    people = single.read_people(pck.LSP, str(tmp_path / "joints.mat"))
    np.testing.assert_allclose(people.joints[..., :2], joints[..., :2])
    np.testing.assert_array_equal(people.joints[..., 2], 2 - joints[..., 2])
    paths = [str(tmp_path / name) for name in ("joints.mat", "P.json")]
    metrics, _ = single.score(pck.LSP, *paths)
    assert metrics["mean"] == 1
    assert metrics["occluded"]["count"] == np.sum(joints[..., 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": [[1.0, 2.0]]}, r"T.json: expected joints \[N, 16, 3\]"),
        ({"head": None}, "T.json: expected head, found joints"),
        ({"head": [1.0]}, r"T.json: expected head \[2\]"),
        ({"head": [1.0, -1.0]}, r"T.json: expected head \[2\].* 0 or more"),
        ({"preds": [[1.0]]}, r"P.json: expected poses \[2, 16, 2\].* got \[1, 1\]"),
        ({"preds": "no"}, "P.json: preds is no array of numbers"),
        ({"preds": None}, "P.json: expected preds or .* found nothing"),
        ({"nan": 1}, "P.json: person 1: expected finite numbers"),
        ({"flag": 3}, "T.json: expected visibility 0, 1 or 2"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, message):
    joints = np.full((2, 16, 3), 2.0)
    found = np.full((2, 16, 2), 2.0)
    if "nan" in change:
        found[1, 3, 0] = np.nan
    if "flag" in change:
        joints[1, 3, 2] = change["flag"]
    labels = {"joints": joints.tolist(), "head": [9.0, 9.0]} | change
    poses = {"preds": change.get("preds", found.tolist())}
    for name, content in (("T", labels), ("P", poses)):
        kept = {key: value for key, value in content.items() if value is not None}
        (tmp_path / f"{name}.json").write_text(json.dumps(kept))
    paths = [str(tmp_path / name) for name in ("T.json", "P.json")]
    with pytest.raises(UserError, match=message) as told:
        single.score(pck.MPII, *paths)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["P.npz", "P.mat", "P.json"])
def test_damaged_and_missing_files_are_named(tmp_path, name):
    labels = {"joints": np.full((2, 16, 3), 2.0), "head": np.ones(2)}
    np.savez(tmp_path / "T.npz", **labels)
    arguments = (pck.MPII, str(tmp_path / "T.npz"), str(tmp_path / name))
    with pytest.raises(UserError, match=f"{name}: cannot be read"):
        single.score(*arguments)
    (tmp_path / name).write_bytes(b"half a file")
    with pytest.raises(UserError, match=f"{name}: "):
        single.score(*arguments)
