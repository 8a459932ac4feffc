"""The study on crops of LSP Extended: its dataset and its page."""

import cv2
import numpy as np
import pytest

from configs import study_lsp
from occjax.data import records, sources
from occjax.errors import UserError
from studies import covered, crops, lsp, runs


@pytest.fixture
def folder(tmp_path):
    """Two crops a split, the second smaller."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    for first, split in ((1, "train"), (7, "test")):
        sizes = np.array([[40, 30], [20, 24]])
        for number, size in enumerate(sizes, start=first):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "images" / f"im{number:05d}.jpg"), pixels)
        joints = np.concatenate(
            [rng.uniform(2, 18, (2, 14, 2)), np.ones((2, 14, 1))], axis=-1
        )
        joints[1, 3] = 0
        np.savez(
            tmp_path / "annotations" / f"{split}.npz",
            index=np.array([first, first + 1]),
            joints=joints,
            size_hw=sizes,
        )
    return tmp_path


def test_every_crop_is_the_box_of_its_person(folder, tmp_path):
    for _ in range(2):  # the second time nothing is left to do
        crops.prepare(folder, tmp_path / "out")
    for split, numbers in (("train", (1, 2)), ("test", (7, 8))):
        data = {"dir": str(tmp_path / "out"), "dataset": crops.NAME}
        source = sources.load(data, split)
        assert tuple(source[i]["image_id"] for i in range(2)) == numbers
        with np.load(folder / "annotations" / f"{split}.npz") as arrays:
            joints = arrays["joints"]
        for i, (height, width) in enumerate(((40, 30), (20, 24))):
            people = source[i]["persons"]
            np.testing.assert_array_equal(people["bbox"], [[0, 0, width, height]])
            marks = np.where(joints[i, :, 2] == 1, 2, 0)
            np.testing.assert_array_equal(people["joints"][0, :, 2], marks)
            np.testing.assert_allclose(
                people["joints"][0, :, :2], joints[i, :, :2], rtol=1e-6
            )


def test_covered_crops_differ_where_joints_are_marked_as_occluded(folder, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):
        crops.prepare(folder, out)
        covered.prepare(folder, out)
    check_covered({"dir": str(out), "dataset": crops.NAME})


def test_covered_scenes_differ_where_joints_are_marked_as_occluded(tmp_path):
    runs.render(tmp_path, "scenes", {"size": (64, 64)}, {"test": 6})
    for _ in range(2):
        covered.prepare_scenes(tmp_path, "scenes")
    check_covered({"dir": str(tmp_path), "dataset": "scenes"})


def check_covered(data):
    """Joints stay where they are, and those newly occluded look different."""
    plain, hidden = (sources.load(data, split) for split in ("test", covered.SPLIT))
    shares, marks = [], []
    for before, after in zip(plain, hidden, strict=True):
        pixels = records.pixels(after).astype(int)
        changed = np.abs(pixels - records.pixels(before)).max(axis=-1)
        was, joints = before["persons"]["joints"], after["persons"]["joints"]
        np.testing.assert_array_equal(joints[..., :2], was[..., :2])
        marked = (joints[..., 2] == 1) & (was[..., 2] == 2)
        assert np.all(marked | (joints[..., 2] == was[..., 2]))
        x, y = np.rint(joints[marked, :2]).astype(int).T
        shares.append(changed[y, x] > 20)
        marks.append(marked[was[..., 2] == 2])
    assert np.mean(np.concatenate(shares)) > 0.5  # noise rarely meets its like
    assert 0 < np.mean(np.concatenate(marks)) < 1


def test_a_damaged_file_is_one_line(folder, tmp_path):
    path = folder / "annotations" / "train.npz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="train.npz cannot be read"):
        crops.prepare(folder, tmp_path / "out")


def test_the_page_tells_minutes_and_shares():
    names = ("mean", "head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    run = {
        "minutes": 12.34,
        "config": {"steps": 100},
        "pck": dict.fromkeys(names, 0.25) | {"mean": 0.4},
        "curve": [{"step": 50, "loss": 2.0}, {"step": 100, "loss": 1.0}]
        + [{"step": 100, "test/PCK": 0.4}],
    }
    runs = dict.fromkeys(study_lsp.BASELINES, run)
    page = lsp.page(runs, "lsp")
    assert "| HRNet | 12.3 | 100 | 40.0 | 25.0 |" in page
    assert "![Loss and PCK](lsp.png)" in page
    assert lsp.curves(runs).startswith(b"\x89PNG")
