import json
import threading

import cv2
import numpy as np
import pytest
import runs

import occjax
from occjax import predict, video
from occjax.errors import UserError
from occjax.runtime import config as configs
from occjax.runtime.options import Options
from occjax.skeletons import COCO
from occjax.types import Poses

FRAMES = 70


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A square that wanders, 70 frames of 96 x 64."""
    path = tmp_path_factory.mktemp("clip") / "walk.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 24.0, (96, 64))
    for number in range(FRAMES):
        frame = np.full((64, 96, 3), 90, np.uint8)
        frame[20:40, number : number + 20] = (30, 200, 250)
        writer.write(frame)
    writer.release()
    return path


def person(x, score=0.5):
    """One pose [1, ...] about the column x."""
    joints = np.zeros((1, 17, 2), np.float32) + (x, 30)
    one = np.ones((1, 17), np.float32)
    return Poses(joints, one, one, one * np.nan, np.array([score], np.float32))


def annotate(clip, target, find, least=0.1):
    target.mkdir()
    shown = []
    drawing = video.Drawing(COCO, least)
    report = video.annotate(video.Reader(clip), target, find, drawing, 32, shown.append)
    return report, shown


def test_every_frame_comes_once_in_order_and_is_drawn(clip, tmp_path):
    seen = []

    def find(frames, first):
        seen.append((first, len(frames)))
        return [person(first + i + 10) for i in range(len(frames))]

    report, shown = annotate(clip, tmp_path / "out", find)
    assert seen == [(0, 32), (32, 32), (64, 6)]
    assert shown == [32, 64, 70]
    assert report[:3] == (70, 70, 70)
    found = json.loads((tmp_path / "out/poses.json").read_text())
    assert [item["image_id"] for item in found] == list(range(1, 71))
    assert [item["keypoints"][0] for item in found] == list(range(10, 80))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"poses.json", "walk.mp4"}
    plain, drawn = video.Reader(clip), video.Reader(tmp_path / "out/walk.mp4")
    assert drawn.rate == 24.0
    before, after = plain.read(100), drawn.read(100)
    assert len(before) == len(after) == 70
    for number in (0, 69):  # the joints are where they were found, nowhere else
        changed = np.abs(before[number].astype(int) - after[number]).sum(axis=-1)
        columns = np.flatnonzero((changed > 200).any(axis=0))
        assert len(columns)
        assert abs(columns.mean() - (number + 10)) < 4


def test_frames_are_upright_rgb(clip):
    frame = video.Reader(clip).read(1)[0]
    assert frame.shape == (64, 96, 3)
    np.testing.assert_allclose(frame[30, 10], (250, 200, 30), atol=12)


def test_poses_below_the_least_score_are_written_but_not_drawn(clip, tmp_path):
    def find(frames, first):
        return [person(30, 0.3 if (first + i) % 2 else 0.7) for i in range(len(frames))]

    report, _ = annotate(clip, tmp_path / "out", find, least=0.5)
    assert (report.poses, report.drawn) == (70, 35)


def test_reading_stays_one_chunk_ahead(clip, tmp_path, monkeypatch):
    read, most = [], []
    plain = video.Reader.read

    def counting(self, count):
        frames = plain(self, count)
        read.append(len(frames))
        return frames

    monkeypatch.setattr(video.Reader, "read", counting)
    done = 0

    def find(frames, first):
        nonlocal done
        threading.Event().wait(0.05)  # time enough to read on, were it allowed
        most.append(sum(read) - done)
        done += len(frames)
        return [person(30) for _ in frames]

    annotate(clip, tmp_path / "out", find)
    assert max(most) <= 64


def test_nothing_is_left_half_written(clip, tmp_path):
    def find(frames, first):
        if first:
            raise RuntimeError("no")
        return [person(30) for _ in frames]

    with pytest.raises(RuntimeError, match="no"):
        annotate(clip, tmp_path / "out", find)
    assert not list((tmp_path / "out").iterdir())


def test_a_file_that_is_no_video_is_told(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(UserError, match=r"a\.mp4: expected a video"):
        video.Reader(path)


def test_predict_finds_in_a_video_what_the_model_finds_in_its_frames(
    clip, tmp_path, capfd
):
    workdir = runs.make(tmp_path / "run")[0]
    predict.predict(str(workdir), clip, str(tmp_path / "out"), Options(), None)
    told = capfd.readouterr()
    assert "70 frames" in told.out
    assert "70/70 frames" in told.err
    found = json.loads((tmp_path / "out/poses.json").read_text())
    frame = video.Reader(clip).read(70)[40]
    poses = occjax.load(workdir)(frame)
    there = [item["keypoints"] for item in found if item["image_id"] == 41]
    there = np.reshape(there, (-1, 17, 3))[..., :2]
    np.testing.assert_allclose(there, poses.joints, atol=1e-2)


def test_boxes_of_frames_are_those_of_the_file(clip, tmp_path):
    settings = configs.load("configs/hrnet.py:smoke")
    run = str(runs.save(tmp_path / "run", settings)[0])
    rows = [
        {"image_id": 3, "bbox": [10, 5, 40, 50], "score": 0.5},
        {"image_id": 41, "bbox": [30, 5, 40, 50], "score": 0.25},
        {"image_id": 41, "bbox": [5, 5, 40, 50], "score": 1.0},
    ]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(rows))
    out = tmp_path / "out"
    predict.predict(run, clip, str(out), Options(), None, str(path))
    found = json.loads((out / "poses.json").read_text())
    assert sorted(item["image_id"] for item in found) == [3, 41, 41]

    frames = video.Reader(clip).read(70)
    alone = occjax.load(run)(frames[2], boxes=[[10, 5, 40, 50]])
    (item,) = (item for item in found if item["image_id"] == 3)
    there = np.reshape(item["keypoints"], (-1, 3))[:, :2]
    np.testing.assert_allclose(there, alone.joints[0], atol=1e-2)
    assert item["score"] == pytest.approx(0.5 * float(alone.score[0]), rel=1e-3)
