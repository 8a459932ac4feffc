import json

import equivalence
import numpy as np
import pytest
import scenes

from occjax import skeletons
from occjax.data import pipeline, proposals, results
from occjax.data.crowd import Crowd
from occjax.errors import UserError
from occjax.evaluation import oks

COCO = skeletons.COCO
VIEW = {"view": "person", "size": (96, 64), "max_persons": 1, "threads": 0}


class People(scenes.Scenes):
    """The scenes, whose people have all their joints but for those of the first."""

    def __getitem__(self, index):
        record = super().__getitem__(index)
        joints = record["persons"]["joints"]
        joints[..., 2] = 2
        joints[0, index % 9 :, 2] = 0
        return record


def entry(image_id, pose, score=0.5, **more) -> dict:
    keypoints = np.asarray(pose, float).reshape(-1).tolist()
    return {"image_id": image_id, "keypoints": keypoints, "score": score, **more}


def write(path, entries) -> str:
    path.write_text(json.dumps(entries))
    return str(path)


def noisy(source, path, spread=4.0, copies=2) -> str:
    """Poses around all people of a source in random order, their area as score."""
    rng = np.random.default_rng(5)
    entries = []
    for index in range(len(source)):
        record = source[index]
        for joints in record["persons"]["joints"]:
            for _ in range(copies):
                pose = joints + rng.normal(0, spread, joints.shape) * (1, 1, 0)
                pose[:, 2] = rng.uniform(0.1, 1, len(pose))
                entries.append(entry(int(record["image_id"]), pose, rng.uniform()))
    return write(path, [entries[i] for i in rng.permutation(len(entries))])


def brute_force(record, rows, poses, sigmas, least):
    """Greedy matching with the evaluator's OKS, pair by pair."""
    persons, free, pairs = record["persons"], list(range(len(poses))), []
    for row in rows:
        best, taken = least, None
        for at in free:
            value, _ = oks.oks(
                poses[at].pose[None, :, :2],
                persons["joints"][row][None].astype(float),
                persons["area"][row][None].astype(float),
                persons["bbox"][row][None],
                np.array(sigmas),
            )
            if value[0] > best + 1e-12:
                best, taken = value[0], at
        if taken is not None:
            free.remove(taken)
            pairs.append((row, taken))
    return pairs


@pytest.mark.parametrize("least", [0.0, 0.3, 0.6])
def test_matching_is_greedy_in_the_order_of_the_labels(tmp_path, least):
    source = scenes.Scenes(12)
    path = noisy(source, tmp_path / "poses.json", spread=6.0)
    found, _ = results.read(path, "data.proposals", source, poses=True)
    sizes = set()
    for index in range(12):
        record = source[index]
        poses = [one for one in found if one.image == index]
        labelled = np.sum(record["persons"]["joints"][..., 2] > 0, axis=1)
        rows = np.flatnonzero(labelled > 5)
        pairs = proposals.match(record, rows, poses, COCO, least)
        assert pairs == brute_force(record, rows, poses, COCO.sigmas, least)
        sizes.add(len(pairs) - len(rows))
    assert least == 0 or len(sizes) > 1  # the limit matters in this test


def test_poses_are_alike_as_in_opec_nets_code_and_go_to_the_most_alike(golden):
    figures = np.load(golden / "opec_net" / "preprocess.npz")
    people = {"joints": figures["oks_gt"][:, :12], "area": figures["oks_areas"]}
    poses = [results.Result(0, np.zeros(4), 1.0, pose) for pose in figures["oks_dt"]]
    given = ({"persons": people}, np.arange(3), poses, skeletons.OCPOSE)
    link, theirs = "score: OKS of proposals", figures["oks"].T
    ours = proposals._oks(*given)
    equivalence.check("OPEC-Net", link, ours, theirs, 1e-12, "absolute")
    assert proposals.match(*given, least=0.3) == [(0, 0), (1, 2), (2, 4)]


def test_everything_that_is_left_out_is_counted(tmp_path):
    source = People(10)
    entries = []
    for index in range(8):  # nothing on the last two images
        joints = source[index]["persons"]["joints"]
        poses = joints * (1, 1, 0) + (index / 4, 0, 0.7)
        entries += [entry(100 + index, pose) for pose in poses]
    entries.append(entry(100, 900 + np.arange(51)))
    entries.append(entry(999, np.ones((17, 3))))
    path = write(tmp_path / "poses.json", entries)
    found = proposals.Proposed(source, path)

    few = sum(index % 9 < 6 and index % 9 > 0 for index in range(8))
    unlabelled = sum(index % 9 == 0 for index in range(8))
    assert found.dropped == {
        "entries on another image": 1,
        "images without poses": 2,
        "people with too few joints": few,
        "poses of nobody": few + unlabelled + 1,
    }
    assert len(found) == len(entries) - 2 - few - unlabelled
    for index in range(len(found)):
        record = found[index]
        joints = record["persons"]["joints"][record["row"]]
        off = (record["image_id"] - 100) / 4
        expected = joints * (1, 1, 0) + (off, 0, 0.7)
        np.testing.assert_allclose(record["pose"], expected, atol=1e-5)
        assert found.labelled_joints[index] == np.sum(joints[:, 2] > 0) > 5
    everybody = proposals.Proposed(source, path, joints=0)
    assert len(everybody) == len(found) + few
    strict = proposals.Proposed(source, path, oks=0.9)
    assert 0 < len(strict) < len(found)
    assert len(strict) + strict.dropped["people without a pose"] == len(found)


def test_the_box_is_the_files_or_that_of_the_joints_that_were_found(tmp_path):
    pose = np.column_stack([np.arange(17), 2.0 * np.arange(17), np.ones(17)])
    hidden = pose.copy()
    hidden[0] = (-500, 300, 0)
    entries = [
        entry(103, pose, bbox=[1, 2, 3, 4]),
        entry(103, pose),
        entry(103, hidden),
        entry(103, pose * (1, 1, 0)),
    ]
    source = scenes.Scenes(5)
    path = write(tmp_path / "poses.json", entries)
    found, dropped = results.read(path, "data.proposals", source, poses=True)
    boxes = [one.box.tolist() for one in found]
    assert boxes == [[1, 2, 3, 4], [0, 0, 16, 32], [1, 2, 15, 30]]
    assert dropped == {"entries without extent": 1}
    np.testing.assert_array_equal(found[2].pose, hidden)


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (entry(100, np.ones((12, 3))), "keypoints: expected 51 numbers, found 36 of"),
        ({"image_id": 100, "score": 1.0}, "keypoints: expected 51 numbers, found None"),
        (entry(100, np.full((17, 3), np.nan)), "keypoints: expected numbers within"),
        (entry(100, np.ones((17, 3)), score="high"), "score: expected a number"),
        (entry(100, np.ones((17, 3)), bbox=[1, 2, 3]), "bbox: expected 4 numbers"),
        (entry(100, np.eye(17, 3) + 900), "more than 5 labelled joints .* found none"),
        (entry(1, np.ones((17, 3))), "no pose of a person on an image of scenes"),
    ],
)
def test_faulty_proposals_are_told_in_one_line(tmp_path, faulty, message):
    path = write(tmp_path / "poses.json", [faulty])
    with pytest.raises(UserError, match=message) as error:
        pipeline.train_batches(
            scenes.Scenes(), {**VIEW, "proposals": path, "augment": {}}, 2, 0
        )
    assert path in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_start_poses_that_are_the_truth_lie_on_the_labels(tmp_path, flip):
    source = scenes.Scenes(10)
    path = noisy(source, tmp_path / "poses.json", spread=0.0, copies=1)
    data = {**VIEW, "proposals": path, "augment": {"flip": flip}}
    batch = next(pipeline.train_batches(source, data, 8, 0))
    assert batch.inputs.start_pose.shape == (8, 1, 17, 3)
    assert batch.inputs.start_pose.dtype == np.float32
    seen = batch.labels.visibility > 0
    np.testing.assert_allclose(
        batch.inputs.start_pose[seen][:, :2], batch.labels.joints[seen], atol=1e-3
    )
    assert np.sum(seen, axis=-1).min() > 5


def test_confidences_change_sides_with_their_joints(tmp_path):
    source = scenes.Scenes(6)
    path = noisy(source, tmp_path / "poses.json", spread=0.0, copies=1)
    data = {**VIEW, "proposals": path}
    plain, mirrored = (
        pipeline.augmented(source, {**data, "augment": {"flip": flip}}, 0)[1](0)
        for flip in (0.0, 1.0)
    )
    one, other = plain.inputs.start_pose[0], mirrored.inputs.start_pose[0]
    np.testing.assert_array_equal(other[:, 2], one[list(COCO.flip), 2])
    np.testing.assert_allclose(other[list(COCO.flip), 1], one[:, 1], atol=1e-3)


def test_testing_sees_every_pose_of_its_own_file_in_order(tmp_path):
    source = scenes.Scenes(5)
    path = noisy(source, tmp_path / "poses.json")
    entries = json.loads((tmp_path / "poses.json").read_text())
    data = {**VIEW, "proposals": "unread.json", "eval_proposals": path, "augment": {}}
    batches = list(pipeline.test_batches(source, data, 4))
    count = len(entries)
    ids = np.concatenate([b.image_id for b in batches])[:count]
    scores = np.concatenate([b.inputs.box_score for b in batches])[:count]
    poses = np.concatenate([b.inputs.start_pose for b in batches])[:count, 0]
    back = np.concatenate([b.inputs.to_source for b in batches])[:count]
    points = np.concatenate([poses[..., :2], np.ones((count, 17, 1))], axis=-1)
    given = np.array([one["keypoints"] for one in entries]).reshape(count, 17, 3)
    assert ids.tolist() == [one["image_id"] for one in entries]
    np.testing.assert_allclose(scores, [one["score"] for one in entries], rtol=1e-6)
    found = np.einsum("bkl,bjl->bjk", back.astype(float), points)
    np.testing.assert_allclose(found, given[..., :2], atol=2e-3)
    np.testing.assert_allclose(poses[..., 2], given[..., 2], rtol=1e-6)
    with pytest.raises(UserError, match="detector's boxes have no labels"):
        next(pipeline.test_batches(source, data, 4, labels=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"proposals": "a.json"}, "data.eval_proposals: expected a file"),
        (
            {"detections": "a.json", "eval_proposals": "b.json"},
            "data.detections and data.eval_proposals: expected only one",
        ),
        ({"eval_proposals": "none.json"}, "data.eval_proposals: none.json: No such"),
    ],
)
def test_files_to_test_on_are_asked_for_clearly(settings, message):
    with pytest.raises(UserError, match=message):
        pipeline.test_batches(scenes.Scenes(), {**VIEW, **settings}, 4)


def test_poses_of_the_crowd_train_and_test(tmp_path):
    source = Crowd(num_scenes=6, size=(64, 64), people=(2, 3))
    path = noisy(source, tmp_path / "poses.json", spread=1.0, copies=1)
    data = {**VIEW, "proposals": path, "eval_proposals": path, "augment": {}}
    batch = next(pipeline.train_batches(source, data, 8, 0))
    seen = batch.labels.visibility > 0
    off = batch.inputs.start_pose[seen][:, :2] - batch.labels.joints[seen]
    assert 0 < np.abs(off).mean() < 10
    tested = list(pipeline.test_batches(source, data, 4))
    assert sum(np.sum(b.image_id >= 0) for b in tested) == sum(source.targets)
