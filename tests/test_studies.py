"""Pages of studies: every seed stands on them, and the means are right."""

import dataclasses
import itertools
import json
import pathlib

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from configs import (
    study_combination,
    study_couples,
    study_mimicry,
    study_occluders,
    study_parts,
    study_scores,
)
from occjax import skeletons
from occjax.evaluation import pairs
from studies import (
    boxes,
    combination,
    couples,
    covered,
    kept,
    known,
    mimicry,
    occluders,
    parts,
    reliability,
    scores,
)


@pytest.fixture(scope="module", autouse=True)
def declared():
    if "seeds" not in flags.FLAGS:
        parts.define_flags()
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


@pytest.fixture
def results():
    """One column per bin; AP rises with system and seed."""
    values = itertools.count(10)

    def rows():
        value = next(values) / 100
        bins = [dict(low=0.0, high=1.0, images=7, AP=value)]
        return [*bins, dict(low=0.5, high=1.0, images=3, AP=value / 2)]

    return {system: [rows(), rows()] for system in study_parts.SYSTEMS}


def test_every_seed_of_every_system_has_a_row(results):
    with flagsaver.flagsaver(seeds=["4", "9"], steps=12):
        page = parts.page(results)
    for system in study_parts.SYSTEMS:
        rows = [
            line for line in page.splitlines() if f"| {parts.NAMES[system]} |" in line
        ]
        assert len(rows) == 3  # the summary, and two seeds
    assert "| centre point (SPM) | 9 | 11.0 | 5.5 |" in page
    assert "12 steps, seeds 4, 9" in page
    assert "IoU 0.5-1.0 (3 scenes)" in page


def test_summary_gives_mean_and_range(results):
    with flagsaver.flagsaver(seeds=["4", "9"]):
        page = parts.page(results)
    assert "| centre point (SPM) | 10.5 (10.0-11.0) | 5.2 (5.0-5.5) |" in page


def test_all_systems_have_a_name():
    assert set(parts.NAMES) == set(study_parts.SYSTEMS)


def test_systems_share_everything_but_what_is_compared():
    first, *others = (
        study_parts.get_config(system).to_dict() for system in study_parts.SYSTEMS
    )
    for other in others:
        for key in first:
            if key not in ("model", "loss"):
                assert first[key] == other[key]
        kept = set(first["model"]) - {"parts", "refine", "fuse"}
        assert all(first["model"][key] == other["model"][key] for key in kept)


def test_every_system_has_a_name_and_a_config():
    for study, settings in ((couples, study_couples), (occluders, study_occluders)):
        others = study.SURE
        assert set(study.NAMES) == {*settings.SYSTEMS, *others}
        for system in settings.SYSTEMS:
            config = settings.get_config(system)
            assert config.eval_every == config.steps
        with pytest.raises(ValueError, match="'best'.*base"):
            settings.get_config("best")


def test_ablations_differ_from_the_whole_by_their_switch_alone():
    whole = study_couples.get_config("opec").to_dict()
    for system, switch in study_couples.ABLATIONS.items():
        other = study_couples.get_config(system).to_dict()
        assert other["model"].pop("head") == whole["model"]["head"] | switch
        assert other["loss"].items() <= whole["loss"].items()
        steps = {"steps", "eval_every", "checkpoint_every"}
        for key in set(whole) - {"model", "loss"}:
            longer = 3 if system == "opec_long" and key in steps else 1
            assert other[key] == (longer * whole[key] if key in steps else whole[key])
        assert other["model"].items() <= whole["model"].items()


def test_rows_of_oasnet_add_one_thing_each_and_see_as_many_views():
    for name in study_mimicry.SETS:
        rows = {
            row: study_mimicry.get_config(f"{name}_{row}") for row in study_mimicry.ROWS
        }
        assert set(mimicry.NAMES) == set(rows) - {"base"}
        for row, config in rows.items():
            views = 2 if config.occlusion else 1
            assert config.batch_size * views == 32
            assert bool(config.occlusion) == (row not in ("base", "plain"))
            repair = config.model.repair
            assert repair.erase == (row in ("erase", "transport", "l2", "cosine", "kl"))
            assert repair.reconstruct == (repair.erase or row == "reconstruct")
            assert ("mimic" in config.loss) == (config.model.mimic != "none")
            assert ("occlusion" in config.loss) == repair.erase
        assert len({rows[row].steps for row in mimicry.NAMES}) == 1
    with pytest.raises(ValueError, match="'lsp_best'"):
        study_mimicry.get_config("lsp_best")


def test_networks_whose_scores_are_compared_see_the_same_crops():
    for name, bases in study_scores.BASES.items():
        first, *others = (study_scores.get_config(f"{name}_{base}") for base in bases)
        for key in ("steps", "batch_size", "optim", "data"):
            assert all(first[key] == other[key] for other in others)
        for base in bases:
            config = study_scores.get_config(f"{name}_ksnet_{base}")
            assert config.steps == study_scores.KS_STEPS[name]
            assert config.trainable == "^quality/"
    assert set(scores.TITLES) == set(study_scores.BASES)
    with pytest.raises(ValueError, match="'lsp_best'"):
        study_scores.get_config("lsp_best")


def ranked(scale):
    """Metrics of a run whose poses were ranked by several scores."""
    bins = [dict(low=1, high=5, persons=3, AP=scale)]
    bins.append(dict(low=6, high=17, persons=9, AP=scale / 2))
    row = dict(AP=scale, AP50=0.5, AP75=scale, AR=0.5, joint_count=bins)
    held = [dict(count=3, predicted=0.25, true=scale)]
    row["calibration"] = dict(expected_calibration_error=0.25, bins=held)
    told = dict.fromkeys(("accuracy", "auc", "correlation"), scale)
    told |= dict(expected_calibration_error=0.125, bins=held)
    told["by_joint"] = dict.fromkeys(skeletons.COCO.joints, scale)
    return {
        "scores": dict.fromkeys(scores.SCORES, row),
        "joint_peaks": told,
        "occlusion": {
            "calibration": {"labels": told, "joints": told},
            "bins": {"joint_count": bins},
        },
    }


def test_the_page_of_scores_has_every_seed_of_every_set(monkeypatch):
    monkeypatch.setattr(scores, "_photographs", lambda: {"train": 59, "val": 93})
    bases = study_scores.BASES
    places = [f"{name}/{base}" for name in bases for base in bases[name]]
    places += [f"coco/{base}/detected" for base in bases["coco"]]
    with flagsaver.flagsaver(seeds=["4", "5"]):
        found = {place: [ranked(0.5), ranked(0.75)] for place in places}
        page = scores.page(found, "ranks")
    for words in ("OA-HPE, heatmaps", "HRNet, detected boxes, true OKS", "1-5 joints"):
        assert words in page
    assert page.count("62.5 (50.0-75.0)") > 10
    assert page.count("| 5 | 75.0 |") == 5 * len(places)
    assert "0.625 (0.500-0.750)" in page
    assert "| left eye | 0.625 |" in page
    assert "59 photographs of train2017" in page
    assert "(ranks.png)" in page
    assert reliability.plot(found["crowd/oahpe"])[1:4] == b"PNG"


def test_bins_of_several_seeds_count_as_much_as_they_hold():
    nothing = dict(count=0, predicted=-1, true=-1)
    first = [dict(count=1, predicted=0.1, true=0.2), nothing, nothing]
    second = [dict(count=3, predicted=0.3, true=0.6), nothing]
    second.append(dict(count=2, predicted=0.9, true=0.7))
    predicted, true = reliability.pooled([first, second])
    np.testing.assert_allclose(predicted, [0.25, 0.9])
    np.testing.assert_allclose(true, [0.5, 0.7])


def test_oaks_with_all_truth_is_the_oks_and_without_anybody_what_it_was():
    rng = np.random.default_rng(0)
    count = skeletons.COCO.num_joints
    truth = np.concatenate(
        [rng.uniform(20, 80, (3, count, 2)), rng.integers(0, 3, (3, count, 1))], axis=-1
    )
    images = [{"id": number} for number in range(3)]
    people = [  # the second has nothing labelled
        {
            **{"id": at, "image_id": at, "category_id": 1, "iscrowd": 0},
            **{"keypoints": row.ravel().tolist(), "bbox": [20, 20, 60, 60]},
            **{"area": 3000.0, "num_keypoints": int(at != 1) * 9},
        }
        for at, row in enumerate(truth)
    ]
    joints = truth[..., :2] + rng.normal(0, 5, (3, count, 2))
    quality, labelled = rng.uniform(0, 1, (2, 3, count, 1))
    box = np.array([1.0, 1.0, 0.5])
    score = box * (quality * labelled).sum((1, 2)) / labelled.sum((1, 2))
    detections = [
        {
            **{"image_id": at, "category_id": 1, "score": score[at]},
            "keypoints": np.concatenate([joints[at], quality[at]], 1).ravel().tolist(),
            "labelled": labelled[at, :, 0].tolist(),
        }
        for at in range(3)
    ]
    ground = {"images": images, "annotations": people, "categories": [{"id": 1}]}
    given = pairs.gather(ground, detections, skeletons.COCO)
    found = known.scores(given)
    seen = truth[..., 2] > 0
    by_hand = (quality[..., 0] * seen).sum(1) / seen.sum(1) * box
    np.testing.assert_allclose(found["labels"][[0, 2]], by_hand[[0, 2]], rtol=1e-5)
    np.testing.assert_allclose([f[1] for f in found.values()], score[1])
    # true labels are predicted, so that with true similarities all is true
    right = quality[..., 0] * seen
    right = dataclasses.replace(
        given.found, labelled=seen.astype(float), score=right.sum(1) / seen.sum(1) * box
    )
    found = known.scores(dataclasses.replace(given, found=right))
    true = (given.oks * box)[[0, 2]]
    np.testing.assert_allclose(found["similarities"][[0, 2]], true, rtol=1e-5)


def test_rows_that_go_on_from_a_base_see_as_many_views():
    for kind, rows in study_combination.ROWS.items():
        if kind == "control":
            continue
        configs = {row: study_combination.get_config(f"{kind}_{row}") for row in rows}
        steps = {c.steps for row, c in configs.items() if not row.endswith("base")}
        assert len(steps) == 1
        for row, config in configs.items():
            views = 1 + any(o["name"] == "paste_patches" for o in config.occlusion)
            assert views * config.batch_size == configs["base"].batch_size, row
    with pytest.raises(ValueError, match="'whole_best'"):
        study_combination.get_config("whole_best")


def test_controls_lie_between_pinet_and_its_mimicry():
    half, patches, pinet, mimicry = (
        study_combination.get_config(variant).to_dict()
        for variant in (
            "control_half",
            "control_patches",
            "whole_pinet",
            "whole_with_mimicry",
        )
    )
    assert half == {**pinet, "batch_size": pinet["batch_size"] // 2}
    assert mimicry["loss"].pop("mimic")
    assert mimicry["model"].pop("mimic") == "transport"
    assert patches["model"].pop("mimic") == "none"
    assert patches == mimicry


def test_each_part_is_added_to_pinet_and_taken_from_all():
    def settings(row):
        config = study_combination.get_config(f"whole_{row}")
        occluders = {one["name"] for one in config.occlusion} - {"paste_patches"}
        model = config.model
        return {
            "occluders": bool(occluders),
            "mimicry": model.mimic != "none",
            "graph": model.refine == "multi_hop",
            "attention": "attend" in model and model.weigh_channels,
        }

    assert not any(settings("pinet").values())
    assert all(settings("full").values())
    for part in settings("full"):
        assert settings(f"with_{part}") == {p: p == part for p in settings("full")}
        assert settings(f"without_{part}") == {p: p != part for p in settings("full")}


def test_the_page_of_the_combination_has_every_table():
    row = [[0.25, 0.5, 0.25, 0.125], [0.75, 0.5, 0.25, 0.125]]
    regressed = combination.REGRESSED
    less = [[0.125, 0.5, 0.25, 0.125], [0.5, 0.5, 0.25, 0.125]]
    parts = [*combination.PARTS.values(), combination.SCORES]
    found = {
        "parts": {"PINet": less, "all in one": row}
        | {f"+ {part}": row for part in parts}
        | {f"all but {part}": row for part in parts},
        "control": {"PINet": row},
        "covered": {"PINet": row},
        "papers": dict.fromkeys(combination.SYSTEMS.values(), row),
        "table": dict.fromkeys((combination.TABLE | regressed).values(), row),
        "photographs": dict.fromkeys(combination.TABLE.values(), row),
    }
    with flagsaver.flagsaver(seeds=["4", "5"]):
        page = combination.page(found, "study")
    assert page.count("| 50.0 (25.0-75.0) |") == 11 + 1 + 1 + 8 + 7 + 5
    assert page.count("| +18.8 (+12.5, +25.0) | +0.0 (+0.0, +0.0) |") == 5
    assert "| system | AP | IoU 0.0-0.3 | IoU 0.3-0.5 | IoU 0.5-1.0 |" in page
    assert "(study.png)" in page
    assert combination.plot(found["papers"])[1:4] == b"PNG"


def test_boxes_reach_around_poses(tmp_path):
    joints = [10, 20, 1, 16, 50, 1, 22, 80, 0.5]
    poses = [
        dict(image_id=image, keypoints=joints, score=score)
        for image, score in ((4, 0.25), (3, 0.5), (4, 0.75), (4, 0.5))
    ]
    path = boxes.around(poses[:2], tmp_path / "boxes.json")
    box, _ = json.loads(path.read_text())
    assert box == dict(image_id=3, score=0.5, bbox=[9.0, 15.0, 14.0, 70.0])
    best = json.loads(boxes.around(poses, path, 2).read_text())
    assert [(b["image_id"], b["score"]) for b in best] == [
        (3, 0.5),
        (4, 0.75),
        (4, 0.5),
    ]


def test_pages_tell_occluded_and_visible_joints_apart():
    joints = dict(people=4, occluded=10, visible=30, Inv75=0.25, V75=0.5)
    metrics = dict(AP=0.125, AP50=0.5, AP75=0.0)
    metrics["occlusion"] = {"joints": {"matched": joints, "all": joints}}
    shares = {"mean": 0.5, "occluded": {"mean": 0.25, "count": 10}}
    shares["visible"] = {"mean": 0.75, "count": 30}
    scored = {"test": shares, covered.SPLIT: shares}
    with flagsaver.flagsaver(seeds=["4"]):
        page = couples.page({name: [metrics] for name in couples.NAMES})
        lsp_page = occluders.page(dict.fromkeys(occluders.NAMES, [scored]))
    row = "| + OPEC-Net | 4 | 12.5 | 50.0 | 0.0 | 25.0 | 50.0 | 25.0 | 50.0 |"
    assert row in page
    assert "10 occluded and 30 visible" in " ".join(page.split())
    assert "| + OPEC-Net | 4 | 50.0 | 50.0 | 25.0 | 75.0 |" in lsp_page
    assert "(10 joints covered, 30 not)" in lsp_page


def test_figures_of_mimicry_tell_occluded_and_visible_joints_apart(monkeypatch):
    joints = dict(people=4, occluded=10, visible=30, Inv75=0.25, V75=0.5)
    metrics = dict(AP=0.125, AP75=0.0, occlusion={"joints": {"all": joints}})
    monkeypatch.setattr(mimicry.runs, "score", lambda *_: metrics)
    with flagsaver.flagsaver(workdir="runs"):
        crowd = mimicry.on_crowd(pathlib.Path("run"))
    assert list(crowd["shares"].values()) == [0.125, 0.0, 0.25, 0.5]
    assert crowd["joints"] == {"occluded": 10, "visible": 30}
    shares = {"mean": 0.5, "occluded": {"mean": 0.25, "count": 10}}
    shares["visible"] = {"mean": 0.75, "count": 30}
    scored = {"test": shares, covered.SPLIT: shares}
    monkeypatch.setattr(mimicry.covered, "pck", lambda _: scored)
    lsp = mimicry.on_photographs(pathlib.Path("run"))
    assert list(lsp["shares"].values()) == [0.5, 0.5, 0.25, 0.75]
    assert lsp["joints"] == {"occluded": 10, "visible": 30}


def test_the_page_of_mimicry_is_what_the_kept_figures_say(monkeypatch):
    def never(*_):
        raise AssertionError("trained anew: its config is another")

    monkeypatch.setattr(mimicry, "train", never)
    docs = pathlib.Path(__file__).resolve().parents[1] / "docs"
    figures = kept.Figures(docs / "mimicry.md")
    results = {
        name: {
            row: [mimicry.measured(figures, name, row, seed) for seed in range(3)]
            for row in mimicry.NAMES
        }
        for name in study_mimicry.SETS
    }
    with flagsaver.flagsaver(seeds=["0", "1", "2"]):
        assert mimicry.page(results) == (docs / "mimicry.md").read_text()
