"""What DEKR promises, on a network small enough to compile in a moment."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from occjax.methods import dekr
from occjax.nn import rescorer
from occjax.ops import rescoring
from occjax.ops.part_poses import Candidates
from occjax.runtime import metrics
from occjax.skeletons import COCO, CROWDPOSE, MPII
from occjax.types import Inputs, Labels

BACKBONE = {"name": "pyramid", "widths": (8, 16), "depths": (1, 1), "features": 16}
SIZE, MAP = 64, 16
KEY = jax.random.key(0)


def small(**fields):
    settings = {"heatmap_features": 8, "joint_features": 3, "adaptive_blocks": 1}
    settings |= {"centre_sigma": 2.0, "offset_radius": 2, "small_area": 0.0}
    return dekr.Model(COCO, BACKBONE, **{**settings, **fields})


def example(batch=2, seed=0):
    image = np.random.default_rng(seed).uniform(0, 255, (batch, SIZE, SIZE, 3))
    to_source = np.asarray([[2.0, 0, -7], [0, 2, 5]], np.float32)
    return Inputs(
        image=jnp.asarray(image, jnp.float32),
        valid=jnp.full((batch, 2), SIZE),
        to_source=jnp.asarray(np.repeat(to_source[None], batch, axis=0)),
    )


def people(batch=2, persons=2, seed=1, spread=6):
    """People side by side, all joints labelled."""
    rng = np.random.default_rng(seed)
    middle = np.stack([np.linspace(18, 46, persons), np.full(persons, 32)], axis=-1)
    joints = middle[:, None] + rng.uniform(-spread, spread, (batch, persons, 17, 2))
    return Labels(
        joints=jnp.asarray(joints, jnp.float32),
        visibility=jnp.full((batch, persons, 17), 2, jnp.uint8),
        area=jnp.full((batch, persons), 4.0 * spread**2),
        ignore=jnp.zeros((batch, MAP, MAP), bool),
        head_size=jnp.zeros((batch, persons), jnp.float32),
    )


def reduced(model, variables, inputs, labels):
    outputs, changed = model.apply(
        variables, inputs, train=True, mutable=["batch_stats"]
    )
    terms = dekr.loss_terms(model, outputs, labels)
    return {k: metrics.weighted_mean(*pair) for k, pair in terms.items()}, changed


@pytest.fixture(scope="module")
def learnt():
    """A model, a batch and variables that know it by heart; losses on the way."""
    model, inputs, labels = small(), example(), people()
    variables = jax.jit(model.init, static_argnames="train")(KEY, inputs, train=True)
    # the rate falls: at a constant one the last steps still jump about
    adam = optax.adam(optax.cosine_decay_schedule(5e-3, 800))
    stats = variables["batch_stats"]

    def loss(params, stats):
        given = {"params": params, "batch_stats": stats}
        terms, changed = reduced(model, given, inputs, labels)
        return terms["heatmap"] + 0.5 * terms["offset"], (terms, changed)

    @jax.jit
    def update(params, stats, state):
        grad, (terms, changed) = jax.grad(loss, has_aux=True)(params, stats)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = adam.update(grad, state)
        return optax.apply_updates(params, updates), changed, state, terms

    params, state, history = variables["params"], adam.init(variables["params"]), []
    for _ in range(800):
        params, changed, state, terms = update(params, stats, state)
        stats = changed["batch_stats"]
        history.append({name: float(value) for name, value in terms.items()})
    return model, {"params": params, "batch_stats": stats}, inputs, labels, history


def poses_of(model, variables, inputs):
    outputs = model.apply(variables, inputs, train=False)
    return dekr.decode(model, outputs, inputs)


@pytest.mark.parametrize("fuse", [False, True])
def test_a_batch_learnt_by_heart_is_decoded_to_its_people(learnt, fuse):
    model, variables, inputs, labels, history = learnt
    for name in ("heatmap", "offset"):
        assert history[-1][name] < 0.1 * history[0][name]
    model = model.clone(flip_test=False, fuse=fuse)
    poses = jax.jit(functools.partial(poses_of, model))(variables, inputs)
    truth = 2 * np.asarray(labels.joints) + np.asarray([-7, 5])
    for image in range(2):
        assert np.sum(np.asarray(poses.score[image]) > 0.2) == 2
        for person in truth[image]:
            gap = np.linalg.norm(np.asarray(poses.joints[image, :2]) - person, axis=-1)
            assert gap.mean(axis=1).min() < 3  # source pixels; a map pixel is 8


def test_the_rescoring_net_learns_the_oks_and_moves_nothing_else(learnt):
    model, variables, inputs, labels, _ = learnt
    model = model.clone(rescore=True, flip_test=False)
    fresh = jax.jit(model.init, static_argnames="train")(KEY, inputs, train=False)
    params = {**variables["params"], "rescorer": fresh["params"]["rescorer"]}
    given = {"params": params, "batch_stats": variables["batch_stats"]}

    def loss(params):
        return reduced(model, {**given, "params": params}, inputs, labels)[0]["rescore"]

    value, grad = jax.jit(jax.value_and_grad(loss))(params)
    assert value > 0
    for name, tree in grad.items():
        moves = any(np.any(leaf) for leaf in jax.tree.leaves(tree))
        assert moves == (name == "rescorer")
    plain = jax.jit(functools.partial(poses_of, model.clone(rescore=False)))
    before = plain(variables, inputs)
    after = jax.jit(functools.partial(poses_of, model))(given, inputs)
    expected = jax.jit(functools.partial(model.apply, train=False))(given, inputs)
    assert expected.expected.shape == (2, model.peaks)
    there = np.asarray(before.score) > -np.inf
    np.testing.assert_array_equal(
        there.sum(1), (np.asarray(after.score) > -np.inf).sum(1)
    )
    assert np.any(np.asarray(before.score)[there] != np.asarray(after.score)[there])


def candidates_of(joints, score, width=MAP):
    joints = jnp.asarray(joints, jnp.float32)
    heatmap = jnp.ones((joints.shape[0], MAP, width, 17))
    pixels = jnp.zeros((*joints.shape[:2], 2), jnp.int32)  # nothing looks at them
    return Candidates(heatmap, joints, jnp.asarray(score, jnp.float32), pixels)


def decoded(model, *found):
    inputs = example(1)
    outputs = dekr.Outputs(None, inputs.to_source, found)
    return dekr.decode(model, outputs, inputs)


def test_one_of_two_nearby_poses_stays_and_others_do_too():
    rng = np.random.default_rng(0)
    one = rng.uniform(2, 12, (17, 2))
    other = one[::-1]
    near = one + 0.01
    found = candidates_of([[one, near, other]], [[0.5, 0.9, 0.7]])
    poses = decoded(small(), found)
    there = np.asarray(poses.score[0]) > -np.inf
    # maps are 1 everywhere, so that the first of the two nearby ones stays
    np.testing.assert_allclose(poses.score[0][there], [0.7, 0.5], rtol=1e-6)
    wanted = 2 * 4 * np.stack([other, one]) + np.asarray([-7, 5])
    np.testing.assert_allclose(poses.joints[0][there], wanted, rtol=1e-5)
    fused = decoded(small(fuse=True, nms=0.9), found)
    np.testing.assert_allclose(fused.score[0], [0.9, 0.7, -np.inf], rtol=1e-6)


def test_larger_scales_come_first_in_the_suppression():
    pose = np.random.default_rng(0).uniform(2, 12, (17, 2))
    found = candidates_of([[pose]], [[0.5]])
    twice = found._replace(
        heatmap=jnp.ones((1, 2 * MAP, 2 * MAP, 17)), joints=2 * found.joints + 0.01
    )
    poses = decoded(small(scale_decrease=0.9), found, twice)
    there = np.asarray(poses.score[0]) > -np.inf
    np.testing.assert_allclose(poses.score[0][there], [0.45], rtol=1e-6)


def test_of_too_many_poses_those_that_maps_believe_in_stay():
    rng = np.random.default_rng(0)
    joints = rng.uniform(0, 16, (1, 6, 17, 2))
    found = candidates_of(joints, np.linspace(0.9, 0.2, 6)[None])
    ramp = jnp.asarray(rng.uniform(size=found.heatmap.shape), jnp.float32)
    found = found._replace(heatmap=ramp)
    response = dekr._scored(small(), [found], (SIZE, SIZE)).response.mean(axis=-1)
    poses = decoded(small(max_poses=2, near=0.0), found)
    best = np.argsort(-response[0])[:2]
    wanted = 8 * joints[0][np.sort(best)] + np.asarray([-7, 5])
    np.testing.assert_allclose(
        np.sort(poses.joints[0], axis=0), np.sort(wanted, axis=0), rtol=1e-4
    )


def areas(joints, seen, **fields):
    labels = people(1, 1)._replace(
        joints=jnp.asarray(joints, jnp.float32)[None, None],
        visibility=jnp.asarray(seen, jnp.uint8)[None, None],
        area=jnp.full((1, 1), 100.0),
    )
    to_source = jnp.asarray([[[2.0, 0, 10], [0, 2, 20]]])
    return dekr.people_on_map(small(**fields), labels, to_source)


def test_area_is_measured_from_the_corner_of_the_source_image():
    joints, seen = np.zeros((17, 2)), np.zeros(17)
    joints[0], joints[1], seen[:2] = (10, 30), (20, 40), 2
    # in the source (30, 80) and (50, 100), where a square of 2 is one input pixel
    assert areas(joints, seen).area[0, 0] == (50**2 + 100**2) / 4
    found = areas(joints, seen, extent_from_origin=False)
    assert found.area[0, 0] == (20**2 + 20**2) / 4
    np.testing.assert_allclose(found.centres[0, 0, 0], (15 / 4, 35 / 4))


def test_who_is_small_in_the_source_has_no_centre_but_joints():
    joints, seen = np.full((17, 2), 20.0), np.full(17, 1)
    for small_area, there in ((400.0, True), (401.0, False)):
        found = areas(joints, seen, small_area=small_area)
        assert found.present[0, 0, 0] == there
        assert np.all(found.labelled)


def test_the_best_oks_is_a_loop_over_people():
    rng, labels = np.random.default_rng(0), people(2, 3)
    labels = labels._replace(
        visibility=jnp.asarray(rng.integers(0, 3, (2, 3, 17)), jnp.uint8),
        area=labels.area.at[0, 2].set(0),
    )
    joints = rng.uniform(0, 64, (2, 4, 17, 2)).astype(np.float32)
    joints[0, 0] = labels.joints[0, 1]
    found = rescoring.best_oks(jnp.asarray(joints), labels, COCO.sigmas)
    assert found[0, 0] == 1
    for image, pose in np.ndindex(2, 4):
        oks = [0.0]
        for person in range(3):
            seen = np.asarray(labels.visibility[image, person]) > 0
            area = float(labels.area[image, person])
            if area > 0:
                gap = joints[image, pose] - np.asarray(labels.joints[image, person])
                e = np.sum(gap**2, axis=-1) / (8 * area * np.square(COCO.sigmas))
                oks.append(np.mean(np.exp(-e)[seen]))
        np.testing.assert_allclose(found[image, pose], max(oks), rtol=1e-4)


def test_features_of_the_rescoring_net_ignore_place_and_size():
    rng = np.random.default_rng(0)
    joints = jnp.asarray(rng.uniform(0, 100, (1, 2, 17, 2)), jnp.float32)
    score = jnp.asarray(rng.uniform(size=(1, 2, 17)), jnp.float32)
    links = rescorer.LINKS["coco"]
    found = rescoring.limb_features(joints, score, links)
    moved = rescoring.limb_features(3 * joints + 50, score, links)
    np.testing.assert_allclose(found, moved, rtol=1e-3, atol=1e-5)
    point = rescoring.limb_features(0 * joints, score, links)
    np.testing.assert_array_equal(point[..., 57:], score)
    assert not np.any(point[..., :57])


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"peaks": 0}, "peaks: expected 1 or more, got 0"),
        ({"offset_radius": 0}, "offset_radius: expected 1"),
        ({"centre_sigma": 0.1}, "centre_sigma: expected 0.5 or more, got 0.1"),
        ({"rescore": True, "skeleton": MPII}, "coco or crowdpose, got those of mpii"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, match):
    with pytest.raises(ValueError, match=match):
        dekr.Model(**{"skeleton": CROWDPOSE, "backbone": BACKBONE, **fields})
