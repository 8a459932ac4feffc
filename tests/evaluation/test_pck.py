import dataclasses
import json

import equivalence
import numpy as np
import pytest

from occjax.evaluation import coco, pck

STRICT = np.nextafter(0.5, 0)  # the largest threshold that "< 0.5" lets through


def close(link, ours, theirs, within=1e-9, note=""):
    """In per cent."""
    ours = np.float64(ours)
    link = f"score: {link}"
    equivalence.check("PCK evaluation", link, ours, theirs, within, "absolute", note)


@pytest.fixture
def example(golden):
    """Made-up predictions with the figures of public code; errors and labelled."""
    data = np.load(golden / "pck_eval/pck.npz")
    notes = json.loads((golden / "pck_eval/manifest.json").read_text())["pck"]
    low, high = data["headboxes"]
    unit = pck.HEAD * np.linalg.norm(high - low, axis=0)
    error = pck.errors(data["gt"], data["pred"], unit)
    return data, notes, error, data["jnt_missing"].T == 0


def columns(figures, mean):
    """In per cent, in the order of papers' tables."""
    names = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", mean)
    return [100 * figures[name] for name in names]


def test_figures_are_those_of_simple_baseline(example):
    data, _, error, used = example
    figures = pck.shares(pck.MPII, error, used, 0.5)
    ours = columns(figures, "mean")
    close("PCKh, SimpleBaseline's code", ours, data["simple_baseline"][:8])
    # What that code calls Mean@0.1 is taken at 0.11.
    fine = pck.shares(pck.MPII, error, used, 0.11)["mean"]
    close("PCKh, SimpleBaseline's code", 100 * fine, data["simple_baseline"][8])


def test_strictly_below_the_threshold_figures_are_those_of_bearpaw(example):
    data, _, error, used = example
    ours = columns(pck.shares(pck.MPII, error, used, STRICT), "mean_of_joints")
    note = "it rounds to two decimals"
    close("PCKh, pytorch-pose's code", ours, data["bearpaw"], 0.005 + 1e-9, note)


def test_split_by_visibility_is_that_of_princeton(example):
    data, notes, _, _ = example
    truth, cut = data["princeton_gt"], notes["princeton_num_train"]
    error = pck.errors(truth[..., :2], data["pred"], data["princeton_head_size"])
    there = truth[..., 0] != 0
    split = {"visible": truth[..., 2] > 0, "not visible": truth[..., 2] == 0}
    everybody = np.arange(len(truth))[:, None]
    parts = {"Tra": everybody < cut, "Val": everybody >= cut}
    for how, rows in notes["princeton"].items():
        for part, row in rows.items():
            used = there & parts[part] & split.get(how, True)
            right = used & (error < 0.5)
            for name, (value, count) in row.items():
                of = [name in f"{joint} total" for joint in pck.MPII.skeleton.joints]
                share = pck.curve(pck.MPII, error, used, [STRICT])[0, :-1]
                number = used.sum(axis=0)
                assert number[of].sum() == count
                ours = np.sum((share * number)[of]) / count
                assert ours == pytest.approx(right[:, of].sum() / count)
                note = "it prints shares with three decimals"
                link, within = "PCKh, princeton-vl's code", 0.051
                close(link, 100 * ours, 100 * value, within, note)


def test_curve_and_area_under_it_are_those_given(example):
    data, _, error, used = example
    curve = 100 * pck.curve(pck.MPII, error, used, np.linspace(0, 0.5, 51))
    kept = np.append(pck.MPII.counted, True)
    close("curve", curve[:, kept], data["own_curve"])
    close("area under the curve", curve[:, -1].mean(), data["own_auc"])


def test_torso_figures_are_those_given(example):
    data, _, _, used = example
    unit = pck.torso(data["gt"], pck.MPII.skeleton)
    error = pck.errors(data["gt"], data["pred"], unit)
    curve = 100 * pck.curve(pck.MPII, error, used, [0.2])[0]
    close("PCK of the torso", curve, data["own_lsp_pck02"])


@pytest.mark.parametrize("name", ["newell", "tompson", "bearpaw_hg_s2"])
def test_predictions_of_real_networks_have_their_pckh(photographs, name):
    folder = photographs / "mpii"
    truth = np.load(folder / "annotations/mpii_val.npz")
    found = np.load(folder / f"predictions/{name}.npz")["preds_xy"]
    expected = json.loads(
        (folder / f"predictions/{name}.expected_pckh.json").read_text()
    )
    box = truth["headbox_xyxy"]
    unit = pck.HEAD * np.linalg.norm(box[:, 2:] - box[:, :2], axis=1)
    visibility = np.where(truth["joint_missing"], 0, 1 + truth["joint_visible"])

    figures = pck.evaluate(pck.MPII, truth["joints_xy"], visibility, found, unit)

    error = pck.errors(truth["joints_xy"], found, unit)
    for threshold in (0.5, 0.2, 0.1):
        theirs = expected[f"PCKh@{threshold}"]
        ours = pck.shares(pck.MPII, error, visibility > 0, threshold)
        link = "PCKh of published predictions"
        close(link, 100 * ours.pop("mean"), theirs.pop("mean_14"))
        for joint, value in theirs.pop("per_joint").items():
            close(link, 100 * ours["joints"][joint], value)
        for limb, value in theirs.items():
            close(link, 100 * ours[limb], value)
    curve = expected["curve_mean14_0_to_0.5_step_0.01"]
    ours = 100 * np.array(figures["curve"]["mean"])
    close("curve of published predictions", ours, curve)
    occluded, visible = figures["occluded"], figures["visible"]
    assert occluded["count"] + visible["count"] == figures["count"]
    pooled = sum(part["mean"] * part["count"] for part in (occluded, visible))
    assert figures["mean"] == pytest.approx(pooled / figures["count"])
    assert occluded["mean"] < visible["mean"]


def test_pck_of_lsp_is_that_given(photographs):
    folder = photographs / "eval_reference"
    expected = json.loads((folder / "lspet_seed21.expected.json").read_text())
    truth = np.load(folder / expected["ground_truth"])["joints"]
    found = np.load(folder / "lspet_seed21.predictions.npz")["preds_xy"]
    labelled = truth[..., 2] > 0
    unit = pck.torso(truth, pck.LSP.skeleton)
    error = pck.errors(truth[..., :2], found, unit)
    assert np.sum(unit > 0) == expected["persons_used"]
    for threshold in (0.05, 0.1, 0.2):
        theirs = expected[f"PCK@{threshold}"]
        ours = pck.shares(pck.LSP, error, labelled, threshold)
        assert ours["count"] == expected["joints_used"]
        link = "PCK of LSP"
        close(link, 100 * ours["mean"], theirs["over_all_joints"])
        close(link, 100 * ours["mean_of_joints"], theirs["mean_of_joints"])
        for joint, value in theirs["per_joint"].items():
            close(link, 100 * ours["joints"][joint], value)


def test_worked_by_hand_with_a_joint_on_the_threshold():
    joints = np.zeros((2, 14, 2))
    found = joints.copy()
    found[0, 0] = [3, 4]  # 5 pixels: on the threshold of 0.5 x 10
    found[0, 1] = [3, 4.001]
    found[1] = 99.0  # of a person without a unit
    visibility = np.full((2, 14), 2)
    visibility[0, :2] = 1
    visibility[0, 13] = 0
    half = dataclasses.replace(pck.LSP, threshold=0.5)
    figures = pck.evaluate(half, joints, visibility, found, np.array([10.0, 0.0]))
    assert figures["joints"]["right_ankle"] == 1
    assert figures["joints"]["right_knee"] == 0
    assert figures["joints"]["head_top"] == coco.UNDEFINED
    assert figures["mean"] == pytest.approx(12 / 13)
    assert figures["knee"] == 0.5
    assert figures["head"] == figures["joints"]["neck"] == 1  # there is no other
    assert figures["occluded"]["head"] == coco.UNDEFINED
    json.dumps(figures, allow_nan=False)
    assert figures["occluded"]["mean"] == 0.5
    assert figures["visible"]["mean"] == 1
    assert (figures["count"], figures["occluded"]["count"]) == (13, 2)
    assert figures["curve"]["mean"][0] == pytest.approx(11 / 13)


def test_moving_and_scaling_the_picture_changes_nothing():
    rng = np.random.default_rng(0)
    joints, noise = rng.uniform(0, 200, (2, 30, 14, 2))
    found = joints + 0.1 * noise
    visibility = rng.integers(0, 3, (30, 14))
    unit = pck.torso(joints, pck.LSP.skeleton)
    figures = pck.evaluate(pck.LSP, joints, visibility, found, unit)
    assert 0 < figures["mean"] < 1
    moved = [2 * values + 64 for values in (joints, found)]  # exact in floats
    again = pck.evaluate(pck.LSP, moved[0], visibility, moved[1], 2 * unit)
    assert again == figures


def test_torso_needs_all_four_joints_and_a_length():
    joints = np.zeros((4, 14, 3))
    joints[..., 2] = 1
    joints[:, 9, 0] = [30.0, 5.0, 5.001, 30.0]  # left shoulder; right hip at 0
    joints[3, 3, 2] = 0  # left hip not labelled
    np.testing.assert_allclose(pck.torso(joints, pck.LSP.skeleton), [30, 0, 5.001, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"found": (3, 14, 3)}, r"found \(3, 14, 3\)"),
        ({"found": (2, 14, 2)}, r"found \(2, 14, 2\)"),
        ({"joints": (3, 28)}, r"joints \(3, 28\)"),
        ({"unit": (3, 1)}, r"unit \(3, 1\)"),
        ({"visibility": (3, 16)}, r"used \(3, 16\).*expected \(3, 14\)"),
        ({"joints": (3, 16, 2), "found": (3, 16, 2)}, r"error \(3, 16\)"),
    ],
)
def test_wrong_shapes_are_named(change, message):
    shapes = {"joints": (3, 14, 2), "visibility": (3, 14), "found": (3, 14, 2)}
    arrays = {n: np.ones(s) for n, s in (shapes | {"unit": (3,)} | change).items()}
    with pytest.raises(ValueError, match=message):
        pck.evaluate(pck.LSP, **arrays)


@pytest.mark.parametrize("name", ["joints", "found", "unit"])
def test_numbers_that_are_none_are_named(name):
    arrays = {"joints": np.ones((3, 14, 2)), "found": np.ones((3, 14, 2))}
    arrays["unit"] = np.ones(3)
    arrays[name].flat[1] = np.nan
    with pytest.raises(ValueError, match=f"{name}: expected finite"):
        pck.errors(**arrays)
    arrays[name].flat[1] = -1
    if name == "unit":
        with pytest.raises(ValueError, match="unit -1"):
            pck.errors(**arrays)


def test_protocols_say_what_makes_them_comparable():
    assert pck.MPII.stamp()["measure"] == "PCKh@0.5, <="
    assert pck.MPII.stamp()["joints"] == pck.LSP.stamp()["joints"] == 14
