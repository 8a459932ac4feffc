"""DAG's graph on poses: frames, features, masks, what it starts from."""

import functools
import json

import equivalence
import golden_nets as nets
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.nn import guided_refine
from occjax.ops import graph
from occjax.runtime import weights
from occjax.skeletons import COCO, CROWDPOSE, OCPOSE
from occjax.types import Inputs

LOW, HIGH = (0, 0), (16, 16)


def build(**fields):
    return guided_refine.GuidedRefine(COCO, hidden=8, blocks=1, **fields)


def given(poses=3, seed=0):
    """Features of two images, and poses on them."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((2, 16, 16, 6)).astype(np.float32)
    joints = rng.uniform(2, 13, (2, poses, 17, 2)).astype(np.float32)
    return jnp.asarray(features), jnp.asarray(joints)


@functools.cache
def started(module):
    def init(key):
        centre = jnp.ones((2, 3, 6))
        return module.init(key, *given(), LOW, HIGH, train=False, centre=centre)

    found = jax.jit(init)(jax.random.key(0))
    return jax.tree.map(lambda x: x + 0.1 * np.sign(x + 0.01), found)


def moved(module, features, joints, low=LOW, high=HIGH, **how):
    how = {"train": False} | how
    return module.apply(started(module), features, joints, low, high, **how)


def test_the_same_pose_in_a_frame_twice_as_large_moves_twice_as_far():
    features, joints = given()
    even = jnp.ones_like(features)  # alike wherever they are read
    near = moved(build(), even, joints)
    far = moved(build(), even, 1 + joints / 2, (1, 1), (9, 9))
    np.testing.assert_allclose(far, 1 + near / 2, rtol=1e-4, atol=1e-4)
    assert np.max(np.abs(near - joints)) > 0.1


def test_features_are_read_at_the_joints():
    features, joints = given()
    joints = jnp.round(joints)
    first = moved(build(), features, joints)
    at = np.zeros(features.shape, bool)
    for image in range(2):
        x, y = np.asarray(joints[image], int).reshape(-1, 2).T
        at[image, y, x] = True
    np.testing.assert_array_equal(
        moved(build(), jnp.where(at, features, 9.0), joints), first
    )
    assert np.any(moved(build(), jnp.where(at, 9.0, features), joints) != first)


def test_where_the_pose_was_teaches_nothing():
    features, joints = given()

    def total(features, joints):
        return jnp.sum(jnp.square(moved(build(), features, joints)))

    by_features, by_joints = jax.grad(total, (0, 1))(features, joints)
    assert np.any(by_features)
    assert not np.any(by_joints)


@pytest.mark.parametrize(("dtype", "within"), [("float32", 5e-5), ("float64", 1e-6)])
def test_where_maps_are_read_is_sought_as_in_the_published_code(golden, dtype, within):
    figures = np.load(golden / "graph_conv" / "dag_gcn.npz")
    manifest = json.loads((golden / "graph_conv" / "manifest.json").read_text())
    state = golden_weights.generate(
        {"g": 1.0, "entries": manifest["dag_gcn"]["entries"]}
    )
    with jax.enable_x64(dtype == "float64"):
        maps = jnp.asarray(nets.nhwc(figures["heatmaps"]), dtype)
        pose = jnp.asarray(figures["pose_in"], dtype)[:, None]
        module = guided_refine.GuidedRefine(
            COCO, norm="row_sym", mix="gated", seek=True, dtype=jnp.dtype(dtype)
        )
        args = (maps, pose, LOW, maps.shape[2:0:-1])
        start = functools.partial(module.init, train=False)
        shapes = jax.eval_shape(start, jax.random.key(0), *args)
        given = weights.convert(state, guided_refine.REFINE_NAMES, shapes)
        _, seen = module.apply(
            *(given, *args),
            train=False,
            capture_intermediates=True,
            mutable=["intermediates"],
        )
    inner = seen["intermediates"]
    level = inner["level"]["__call__"][0]
    nets.assert_close_to_largest(level, nets.nhwc(figures["level_conv"]), within)
    link = "forward: where FGMH-GCN reads heatmaps"
    where = inner["seeker"]["__call__"][0]
    equivalence.check("DAG", link, where, figures["sample_xy"], within, "absolute")


def test_maps_are_read_where_the_network_says():
    rng = np.random.default_rng(0)
    maps = jnp.asarray(rng.standard_normal((2, 16, 16, 17)), jnp.float32)
    joints = jnp.asarray(rng.uniform(2, 13, (2, 1, 17, 2)), jnp.float32)
    module = build(seek=True)
    state = module.init(jax.random.key(0), maps, joints, LOW, HIGH, train=False)
    params = jax.tree.map(lambda x: x + 0.05, state["params"])
    level = {"kernel": jnp.zeros((3, 3, 17, 17)).at[1, 1].set(jnp.eye(17))}
    level["bias"] = jnp.zeros(17)  # the maps as they are
    out = jax.tree.map(jnp.zeros_like, params["seeker"]["out"])
    out["bias"] = jnp.asarray([2 * 5.5 / 16 - 1, 2 * 3.5 / 16 - 1])  # pixel (5, 3)
    params |= {"level": level, "seeker": {**params["seeker"], "out": out}}

    def run(maps):
        variables = {**state, "params": params}
        return module.apply(variables, maps, joints, LOW, HIGH, train=False)

    first, at = run(maps), jnp.zeros((16, 16), bool).at[3, 5].set(True)
    elsewhere = jnp.where(at[None, :, :, None], maps, 9.0)
    np.testing.assert_allclose(run(elsewhere), first, rtol=1e-3, atol=1e-3)
    there = jnp.where(at[None, :, :, None], 9.0, maps)
    assert np.max(np.abs(run(there) - first)) > 0.1


def test_only_heatmaps_of_one_pose_can_be_sought():
    with pytest.raises(ValueError, match="seek: expected heatmaps of 17 joints of one"):
        build(seek=True).init(jax.random.key(0), *given(), LOW, HIGH, train=False)


def crops(matrix=((2, 0, 5), (0, 2, -3)), box=(9.0, 3.0, 16.0, 12.0)):
    """Inputs of two crops of 16 x 16 pixels."""
    image = np.zeros((2, 16, 16, 3), np.uint8)
    return Inputs(
        image,
        np.full((2, 2), 16, np.int32),
        np.tile(np.array(matrix, np.float32), (2, 1, 1)),
        box=None if box is None else np.tile(np.array(box, np.float32), (2, 1)),
    )


def of_crops(features, joints, inputs, stride=1, **fields):
    module = build(**fields)
    return module.apply(
        started(module),
        *(features, joints, stride, inputs),
        train=False,
        method="of_crops",
    )


def test_a_pose_of_a_crop_moves_in_the_frame_of_the_crop_or_of_the_box():
    features, joints = given(poses=1)
    joints = joints[:, 0]
    whole = moved(build(), features, joints[:, None])[:, 0]
    np.testing.assert_allclose(of_crops(features, joints, crops(box=None)), whole, 1e-4)
    # the box, moved and half as large, runs from (2, 3) to (10, 9) in the crop
    low, high = (2, 3), (10, 9)
    wanted = moved(build(), features, joints[:, None], low, high)[:, 0]
    boxed = of_crops(features, joints, crops(), frame="box")
    np.testing.assert_allclose(boxed, wanted, rtol=1e-4, atol=1e-4)
    mirrored = crops(matrix=((-2, 0, 5 + 2 * 12), (0, 2, -3)))
    boxed = of_crops(features, joints, mirrored, frame="box")
    np.testing.assert_allclose(boxed, wanted, rtol=1e-4, atol=1e-4)
    larger = of_crops(features, 4 * joints, crops(((0.5, 0, 5), (0, 0.5, -3))), 4)
    np.testing.assert_allclose(larger, 4 * whole, rtol=1e-4, atol=1e-4)


def test_a_frame_that_there_is_not_is_named():
    features, joints = given(poses=1)
    with pytest.raises(
        ValueError, match=r"frame: expected one of crop, box, got 'map'"
    ):
        of_crops(features, joints[:, 0], crops(), frame="map")
    with pytest.raises(ValueError, match="frame: 'box' needs crops of boxes"):
        of_crops(features, joints[:, 0], crops(box=None), frame="box")


def test_masked_poses_do_not_enter_the_statistics():
    features, joints = given()
    module, mask = build(), jnp.asarray([[True, True, False]] * 2)

    def learnt(joints, mask):
        return module.apply(
            started(module),
            *(features, joints, LOW, HIGH),
            train=True,
            mask=mask,
            mutable=["batch_stats"],
        )

    first, stats = learnt(joints, mask)
    other, their_stats = learnt(joints.at[:, 2].set(5.0), mask)
    np.testing.assert_allclose(first[:, :2], other[:, :2], rtol=1e-4, atol=1e-4)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, stats, their_stats)
    alone, _ = learnt(joints[:, :2], mask[:, :2])
    np.testing.assert_allclose(first[:, :2], alone, rtol=1e-3, atol=1e-3)


def test_what_speaks_for_a_pose_weighs_its_features():
    features, joints = given()
    module = build()
    params = started(module)["params"]["weigh"]
    centre = np.random.default_rng(1).standard_normal((2, 3, 6)).astype(np.float32)
    weight = centre @ np.asarray(params["kernel"]) + np.asarray(params["bias"])
    got = moved(module, features, joints, centre=jnp.asarray(centre))
    for pose in range(3):
        scaled = features * weight[:, pose, None, None]
        alone = moved(module, scaled, joints[:, pose : pose + 1])
        np.testing.assert_allclose(got[:, pose], alone[:, 0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE])
def test_dags_graphs_are_connected_and_mirror_into_themselves(skeleton):
    bones = guided_refine.BONES[skeleton.name]
    reached = graph.hops(bones, skeleton.num_joints, skeleton.num_joints).sum(axis=0)
    np.testing.assert_array_equal(reached, 1)
    flip = skeleton.flip
    mirrored = {frozenset((flip[a], flip[b])) for a, b in bones}
    assert mirrored == {frozenset(bone) for bone in bones}


def test_other_skeletons_have_their_own_bones():
    module = guided_refine.GuidedRefine(OCPOSE, hidden=8, blocks=1)
    features, joints = given()
    joints = joints[:, :, :12]
    variables = module.init(jax.random.key(0), features, joints, LOW, HIGH, train=False)
    found = module.apply(variables, features, joints, LOW, HIGH, train=False)
    assert found.shape == joints.shape


def test_a_norm_that_there_is_not_is_named():
    with pytest.raises(ValueError, match=r"norm: expected one of .* 'rows'"):
        build(norm="rows").init(jax.random.key(0), *given(), LOW, HIGH, train=False)
