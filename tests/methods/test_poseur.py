"""Poseur: what its poses learn from, how they are read, and DAG's parts in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from offsets import moving

from configs import common
from configs import poseur as experiment
from occjax.methods import poseur
from occjax.nn.query_decoder import Guess
from occjax.ops import joint_maps, sampling
from occjax.runtime import initial, step
from occjax.skeletons import COCO
from occjax.types import Inputs, Labels

BACKBONE = {
    "name": "pyramid",
    "widths": (8, 16),
    "depths": (1, 1),
    "features": 8,
    "all_levels": True,
}
SMALL = {"features": 8, "layers": 2, "heads": 2, "points": 2}
PARTS = {"attend": {}, "refine": {"hidden": 8, "blocks": 1}, "sigma": 1.0}
HEIGHT, WIDTH = 64, 32


def build(**fields):
    return poseur.Model(skeleton=COCO, **{"backbone": BACKBONE, **SMALL, **fields})


def batch(persons=2):
    rng = np.random.default_rng(0)
    inputs = Inputs(
        rng.integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8),
        np.tile(np.array([HEIGHT, WIDTH], np.int32), (2, 1)),
        np.tile(np.array([[2, 0, 5], [0, 2, -3]], np.float32), (2, 1, 1)),
        box_score=np.array([1, 0.5], np.float32),
    )
    joints = rng.uniform(1, (WIDTH - 2, HEIGHT - 2), (2, persons, 17, 2))
    labels = Labels(
        joints.astype(np.float32),
        rng.integers(1, 3, (2, persons, 17)).astype(np.uint8),
        np.full((2, persons), 900, np.float32),
        np.zeros((2, HEIGHT // 4, WIDTH // 4), bool),
        np.zeros((2, persons), np.float32),
    )
    return inputs, labels


def variables(model):
    """Start values with guesses that differ from crop to crop."""
    state = initial.variables(model, batch()[0], seed=0)
    rng = np.random.default_rng(1)

    def stronger(path, leaf):
        moves = any(name in jax.tree_util.keystr(path) for name in ("move", "offsets"))
        return leaf + (0.2 * moves * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(stronger, state)


def learnt(model, state, inputs):
    return model.apply(state, inputs, train=True, mutable=["batch_stats"])[0]


def perfect(outputs, labels):
    """The same with every pose where it should be."""
    truth = labels.joints[:, 0]
    unit = sampling.to_unit(truth, (0, 0), (WIDTH, HEIGHT))
    guesses = tuple(Guess(unit, one.spread) for one in outputs.guesses)
    return outputs._replace(joints=truth, guesses=guesses)


def test_poses_are_those_of_the_last_layer_in_pixels_of_the_source():
    model, (inputs, _) = build(flip_test=False), batch()
    state = variables(model)
    outputs = model.apply(state, inputs, train=False)
    poses = poseur.decode(model, outputs, inputs)
    expected = 2 * np.asarray(outputs.joints) + np.array([5, -3])
    np.testing.assert_allclose(poses.joints[:, 0], expected, rtol=1e-5)
    np.testing.assert_array_equal(poses.joint_score[:, 0], outputs.score)

    trained = learnt(model, state, inputs)
    assert len(trained.guesses) == 1 + model.layers
    last = trained.guesses[-1]
    pixels = sampling.from_unit(last.mean, (0, 0), (WIDTH, HEIGHT))
    np.testing.assert_allclose(trained.joints, pixels, rtol=1e-5)
    np.testing.assert_allclose(trained.score, 1 - np.mean(last.spread, -1), rtol=1e-5)


def test_a_pose_is_scored_by_its_confident_joints_and_its_box():
    model, (inputs, _) = build(confident=0.5), batch()
    score = np.tile(np.linspace(0.1, 0.9, 17, dtype=np.float32), (2, 1))
    outputs = poseur.Outputs(jnp.zeros((2, 17, 2)), jnp.asarray(score))
    found = poseur.decode(model, outputs, inputs).score[:, 0]
    mean = score[0][score[0] > 0.5].mean()
    np.testing.assert_allclose(found, [mean, mean / 2], rtol=1e-5)


def test_with_the_flip_test_a_mirrored_crop_has_the_mirrored_pose():
    model, (inputs, _) = build(), batch()
    state = variables(model)
    mirrored = inputs._replace(image=inputs.image[:, :, ::-1].copy())
    ours, theirs = (model.apply(state, one, train=False) for one in (inputs, mirrored))
    flip = np.array(COCO.flip)
    back = np.asarray(theirs.joints)[:, flip] * [-1, 1] + [WIDTH - 1, 0]
    np.testing.assert_allclose(ours.joints, back, atol=1e-3)
    np.testing.assert_allclose(ours.score, theirs.score[:, flip], atol=1e-5)
    alone = model.clone(flip_test=False).apply(state, inputs, train=False)
    assert np.any(np.abs(ours.joints - alone.joints) > 1e-2)


def test_joints_without_label_or_outside_of_the_crop_have_no_weight():
    model, (inputs, labels) = build(**PARTS), batch()
    outputs = learnt(model, variables(model), inputs)
    before = poseur.loss_terms(model, outputs, labels)
    labels.visibility[0, 0, :3] = 0
    labels.joints[0, 0, :3] = np.nan
    labels.joints[1, 0, 5] = (-1, 10)
    labels.joints[1, 0, 6] = (10, HEIGHT)
    expected = np.ones((2, 17))
    expected[0, :3] = expected[1, 5] = expected[1, 6] = 0
    after = poseur.loss_terms(model, outputs, labels)
    for name in ("coarse", "regress", "pose"):
        values, weights = after[name]
        assert values.dtype == weights.dtype == jnp.float32
        np.testing.assert_array_equal(weights, expected)
        assert np.all(np.isfinite(values))
        kept = expected > 0
        np.testing.assert_allclose(values[kept], before[name][0][kept], rtol=1e-5)


def test_better_poses_have_lower_losses():
    model, (inputs, labels) = build(**PARTS), batch()
    outputs = learnt(model, variables(model), inputs)
    right = poseur.loss_terms(model, perfect(outputs, labels), labels)
    wrong = poseur.loss_terms(model, outputs, labels)
    for name in ("coarse", "regress", "pose"):
        assert np.mean(right[name][0]) < np.mean(wrong[name][0])
    np.testing.assert_allclose(right["pose"][0], 0, atol=1e-6)


def test_each_kind_of_pose_has_a_flow_of_its_own():
    model, (inputs, labels) = build(), batch()
    state = variables(model)

    def loss(params, name):
        outputs = learnt(model, {**state, "params": params}, inputs)
        return jnp.sum(poseur.loss_terms(model, outputs, labels)[name][0])

    for name in ("coarse", "regress"):
        grads = jax.grad(loss)(state["params"], name)
        for flow in ("coarse", "regress"):
            taught = any(np.any(x) for x in jax.tree.leaves(grads[f"flows_{flow}"]))
            assert taught == (flow == name)
        assert any(np.any(x) for x in jax.tree.leaves(grads["start"])) == (
            name == "coarse"  # where the layers start from is a constant to them
        )
        assert any(np.any(x) for x in jax.tree.leaves(grads["trunk"]))


def test_a_test_needs_no_flows():
    model, (inputs, _) = build(), batch()
    state = variables(model)
    flows = {"flows_coarse", "flows_regress"}
    params = {k: v for k, v in state["params"].items() if k not in flows}
    assert set(params) == {"trunk", "neck", "start", "decoder"}
    outputs = model.apply({**state, "params": params}, inputs, train=False)
    assert outputs.flow is None


def test_parts_that_are_off_leave_the_plain_network():
    off = {"channel": False, "spatial": False, "everybody": "none"}
    plain, model = build(), build(attend=off, refine={"hops": 0})
    (inputs, labels), state = batch(persons=1), variables(plain)
    found, expected = (learnt(one, state, inputs) for one in (model, plain))
    np.testing.assert_array_equal(found.joints, expected.joints)
    assert set(poseur.loss_terms(model, found, labels)) == {"coarse", "regress"}


def test_everybody_are_learnt_on_the_finest_level_as_in_other_methods():
    model, (inputs, labels) = build(**PARTS), batch()
    outputs = learnt(model, variables(model), inputs)
    size = (HEIGHT // 4, WIDTH // 4)
    assert outputs.everybody.shape == (2, *size, 17)
    target, _ = joint_maps.everybody(labels, size, 1.0, 4)
    told = outputs._replace(everybody=target)
    values, weights = poseur.loss_terms(model, told, labels)["everybody"]
    np.testing.assert_allclose(values, 0, atol=1e-12)
    np.testing.assert_array_equal(weights, 1)
    with pytest.raises(ValueError, match=r"attend.everybody: .* data.max_persons"):
        poseur.loss_terms(model, outputs, batch(persons=1)[1])


def test_the_graph_moves_the_last_pose_and_does_not_teach_it():
    model, (inputs, labels) = build(**PARTS), batch()
    still = variables(model)
    state = moving(still)
    moved = model.apply(state, inputs, train=False)
    left = model.apply(still, inputs, train=False)
    without = model.clone(refine=None)
    plain = without.apply(state, inputs, train=False)
    np.testing.assert_allclose(left.joints, plain.joints, atol=1e-3)
    assert np.any(np.abs(moved.joints - plain.joints) > 1e-3)
    np.testing.assert_array_equal(moved.score, plain.score)

    def loss(params):
        outputs = learnt(model, {**state, "params": params}, inputs)
        return jnp.sum(poseur.loss_terms(model, outputs, labels)["pose"][0])

    grads = jax.grad(loss)(state["params"])
    for leaf in jax.tree.leaves((grads["decoder"], grads["start"])):
        assert not np.any(leaf)
    for name in ("refiner", "attend", "trunk"):
        assert any(np.any(x) for x in jax.tree.leaves(grads[name]))


@pytest.mark.parametrize(
    ("backbone", "levels"),
    [
        ({"name": "resnet", "depth": 18, "width": 4}, 4),
        ({"name": "pyramid", "widths": (8, 16), "depths": (1, 1), "features": 8}, 1),
        (BACKBONE, 2),
    ],
)
def test_all_levels_of_a_backbone_are_seen(backbone, levels):
    model = build(backbone=backbone)
    shapes = step.variable_shapes(model, (HEIGHT, WIDTH, 3))["params"]
    assert len(shapes["neck"]) == levels
    offsets = shapes["decoder"]["layer0"]["look"]["offsets"]["bias"]
    assert offsets.shape == (levels * 2 * 2 * 2,)


@pytest.mark.parametrize("field", ["layers", "points", "sigma"])
def test_fields_that_make_no_sense_are_refused(field):
    with pytest.raises(ValueError, match=f"{field}: expected more than 0, got 0"):
        build(**{field: 0})


def test_several_scales_are_refused():
    model, (inputs, _) = build(), batch()
    inputs = inputs._replace(scaled=(inputs.image,))
    with pytest.raises(ValueError, match="scales: Poseur reads crops of one scale"):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), inputs)


@pytest.mark.parametrize("variant", ["", "smoke", "dag", "coco", "coco_dag"])
def test_the_losses_of_a_config_are_those_of_its_model(variant):
    config = experiment.get_config(variant)
    method, model = step.build_model(config, COCO)
    inputs, labels = batch(persons=config.data.max_persons)
    height, width = config.data.size
    image = jnp.zeros((2, height, width, 3), jnp.uint8)
    labels = labels._replace(ignore=jnp.zeros((2, height // 4, width // 4), bool))

    def terms(inputs, labels):
        outputs, _ = model.init_with_output(jax.random.key(0), inputs, train=True)
        return method.loss_terms(model, outputs, labels)

    inputs = inputs._replace(image=image)
    assert set(jax.eval_shape(terms, inputs, labels)) == set(config.loss)


def test_coco_has_the_published_settings():
    config = experiment.get_config("coco")
    epoch = common.COCO_PEOPLE // 256
    assert (config.batch_size, config.steps) == (256, 325 * epoch)
    assert config.optim.schedule.at == (255 * epoch, 310 * epoch)
    assert (config.optim.name, config.optim.lr) == ("adamw", 1e-3)
    assert config.optim.weight_decay == 1e-4
    assert (config.model.layers, config.model.features) == (6, 256)
    augment = config.data.augment
    assert (augment.scale, augment.rotate, augment.half_body) == ((0.5, 1.5), 80.0, 0.3)
