"""DAG: what its attention and its graph learn from, are read from and cost."""

import golden_nets as nets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from offsets import moving

from configs import dag as experiment
from occjax.methods import dag, oahpe, oasnet, top_down
from occjax.nn.crop_model import Reading
from occjax.nn.guided_refine import GuidedRefine
from occjax.ops import joint_maps, sampling
from occjax.runtime import initial, step
from occjax.skeletons import COCO
from occjax.types import Inputs, Labels

BACKBONE = {"name": "pyramid", "widths": (8, 16), "depths": (1, 1), "features": 8}
REFINE = {"hidden": 8, "blocks": 1}


def build(method=dag, **fields):
    fields = {"refine": REFINE, "attend": {}, "sigma": 1.0} | fields
    return method.Model(skeleton=COCO, backbone=BACKBONE, **fields)


def batch(persons=2, size=64):
    rng = np.random.default_rng(0)
    inputs = Inputs(
        rng.integers(0, 256, (2, size, size, 3), np.uint8),
        np.full((2, 2), size, np.int32),
        np.tile(np.array([[2, 0, 5], [0, 2, -3]], np.float32), (2, 1, 1)),
    )
    labels = Labels(
        rng.uniform(4, size - 4, (2, persons, 17, 2)).astype(np.float32),
        rng.integers(1, 3, (2, persons, 17)).astype(np.uint8),
        np.full((2, persons), 900, np.float32),
        np.zeros((2, size // 4, size // 4), bool),
        np.zeros((2, persons), np.float32),
    )
    return inputs, labels


def variables(model, seed=0):
    """Start values, and a graph that does move joints."""
    return moving(initial.variables(model, batch()[0], seed=seed))


def learnt(model, state, inputs):
    return model.apply(state, inputs, train=True, mutable=["batch_stats"])[0]


def test_the_graph_starts_where_it_leaves_the_pose_of_the_maps():
    model, (inputs, _) = build(double=True), batch()
    state = initial.variables(model, inputs, seed=0)
    with_graph = model.apply(state, inputs, train=False)
    plain = with_graph._replace(pose=None)
    moved, left = (dag.decode(model, one, inputs) for one in (with_graph, plain))
    np.testing.assert_allclose(moved.joints, left.joints, atol=1e-3)
    np.testing.assert_array_equal(moved.score, left.score)


def test_the_graph_moves_joints_in_the_source_and_leaves_their_scores():
    model, (inputs, _) = build(), batch()
    found = model.apply(variables(model), inputs, train=False)
    shifted = found._replace(pose=found.pose + 3)
    first, second = (dag.decode(model, one, inputs) for one in (found, shifted))
    np.testing.assert_allclose(second.joints, first.joints + 2 * 3, atol=1e-3)
    np.testing.assert_array_equal(first.joint_score, second.joint_score)


def test_with_several_scales_the_graph_starts_from_their_mean():
    model, (inputs, _) = build(flip_test=False), batch()
    state = initial.variables(model, inputs, seed=0)
    inputs = inputs._replace(
        scaled=(inputs.image,), scaled_to_source=(inputs.to_source,)
    )
    found = model.apply(state, inputs, train=False)
    moved = dag.decode(model, found, inputs).joints
    left = dag.decode(model, found._replace(pose=None), inputs).joints
    np.testing.assert_allclose(moved, left, atol=1e-2)


@pytest.mark.parametrize("double", [False, True])
def test_doubled_maps_have_half_the_stride_and_the_same_parameters(double):
    model, (inputs, labels) = build(double=double), batch()
    state = variables(model)
    outputs = learnt(model, state, inputs)
    side = 32 if double else 16
    assert outputs.maps[-1].shape == outputs.everybody.shape == (2, side, side, 17)
    assert model.stride == 64 // side
    target, _ = joint_maps.everybody(labels, (side, side), 1.0, model.stride)
    perfect = outputs._replace(maps=(outputs.maps[-1],), everybody=target)
    values, _ = dag.loss_terms(model, perfect, labels)["everybody"]
    np.testing.assert_allclose(values, 0, atol=1e-12)
    shapes = jax.tree.map(jnp.shape, state["params"])
    assert shapes == jax.tree.map(jnp.shape, variables(build())["params"])


def test_the_loss_of_the_pose_is_its_error_where_the_crop_is_two_wide():
    model, (_, labels) = build(double=False), batch()
    labels.visibility[0, 0, :5] = 0
    labels.joints[0, 0, :5] = np.nan
    pose = labels.joints[:, 0] + np.array([3, -1], np.float32)
    maps = jnp.zeros((2, 16, 16, 17))
    outputs = Reading((maps,), pose=jnp.nan_to_num(jnp.asarray(pose)))
    values, weights = dag.loss_terms(model, outputs, labels)["pose"]
    expected = np.full((2, 17), (3 + 1) / 2 * 2 / 64)
    expected[0, :5] = 0
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    np.testing.assert_array_equal(weights, 1)  # the unlabelled count as well


def gradient_of_the_pose(model, state, inputs, labels):
    def loss(params):
        outputs = learnt(model, {**state, "params": params}, inputs)
        values, _ = dag.loss_terms(model, outputs, labels)["pose"]
        return jnp.sum(values)

    return jax.grad(loss)(state["params"])


def test_the_pose_teaches_the_features_but_not_where_the_maps_are_highest():
    model, (inputs, labels) = build(), batch()
    grads = gradient_of_the_pose(model, variables(model), inputs, labels)
    assert any(np.any(x) for x in jax.tree.leaves(grads["trunk"]))
    for leaf in jax.tree.leaves(grads["head"]):
        assert not np.any(leaf)


def test_everybody_is_not_learnt_without_the_others():
    model = build()
    inputs, labels = batch(persons=1)
    outputs = learnt(model, variables(model), inputs)
    with pytest.raises(ValueError, match=r"attend.everybody: .* data.max_persons"):
        dag.loss_terms(model, outputs, labels)


def test_everybody_are_the_person_and_others_at_half_height():
    _, labels = batch(persons=3)
    size = (16, 16)
    maps, weight = joint_maps.everybody(labels, size, 1.0, 4)
    alone, _ = joint_maps.targets_of_crops(labels, size, 1.0, 4)
    assert np.all(maps >= alone - 1e-6)
    second, _ = joint_maps.targets(
        labels.joints[:, 1], labels.visibility[:, 1] > 0, size, 1.0, 4
    )
    third, _ = joint_maps.targets(
        labels.joints[:, 2], labels.visibility[:, 2] > 0, size, 1.0, 4
    )
    others = np.maximum(second, third) / 2
    np.testing.assert_allclose(maps, np.maximum(alone, others), atol=1e-6)
    np.testing.assert_array_equal(weight, 1)
    labels.visibility[:, 1:] = 0
    maps, _ = joint_maps.everybody(labels, size, 1.0, 4)
    np.testing.assert_allclose(maps, alone, atol=1e-6)
    labels.visibility[:, :, 3] = 0
    _, weight = joint_maps.everybody(labels, size, 1.0, 4)
    np.testing.assert_array_equal(weight[:, 3], 0)


def test_as_in_the_published_code_it_learns_and_reads_maps_of_the_upright_crop():
    backbone = {"name": "hrnet", "width": 4, "modules": (1, 1, 1), "blocks": 1}
    backbone |= {"stem": 8, "bottlenecks": 1, "concat": False, "early": True}
    attend = {"early": True, "spatial": False, "everybody": "after", "kernel": 3}
    refine = REFINE | {"mix": "gated", "norm": "row_sym", "seek": True, "frame": "box"}
    model = build(attend=attend, refine=refine, double=True).clone(backbone=backbone)
    inputs, labels = batch()
    box = np.array([[10, 5, 100, 80], [20, 0, 60, 110]], np.float32)
    inputs = inputs._replace(box=box)
    state = moving(initial.variables(model, inputs, seed=0))
    outputs = nets.quick_jit(lambda v: learnt(model, v, inputs))(state)
    terms = dag.loss_terms(model, outputs, labels)
    assert set(terms) == {"heatmap", "everybody", "pose"}
    assert all(np.all(np.isfinite(values)) for values, _ in terms.values())
    grads = nets.quick_jit(lambda v: gradient_of_the_pose(model, v, inputs, labels))(
        state
    )
    assert any(np.any(x) for x in jax.tree.leaves(grads["head"]))  # whose maps are read

    def tested(model):
        return nets.quick_jit(lambda v: model.apply(v, inputs, train=False))(state)

    found, upright = tested(model), tested(model.clone(flip_test=False))
    start = dag.decode(model, found._replace(pose=None), inputs).joints[:, 0]
    start = sampling.affine(start, sampling.inverse(inputs.to_source))
    graph = GuidedRefine(COCO, **refine)
    wanted = graph.apply(
        {name: state[name]["refiner"] for name in ("params", "batch_stats")},
        *(upright.maps[-1], start, 2, inputs),
        train=False,
        method="of_crops",
    )
    np.testing.assert_allclose(found.pose, wanted, rtol=1e-4, atol=1e-3)
    assert np.any(np.abs(found.pose - start) > 1e-2)


OFF = {"channel": False, "spatial": False, "everybody": "none"}


def test_with_all_parts_off_it_is_the_plain_network():
    model, (inputs, labels) = build(attend=OFF, refine={"hops": 0}), batch()
    plain = build(top_down, attend=None, refine=None)
    state = variables(model)
    assert set(state["params"]) == {"trunk", "head"}
    found, other = (
        learnt(one, state, inputs) for one in (model, plain.clone(double=True))
    )
    np.testing.assert_array_equal(found.maps[-1], other.maps[-1])
    assert set(dag.loss_terms(model, found, labels)) == {"heatmap"}


@pytest.mark.parametrize("method", [top_down, oasnet, oahpe])
def test_other_systems_take_the_parts(method):
    more = {
        top_down: {},
        oasnet: {"repair": {"read": 12, "inner": 6}, "mimic": "none"},
        oahpe: {"labels": {"channels": 8, "hidden": 16}, "coarse_sigmas": ()},
    }[method]
    model, (inputs, labels) = build(method, **more), batch()
    state = variables(model)
    terms = method.loss_terms(model, learnt(model, state, inputs), labels)
    assert {"heatmap", "everybody", "pose"} <= set(terms)
    poses = method.decode(model, model.apply(state, inputs, train=False), inputs)
    still = moving(state, by=0.0)
    left = method.decode(model, model.apply(still, inputs, train=False), inputs)
    assert np.any(np.abs(poses.joints - left.joints) > 1e-3)
    np.testing.assert_array_equal(poses.joint_score, left.joint_score)


@pytest.mark.parametrize("field", ["attend", "double"])
def test_networks_with_heads_of_their_own_refuse_what_does_not_reach_them(field):
    backbone = {"name": "hourglass", "stacks": 1, "levels": 1, "stem": (8, 8, 8)}
    fields = {"attend": None, "double": False, field: {} if field == "attend" else True}
    model = build().clone(backbone=backbone, **fields)
    with pytest.raises(ValueError, match=f"{field}: hourglass has heads of its own"):
        variables(model)


def test_its_parts_are_as_large_as_worked_out_by_hand():
    _, model = step.build_model(experiment.get_config("coco"), COCO)
    shapes = step.variable_shapes(model, (256, 192, 3))["params"]

    def count(tree):
        return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))

    c, joints, hidden = 32, 17, 128
    spatial = 2 * (c + 1) * 4 + (c + 1) * c + 1  # an eighth for queries and keys
    maps = (c + 1) * joints
    assert count(shapes["attend"]) == (c + 1) * c + spatial + (2 * c + 1) * c + maps

    def hop(read, told):  # two matrices, two hops' weights of each joint, bias
        return 2 * read * told + 2 * joints * told + told

    def layer(read, told):
        return hop(read, told) + 2 * told

    wide, half = hidden + c, (hidden + c) // 2
    blocks = 3 * (2 * layer(hidden, hidden) + 2 * hidden)
    guided = 2 * layer(wide, wide) + 2 * wide
    non_local = 3 * (wide + 1) * half + (half + 1) * wide + 2 * wide
    gcn = layer(2, hidden) + blocks + guided + non_local + hop(wide, 2)
    assert count(shapes["refiner"]) == gcn
