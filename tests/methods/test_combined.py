"""The combination: two views, scores told at the joints, fusion by them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.methods import combined, pinet
from occjax.nn import siamese
from occjax.ops import rescoring
from occjax.runtime import initial
from occjax.skeletons import COCO
from occjax.types import Inputs, Labels

BACKBONE = {"name": "pyramid", "widths": (4, 8), "depths": (1, 1), "features": 8}
FIELDS = {"refine": "multi_hop", "refine_features": 6, "refine_layers": 1}
FIELDS |= {"max_proposals": 6, "threshold": -1.0, "peaks": 3, "sigma": 1.0}


def build(method=combined, **fields):
    return method.Model(COCO, BACKBONE, **{**FIELDS, **fields})


def batch(clean=True, size=64):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, size, size, 3), np.uint8)
    joints = rng.uniform(16, 48, (2, 2, 1, 2)) + rng.normal(0, 8, (2, 2, 17, 2))
    before = rng.integers(1, 3, (2, 2, 17)).astype(np.uint8)
    inputs = Inputs(
        image,
        np.full((2, 2), size, np.int32),
        np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1)),
    )
    labels = Labels(
        joints.astype(np.float32),
        before,
        np.full((2, 2), 1500, np.float32),
        np.zeros((2, size // 4, size // 4), bool),
        np.zeros((2, 2), np.float32),
    )
    if not clean:
        return inputs, labels
    twin = image.copy()
    twin[:, 20:40, 20:40] = 128
    labels = labels._replace(clean_visibility=np.full_like(before, 2))
    return inputs._replace(clean=twin), labels


@functools.cache
def started(mimic):
    """Start values, livelier where they would be next to nothing."""
    found = initial.variables(build(mimic=mimic), batch(clean=False)[0], seed=0)
    rng = np.random.default_rng(1)

    def lively(x):
        noise = 0.2 * rng.standard_normal(x.shape).astype(np.float32)
        return x if np.ndim(x) < 2 else x + noise

    return jax.tree.map(lively, found)


def variables(model):
    return started(model.mimic)


def learnt(model, inputs, labels):
    asked = combined.proposals(model, labels)
    return model.apply(
        variables(model), inputs, train=True, proposals=asked, mutable=["batch_stats"]
    )[0]


def test_both_views_are_rows_of_pinets_batch():
    model, (inputs, labels) = build(), batch()
    outputs = learnt(model, inputs, labels)
    rows = siamese.rows(inputs, "transport").image
    asked = combined.proposals(model, labels)
    plain = build(pinet)
    own = variables(model)
    params = {k: v for k, v in own["params"].items() if k not in ("tell", "critic")}
    alone, _ = plain.apply(
        {**own, "params": params},
        inputs._replace(image=rows),
        train=True,
        proposals=asked,
        mutable=["batch_stats"],
    )
    np.testing.assert_allclose(
        outputs.whole.maps.heatmap, alone.maps.heatmap, rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(
        outputs.whole.refined, alone.refined, rtol=1e-3, atol=1e-3
    )


def test_what_is_told_teaches_nothing_else():
    model, (inputs, labels) = build(), batch()

    def told(params):
        state = {**variables(model), "params": params}
        outputs, _ = model.apply(
            state,
            inputs,
            train=True,
            proposals=combined.proposals(model, labels),
            mutable=["batch_stats"],
        )
        terms = combined.loss_terms(model, outputs, labels)
        return sum(jnp.sum(terms[name][0]) for name in ("labelled", "similarity"))

    grads = jax.jit(jax.grad(told))(variables(model)["params"])
    for name, grad in grads.items():
        assert any(np.any(x) for x in jax.tree.leaves(grad)) == (name == "tell"), name


def test_the_truth_is_that_of_the_nearest_person():
    model, (inputs, labels) = build(mimic="none"), batch(clean=False)
    outputs = learnt(model, inputs, labels)
    terms = combined.loss_terms(model, outputs, labels)
    joints = 4 * np.asarray(combined.joints_of(outputs.whole), float)
    valid = np.asarray(outputs.whole.proposals.valid).reshape(2, -1)
    quality = np.asarray(outputs.told.quality, float)
    values, weights = map(np.asarray, terms["similarity"])
    spread = 8 * np.square(COCO.sigmas)
    for image in range(2):
        for pose in range(joints.shape[1]):
            gap = np.sum((joints[image, pose] - labels.joints[image]) ** 2, axis=-1)
            alike = np.exp(-gap / (1500 * spread))
            nearest = np.argmax(alike.mean(axis=1))  # all joints are labelled
            wanted = np.abs(quality[image, pose] - alike[nearest])
            wanted = np.where(valid[image, pose], wanted, 0)
            np.testing.assert_allclose(values[image, pose], wanted, atol=1e-4)
            assert np.all(weights[image, pose] == valid[image, pose])


def test_unlabelled_joints_are_told_so_and_have_no_similarity():
    model, (inputs, labels) = build(mimic="none"), batch(clean=False)
    labels.visibility[:, :, :4] = 0
    outputs = learnt(model, inputs, labels)
    alike, labelled = rescoring.of_nearest(
        4 * combined.joints_of(outputs.whole), labels, COCO.sigmas
    )
    assert alike.shape == labelled.shape
    assert not np.any(labelled[..., :4])
    assert np.all(labelled[..., 4:])
    _, weights = combined.loss_terms(model, outputs, labels)["similarity"]
    assert not np.any(weights[..., :4])


def test_a_pose_is_scored_by_what_is_told_of_its_joints():
    model, (inputs, _) = build(fuse=False, nms=0.999), batch()
    outputs = jax.jit(lambda v, x: model.apply(v, x, train=False))(
        variables(model), inputs
    )
    poses = combined.decode(model, outputs, inputs)
    own = pinet.decode(model, outputs.whole, inputs)
    heat = combined.decode(model.clone(score="heatmap"), outputs, inputs)
    jax.tree.map(np.testing.assert_array_equal, heat, own)
    (found,) = outputs.whole.candidates
    labelled = 1 / (1 + np.exp(-np.asarray(outputs.told.labelled, float)))
    quality = np.asarray(outputs.told.quality, float)
    part = np.asarray(found.score, float)
    for image in range(2):
        scores = np.asarray(poses.score[image])
        for pose in np.flatnonzero(scores > -np.inf):
            joints = np.asarray(poses.joints[image, pose])
            gap = np.abs(joints - 4 * np.asarray(found.joints[image]))
            which = int(np.argmin(gap.max(axis=(1, 2))))
            share = labelled[image, which]
            mean = np.sum(share * quality[image, which]) / (np.sum(share) + 1e-6)
            np.testing.assert_allclose(
                scores[pose], part[image, which] * mean, rtol=1e-3
            )
            np.testing.assert_allclose(
                poses.labelled[image, pose], share, rtol=1e-3, atol=1e-5
            )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"score": "best"}, "score: expected one of oaks, heatmap, got 'best'"),
        ({"refine": "none"}, "score: 'oaks' judges refined poses"),
        ({"mimic": "copy"}, "mimic: expected one of transport, .* 'copy'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields)


def test_mimicry_without_twins_is_refused():
    inputs, labels = batch(clean=False)
    with pytest.raises(ValueError, match="'transport' needs clean twins"):
        learnt(build(), inputs, labels)
