"""Targets made from labels decode to the labels: on photographs, and where they cannot.

The oracle of studies/oracle.py is itself checked on people made up for the purpose.
"""

import functools
import json

import cv2
import jax
import numpy as np
import pytest
import scenes

from configs import pinet as settings
from configs import study_photographs
from occjax import skeletons
from occjax.data import warp
from occjax.errors import UserError
from occjax.methods import pinet
from occjax.runtime import step
from occjax.types import Batch, Inputs, Labels
from studies import albums, oracle, overfit, photographs

SIDE = 128  # of the made-up input, pixels
FITS = {"backbone": {}, "refine": "none"}
# canvas of each album's photographs to try: few shapes, as each is compiled for
CANVASES = {
    "coco": {(512, 768)},
    "crowdpose": {(512, 704)},
    "ochuman": {(512, 768), (832, 512)},
}


def model(**fields):
    return pinet.Model(skeleton=skeletons.COCO, **{**FITS, **fields})


def standing(x, y, height=48.0):
    """A person [17, 3] of a height, centred at (x, y), every joint visible."""
    level = np.array([0, 0, 0, 0.03, 0.03, 0.2, 0.2, 0.35, 0.35, 0.5, 0.5])
    level = np.append(level, [0.5, 0.5, 0.75, 0.75, 1, 1])
    aside = np.array([0, 1, -1, 2, -2, *[3, -3] * 6]) / 25
    joints = np.stack([aside, level - 0.5], axis=-1) * height + (x, y)
    return np.concatenate([joints, np.full((17, 1), 2)], axis=-1)


def batch(*people, area=40.0 * 40):
    """One black image whose source is half as large."""
    joints = np.stack(people)[None]
    labels = Labels(
        joints=joints[..., :2].astype(np.float32),
        visibility=joints[..., 2].astype(np.uint8),
        area=np.full((1, len(people)), area, np.float32),
        ignore=np.zeros((1, SIDE // 4, SIDE // 4), bool),
        head_size=np.zeros((1, len(people)), np.float32),
    )
    inputs = Inputs(
        image=np.zeros((1, SIDE, SIDE, 3), np.uint8),
        valid=np.full((1, 2), SIDE, np.int32),
        to_source=np.float32([[[0.5, 0, 10], [0, 0.5, 20]]]),
    )
    return Batch(inputs, labels, np.int64([7]))


def read(made, **fields):
    run = functools.partial(oracle.read, model(**fields))
    return jax.device_get(jax.jit(run)(made))


def found(reading):
    """Poses of the only image, best first."""
    return reading.poses.joints[0][reading.poses.score[0] > -np.inf]


@pytest.fixture(scope="module", params=list(albums.ALBUMS))
def result(request, photographs, tmp_path_factory):
    """The oracle on the crowded photographs of an album that have some canvas."""
    album = request.param

    def choose(image, annotations):
        canvas = warp.test_canvas(image["height"], image["width"], 512)
        return canvas in CANVASES[album] and albums.crowded(image, annotations)

    out = tmp_path_factory.mktemp("albums")
    source = albums.prepare(photographs, album, out, choose)
    _, shipped = step.build_model(settings.get_config(album), source.skeleton)
    return oracle.run(shipped, source, 512)


def test_labels_of_photographs_survive_targets_decoding_and_back_projection(result):
    assert result.whole["AP"] >= 0.97
    assert result.everyone["AP50"] >= 0.9  # those who cannot be told of count as well


def test_found_joints_lie_on_their_labels(result):
    away = [fate.distance for fate in result.fates if not fate.reason]
    assert np.mean(np.array(away) < 0.01) >= 0.99  # source pixels


def test_most_people_in_photographs_can_be_told_of(result):
    assert result.images >= 2
    assert sum(not fate.reason for fate in result.fates) >= 0.9 * len(result.fates)
    assert result.detections <= 20


@pytest.mark.parametrize("flip_test", [True, False])
def test_people_apart_are_found_where_they_are(flip_test):
    people = standing(30, 40), standing(90, 70)
    reading = read(batch(*people), flip_test=flip_test)
    wanted = np.stack(people)[..., :2] * 0.5 + (10, 20)  # to_source
    poses = sorted(found(reading), key=lambda pose: pose[0, 0])
    np.testing.assert_allclose(poses, wanted, atol=1e-3)
    assert not reading.lost.any()


def test_targets_make_the_losses_zero():
    made = batch(standing(30, 40), standing(44, 52))
    maps = oracle.targets(model(), made.labels, complete=True)
    terms = pinet.loss_terms(model(), pinet.Outputs(maps), made.labels)
    for name, (values, weights) in terms.items():
        assert float((weights > 0).sum()) > 0, name
        np.testing.assert_allclose(values * weights, 0, atol=1e-6)


def test_mirroring_labels_twice_changes_nothing():
    labels = batch(standing(30, 40), standing(90, 70)).labels
    twice = oracle.mirrored(oracle.mirrored(labels, model()), model())
    jax.tree.map(np.testing.assert_array_equal, twice, labels)


def test_mirroring_labels_mirrors_their_targets():
    labels = batch(standing(30, 40), standing(90, 70)).labels
    upright = oracle.targets(model(), labels, complete=True)
    mirrored = oracle.mirrored(labels, model())
    mirrored = oracle.targets(model(), mirrored, complete=True)
    order = np.array(skeletons.COCO.flip)
    turned = np.asarray(mirrored.heatmap)[:, :, ::-1][..., order]
    np.testing.assert_allclose(turned, upright.heatmap, atol=1e-6)


def test_a_joint_without_label_is_the_same_for_all_parts():
    person = standing(60, 60)
    person[[9, 10, 15]] = 0
    assert len(found(read(batch(person)))) == 1
    maps = oracle.targets(model(), batch(person).labels, complete=True)
    pixel = np.argwhere(np.asarray(maps.parts[0]) == maps.parts[0].max())[0]
    y, x, part = pixel
    joint = np.array([x, y]) - np.asarray(maps.offset[0, y, x, part, 9])
    labelled = person[:, 2] > 0
    np.testing.assert_allclose(joint * 4, person[labelled, :2].mean(axis=0), rtol=1e-5)


def test_zeros_where_labels_ask_nothing_make_parts_disagree():
    person = standing(60, 60)
    person[[3, 4, 7, 8, 9, 10, 13, 14, 15, 16]] = 0
    run = functools.partial(oracle.read, model(), complete=False)
    reading = jax.device_get(jax.jit(run)(batch(person)))
    assert len(found(reading)) > 1


def reason_of(*people, **fields):
    """The first reason for the first person."""
    row = read(batch(*people), **fields).lost[0, 0]
    return oracle.REASONS[row.argmax()] if row.any() else ""


def test_reasons_name_what_is_wrong():
    arms = standing(60, 60)
    arms[[*range(7), *range(11, 17)]] = 0
    edge = standing(60, 60)
    edge[10, :2] = (126, 60)
    near, far = standing(60, 60), standing(61, 60)
    other = standing(61, 61, height=20)
    assert reason_of(standing(60, 60)) == ""
    assert reason_of(arms) == "no labelled joint in any part"
    assert reason_of(near, small_area=2000.0) == "box below the size limit"
    assert reason_of(edge) == "a joint off the map, upright or mirrored"
    assert reason_of(edge, flip_test=False) == ""
    assert reason_of(near, far) == "pose alike another person's"
    assert "shared with another person" in reason_of(near, other)


def test_lost_people_of_photographs_are_ignored_not_forgotten():
    class One:
        name, skeleton, max_persons = "one", skeletons.COCO, 1

        def __len__(self):
            return 1

        def __getitem__(self, index):
            joints = standing(60, 60)
            joints[[*range(7), *range(11, 17)]] = 0
            image = np.zeros((SIDE, SIDE, 3), np.uint8)
            return scenes.record(image, joints[None])

    result = oracle.run(model(), One(), SIDE)
    assert [fate.reason for fate in result.fates] == [oracle.REASONS[0]]
    assert result.everyone["AP"] == 0
    assert result.whole["AP"] == -1  # nobody is left to be found


@pytest.fixture
def folder(tmp_path):
    """An album of four photographs: of two people, one, a crowd region and two."""
    keypoints = standing(30, 30).reshape(-1).tolist()
    person = {"category_id": 1, "iscrowd": 0, "bbox": [4, 4, 40, 40], "area": 800.0}
    person |= {"keypoints": keypoints, "num_keypoints": 17}
    images, annotations = [], []
    (tmp_path / "coco" / "images").mkdir(parents=True)
    (tmp_path / "coco" / "annotations").mkdir()
    for number, people in ((4, [0, 0]), (3, [0]), (2, [0, 1]), (1, [0, 0])):
        name = f"{number}.png"
        cv2.imwrite(
            str(tmp_path / "coco" / "images" / name), np.zeros((60, 60, 3), np.uint8)
        )
        images.append({"id": number, "file_name": name, "height": 60, "width": 60})
        for is_crowd in people:
            more = {"id": len(annotations) + 1, "image_id": number, "iscrowd": is_crowd}
            annotations.append(person | more)
    content = {"images": images, "annotations": annotations}
    path = tmp_path / "coco" / "annotations" / albums.ALBUMS["coco"].annotations
    path.write_text(json.dumps(content))
    return tmp_path


def test_an_album_holds_the_chosen_photographs_by_id(folder, tmp_path):
    source = albums.prepare(folder, "coco", tmp_path / "out", albums.crowded)
    assert [int(source[i]["image_id"]) for i in range(len(source))] == [1, 4]
    assert source.max_persons == 2
    again = albums.prepare(folder, "coco", tmp_path / "out", albums.crowded)
    assert len(again) == 2
    with pytest.raises(UserError, match="expected 3 fitting"):
        albums.prepare(folder, "coco", tmp_path / "few", albums.crowded, limit=3)


def test_photographs_to_learn_show_large_people_whom_the_method_can_tell_of(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(overfit, "PHOTOGRAPHS", 1)
    source = overfit.prepare(folder, tmp_path / "out", lost={1})
    assert [int(source[i]["image_id"]) for i in range(len(source))] == [4]
    image = {"id": 1, "width": 60, "height": 60}
    large = {"keypoints": [1, 1, 2] * 17, "bbox": [0, 0, 20, 20]}
    assert overfit.fits(image, [large, large])
    assert not overfit.fits(image, [large])
    assert not overfit.fits(image, [large, large | {"bbox": [0, 0, 20, 5]}])
    few = [1, 1, 2] * 4 + [0, 0, 0] * 13
    assert not overfit.fits(image, [large, large | {"keypoints": few}])


def test_the_page_counts_every_person_once():
    metrics = dict.fromkeys(photographs.METRICS, 0.5)
    fates = [
        oracle.Fate(1, "", 0.0),
        oracle.Fate(1, oracle.REASONS[0], 30.0),
        oracle.Fate(2, oracle.REASONS[0], 0.1),
    ]
    result = oracle.Result(2, fates, metrics, metrics, 3)
    page = photographs.oracle_page({"coco": {"flip test": result}})
    assert f"| {oracle.REASONS[0]} | 2 (1) |" in page
    assert "| none: whole persons | 1 (1) |" in page
    assert all(f"| {reason} | 0 |" in page for reason in oracle.REASONS[1:])
    line = "| coco | 2 | flip test | 3 | 50.0 | 50.0 | 50.0 | 2 | 1 | 50.0 |"
    assert any(row.startswith(line) for row in page)


def test_the_page_names_the_photographs_learnt():
    truth = {"images": [{"id": 5}, {"id": 9}], "annotations": [{"num_keypoints": 3}]}
    page = photographs.overfit_page(truth, dict.fromkeys(photographs.METRICS, 0.876))
    assert "Image ids: 5, 9." in page
    assert page.count("| 87.6 | 87.6 | 87.6 | 87.6 | 87.6 |") == 1


def test_the_overfitting_config_has_no_variants():
    assert study_photographs.get_config().data.dataset == "coco"
    with pytest.raises(ValueError, match="no variant 'x'"):
        study_photographs.get_config("x")
