import json
import math

import equivalence
import figures
import numpy as np
import pytest

from occjax.evaluation import checks, oks
from occjax.skeletons import COCO, CROWDPOSE, OCPOSE


def official(truth, found, skeleton):
    """OKS [D, G] by image id from pycocotools, detections best first."""
    from pycocotools.coco import COCO as Annotated
    from pycocotools.cocoeval import COCOeval

    annotated = Annotated()
    annotated.dataset = truth
    annotated.createIndex()
    scorer = COCOeval(annotated, annotated.loadRes(found), "keypoints")
    scorer.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
    scorer._prepare()
    return {i: scorer.computeOks(i, 1) for i in scorer.params.imgIds}


def ours(truth, found, image, skeleton):
    found = [item for item in found if item["image_id"] == image]
    found = sorted(found, key=lambda item: -item["score"])[:20]
    people = [item for item in truth["annotations"] if item["image_id"] == image]
    shape = (-1, skeleton.num_joints, 3)
    return oks.matrix(
        np.reshape([item["keypoints"] for item in found], shape)[..., :2],
        np.reshape([item["keypoints"] for item in people], shape),
        np.array([item["area"] for item in people]),
        np.array([item["bbox"] for item in people], float),
        np.array(skeleton.sigmas),
    )


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE])
@pytest.mark.parametrize("seed", range(3))
def test_oks_equals_that_of_pycocotools(skeleton, seed):
    rng = np.random.default_rng(seed)
    truth, found = figures.crowded(rng, skeleton, detections=25)
    compared = 0
    for image, expected in official(truth, found, skeleton).items():
        if len(expected):
            values = ours(truth, found, image, skeleton)
            np.testing.assert_allclose(values, expected, rtol=0, atol=1e-14)
            compared += expected.size
    assert compared > 100


@pytest.mark.parametrize(
    "case", ["coco_images_seed11", "coco_full_seed13", "ochuman_mediapipe"]
)
def test_oks_of_sample_images_is_as_recorded(photographs, case):
    folder = photographs / "eval_reference"
    expected = json.loads((folder / f"{case}.expected.json").read_text())
    truth = checks.read_json(folder / expected["ground_truth"])
    found = checks.read_json(folder / expected["detections"])
    seen = 0
    for name, sample in expected["sample_images"].items():
        if not sample["oks"]:
            continue
        image = int(name)
        values = ours(truth, found, image, COCO)
        everybody = truth["annotations"]
        people = [item["id"] for item in everybody if item["image_id"] == image]
        order = [people.index(i) for i in sample["oks_columns_gt_ids"]]
        values, wanted = values[:, order], sample["oks"]
        link = "score: OKS of pairs, our own"
        equivalence.check("COCO evaluation", link, values, wanted, 1e-12, "absolute")
        seen += 1
    assert seen


def test_oks_of_limbs_is_that_of_opec_nets_code(golden):
    figures = np.load(golden / "opec_net" / "preprocess.npz")
    people, area = figures["oks_gt"][:, :12], figures["oks_areas"]
    found, boxes = figures["oks_dt"][..., :2], np.zeros((3, 4))
    values = oks.matrix(found, people, area, boxes, np.array(OCPOSE.sigmas))
    link = "score: OKS of the evaluation"
    equivalence.check("OPEC-Net", link, values, figures["oks"], 1e-12, "absolute")


def test_joint_at_its_own_width_has_the_similarity_worked_by_hand():
    # OAKS, acceptance check 1: distance 2 sigma sqrt(area) gives exp(-1/2).
    area, joint = 2500.0, 7
    joints = np.zeros((17, 2))
    found = joints.copy()
    found[joint, 1] = 2 * COCO.sigmas[joint] * math.sqrt(area)
    values = oks.joint_similarity(found, joints, np.array(area), np.array(COCO.sigmas))
    assert values[joint] == pytest.approx(math.exp(-0.5))
    np.testing.assert_array_equal(np.delete(values, joint), 1)


def test_similarity_of_all_with_all_equals_a_loop():
    rng = np.random.default_rng(1)
    found, joints = rng.uniform(0, 30, (4, 17, 2)), rng.uniform(0, 30, (3, 17, 2))
    area = rng.uniform(1e3, 1e4, 3)
    values = oks.joint_similarity(
        found[:, None], joints, area[None], np.array(COCO.sigmas)
    )
    assert values.shape == (4, 3, 17)
    for d in range(4):
        for g in range(3):
            for j in range(17):
                square = math.dist(found[d, j], joints[g, j]) ** 2
                width = 2 * area[g] * (2 * COCO.sigmas[j]) ** 2
                assert values[d, g, j] == pytest.approx(math.exp(-square / width))


def test_nobody_and_no_area_are_numbers_too():
    sigmas = np.array(COCO.sigmas)
    none = oks.matrix(
        np.zeros((0, 17, 2)), np.zeros((2, 17, 3)), np.ones(2), np.ones((2, 4)), sigmas
    )
    assert none.shape == (0, 2)
    point = np.full((1, 17, 3), 2.0)
    exact = oks.matrix(point[..., :2], point, np.zeros(1), np.zeros((1, 4)), sigmas)
    assert exact[0, 0] == 1
