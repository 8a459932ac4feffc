"""OASNet: two views in one batch, the occlusion of each, what is mimicked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from occjax.data import pipeline
from occjax.data.crowd import Crowd
from occjax.methods import oasnet
from occjax.nn import siamese
from occjax.nn.crop_model import Reading
from occjax.ops import joint_maps
from occjax.runtime import config as configs
from occjax.runtime import initial, metrics
from occjax.skeletons import COCO
from occjax.types import OCCLUDED, VISIBLE, Inputs, Labels

BACKBONE = {"name": "pyramid", "widths": (8, 16), "depths": (1, 1), "features": 8}
REPAIR = {"read": 12, "inner": 6}
COVERED, NATURAL = 3, 5  # joints hidden by a patch, and by nature


def build(**fields):
    fields = {"backbone": BACKBONE, "repair": REPAIR, **fields}
    return oasnet.Model(skeleton=COCO, sigma=1.0, **fields)


def batch(patched=True):
    """Two crops; the first view has a patch over a joint."""
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
    image = clean.copy()
    before = np.full((2, 1, 17), VISIBLE, np.uint8)
    before[:, :, NATURAL] = OCCLUDED
    seen = before.copy()
    if patched:
        image[:, 20:40, 20:40] = 0
        seen[:, :, COVERED] = OCCLUDED
    joints = rng.uniform(4, 60, (2, 1, 17, 2)).astype(np.float32)
    inputs = Inputs(
        image,
        np.full((2, 2), 64, np.int32),
        np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1)),
        clean=clean,
    )
    return inputs, Labels(
        joints,
        seen,
        np.full((2, 1), 900, np.float32),
        np.zeros((2, 16, 16), bool),
        np.zeros((2, 1), np.float32),
        before,
    )


def variables(model):
    return initial.variables(model, batch()[0], seed=0)


def forward(model, inputs, params=None):
    """Outputs in training; parameters whose features are not all alike."""
    found = variables(model)
    params = found["params"] if params is None else params
    return model.apply(
        {**found, "params": params}, inputs, train=True, mutable=["batch_stats"]
    )


def terms(model, inputs, labels, params=None):
    outputs, _ = forward(model, inputs, params)
    found = oasnet.loss_terms(model, outputs, labels)
    return {name: metrics.weighted_mean(*pair) for name, pair in found.items()}


def test_both_views_are_one_batch_of_the_same_network():
    model, (inputs, _) = build(), batch()
    siamese, stats = forward(model, inputs)
    rows = np.stack((inputs.image, inputs.clean), axis=1).reshape(4, 64, 64, 3)
    plain = build(mimic="none")
    params = {k: v for k, v in variables(model)["params"].items() if k != "critic"}
    alone, their_stats = plain.apply(
        {**variables(model), "params": params},
        inputs._replace(image=rows, clean=None),
        train=True,
        mutable=["batch_stats"],
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    close(siamese.maps[-1], alone.maps[-1])
    jax.tree.map(close, stats, their_stats)


def test_each_view_has_its_own_occlusion_and_both_the_same_joints():
    _, labels = batch()
    views = siamese.labels_of_rows(labels)
    hidden = joint_maps.occluded(views, (16, 16), 1.0, 4)
    maps, weight = joint_maps.targets_of_crops(views, (16, 16), 1.0, 4)
    np.testing.assert_array_equal(maps[::2], maps[1::2])
    assert np.all(weight == 1)  # a joint that a patch covers keeps its Gaussian
    natural, covered = maps[..., NATURAL], maps[..., COVERED]
    np.testing.assert_allclose(hidden[1::2], natural[1::2], atol=1e-6)
    both = np.minimum(natural + covered, 1)
    np.testing.assert_allclose(hidden[::2], both[::2], atol=1e-6)


@pytest.mark.parametrize("mimic", ["l2", "cosine", "kl"])
def test_without_patches_there_is_nothing_to_mimic(mimic):
    model, (inputs, labels) = build(mimic=mimic), batch(patched=False)
    np.testing.assert_allclose(terms(model, inputs, labels)["mimic"], 0, atol=1e-6)
    inputs, labels = batch()
    assert terms(model, inputs, labels)["mimic"] > 1e-6


def gradient_of_views(model, labels):
    """Gradient of the mimicry by the features of the two views, [2, B, h, w, C]."""
    rng = np.random.default_rng(1)
    features = jnp.asarray(rng.uniform(0, 1, (4, 16, 16, 12)), jnp.float32)
    outputs, _ = forward(model, batch()[0])
    (repaired,) = outputs.read.repaired

    def mimic(features):
        changed = (repaired._replace(features=features),)
        views = outputs._replace(read=outputs.read._replace(repaired=changed))
        found = oasnet.loss_terms(model, views, labels)
        return metrics.weighted_mean(*found["mimic"])

    value, grad = jax.value_and_grad(mimic)(features)
    return value, grad.reshape(2, 2, 16, 16, 12).swapaxes(0, 1)


@pytest.mark.parametrize("mimic", ["transport", "l2", "cosine", "kl"])
@pytest.mark.parametrize("detach", [False, True])
def test_both_views_learn_to_be_alike_unless_the_clean_one_is_detached(mimic, detach):
    model = build(mimic=mimic, detach_clean=detach)
    _, grad = gradient_of_views(model, batch()[1])
    assert np.any(grad[0])
    assert np.any(grad[1]) != detach


@pytest.mark.parametrize("mimic", ["transport", "l2", "cosine", "kl"])
@pytest.mark.parametrize("mask", ["soft", "binary"])
def test_what_nature_hides_in_the_clean_view_is_not_mimicked(mimic, mask):
    model, (_, labels) = build(mimic=mimic, mask=mask), batch()
    at = np.rint(labels.joints[:, 0, NATURAL] / 4).astype(int)
    _, grad = gradient_of_views(model, labels)
    _, everywhere = gradient_of_views(build(mimic=mimic, mask="none"), labels)
    for crop, (x, y) in enumerate(at):
        np.testing.assert_allclose(grad[:, crop, y, x], 0, atol=1e-9)
        assert np.any(everywhere[:, crop, y, x])


def test_with_everything_hidden_transport_is_constant():
    _, labels = batch()
    joints = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(1, 1, 16, 2)
    joints = np.tile(16 * joints.astype(np.float32) + 6, (2, 1, 1, 1))
    joints = np.concatenate((joints, joints[:, :, :1]), axis=2)
    hidden = np.full((2, 1, 17), OCCLUDED, np.uint8)
    labels = labels._replace(joints=joints, visibility=hidden, clean_visibility=hidden)
    model = oasnet.Model(skeleton=COCO, sigma=9.0, backbone=BACKBONE, repair=REPAIR)
    _, grad = gradient_of_views(model, labels)
    assert not np.any(grad)


def test_a_test_needs_neither_critic_nor_twin():
    model, (inputs, _) = build(), batch()
    found = variables(model)
    without = {k: v for k, v in found["params"].items() if k != "critic"}
    outputs = model.apply(
        {**found, "params": without}, inputs._replace(clean=None), train=False
    )
    assert outputs.critic is None
    assert outputs.read.repaired == ()
    assert outputs.read.hidden.shape == (2, 16, 16)
    assert outputs.maps[-1].shape == (2, 16, 16, 17)


def test_classes_learn_by_cross_entropy():
    repair = {**REPAIR, "told": "classes", "erase": False}
    model, (inputs, labels) = build(mimic="none", repair=repair), batch()
    outputs, _ = forward(model, inputs)
    logits = np.asarray(outputs.read.repaired[0].classes, float)  # [4, 17, 3]
    seen = np.stack((labels.visibility, labels.clean_visibility), 1).reshape(4, 17)
    likely = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    wanted = -np.take_along_axis(likely, seen[..., None].astype(int), -1).sum((1, 2))
    values, _ = oasnet.loss_terms(model, outputs, labels)["occlusion"]
    np.testing.assert_allclose(values, wanted, rtol=1e-5)


@pytest.mark.parametrize("everywhere", [False, True])
def test_hourglasses_are_repaired_and_learn(everywhere):
    backbone = {"name": "hourglass", "stacks": 3, "levels": 1, "stem": (8, 8, 8)}
    model = build(
        backbone={**backbone, "repair_all": everywhere}, repair={"read": 0, "inner": 4}
    )
    inputs, labels = batch()
    outputs, _ = forward(model, inputs)
    assert len(outputs.maps) == 3
    assert len(outputs.read.repaired) == (3 if everywhere else 1)
    found = terms(model, inputs, labels)
    assert set(found) == {"heatmap", "occlusion", "mimic"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mimic": "copy"}, "mimic: expected one of transport, l2, cosine, kl, none"),
        ({"mask": "hard"}, "mask: expected one of soft, binary, none, got 'hard'"),
        ({"decoder": "best"}, "decoder: .*'best'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields)


def test_mimicry_without_twins_is_refused():
    inputs, _ = batch()
    with pytest.raises(ValueError, match="'transport' needs clean twins .*paste_pat"):
        forward(build(), inputs._replace(clean=None))


def test_features_come_to_be_like_those_of_the_own_twin_and_of_no_other():
    config = configs.load("configs/oasnet.py:smoke")
    settings = configs.data_settings(config)
    source = Crowd(num_scenes=64, size=(64, 64), people=(1, 2))
    model = build(repair={**REPAIR, "skip": True}, transport={"epsilon": 0.1})
    state = initial.variables(model, batch()[0], seed=0)
    transform = optax.adam(3e-3)
    opt_state = transform.init(state["params"])

    def loss(params, stats, views):
        outputs, updates = model.apply(
            {"params": params, "batch_stats": stats},
            views.inputs,
            train=True,
            mutable=["batch_stats"],
        )
        found = oasnet.loss_terms(model, outputs, views.labels)
        found = {name: metrics.weighted_mean(*pair) for name, pair in found.items()}
        total = found["heatmap"] + found["occlusion"] + 0.01 * found["mimic"]
        return total, (found["mimic"], updates["batch_stats"])

    @jax.jit
    def update(params, stats, opt_state, views):
        grads, (mimic, stats) = jax.grad(loss, has_aux=True)(params, stats, views)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = transform.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state, mimic

    params, stats = state["params"], state["batch_stats"]
    batches, history = pipeline.train_batches(source, settings, 8, seed=0), []
    for _ in range(120):
        views = next(batches)
        params, stats, opt_state, mimic = update(params, stats, opt_state, views)
        history.append(float(mimic))
    own = loss(params, stats, views)[1][0]
    turned = views.inputs._replace(clean=np.roll(views.inputs.clean, 1, axis=0))
    other = loss(params, stats, views._replace(inputs=turned))[1][0]
    assert np.mean(history[-10:]) < 0.5 * np.mean(history[:10])
    assert other > 2 * own


def test_joints_are_visible_where_the_map_knows_no_occlusion():
    model, (inputs, _) = build(), batch()
    maps = np.zeros((2, 16, 16, 17), np.float32)
    maps[:, 5, 3] = 1
    hidden = np.zeros((2, 16, 16), np.float32)
    hidden[0, 5, 3], hidden[1, 5, 3] = 0.75, -0.5
    read = Reading((jnp.asarray(maps),), hidden=jnp.asarray(hidden))
    outputs = oasnet.Outputs(read)
    seen = oasnet.decode(model, outputs, jax.tree.map(jnp.asarray, inputs)).visible
    np.testing.assert_allclose(seen[0], 0.25, atol=1e-5)
    np.testing.assert_allclose(seen[1], 1)
    outputs = oasnet.Outputs(read._replace(hidden=None))
    blind = oasnet.decode(model, outputs, inputs).visible
    assert np.all(np.isnan(blind))


def test_the_map_of_occlusion_is_a_mean_of_both_orientations():
    model, (inputs, _) = build(flip_test=True, shift_heatmap=False), batch()
    state = variables(model)
    found = model.apply(state, inputs, train=False).read.hidden
    mirrored = inputs._replace(image=inputs.image[:, :, ::-1].copy())
    other = model.apply(state, mirrored, train=False).read.hidden
    np.testing.assert_allclose(found, other[:, :, ::-1], atol=1e-5)
