"""DAG's graph on poses: frames, features, masks, what it starts from."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.nn import guided_refine
from occjax.ops import graph
from occjax.skeletons import COCO, CROWDPOSE, OCPOSE

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
