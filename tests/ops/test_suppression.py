"""Suppression of poses: published figures, loops over people, and what must hold."""

import functools

import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occjax.ops import grouping, rescoring, suppression
from occjax.skeletons import COCO

LOW = -np.inf
check = functools.partial(equivalence.check, "HRNet-W32, top-down")
oks_nms = jax.jit(suppression.oks_nms)
soft_oks_nms = jax.jit(suppression.soft_oks_nms, static_argnames="keep")
distance_nms = jax.jit(suppression.distance_nms)
oks_of = jax.jit(grouping.oks_matrix, static_argnums=1)


@functools.cache
def published(folder):
    """HRNet's test poses: joints, OKS areas and scores, [2, 12, ...] by image."""
    z = np.load(folder / "pose_hrnet_w32" / "nms_rescore.npz")
    poses = jnp.asarray(z["preds_f64"].reshape(2, 12, 17, 3), jnp.float32)
    boxes = jnp.asarray(z["boxes_f64"].reshape(2, 12, 6), jnp.float32)
    score = rescoring.confident_mean(poses[..., 2], 0.2) * boxes[..., 5]
    return z, poses[..., :2], boxes[..., 4], score


def crowd(seed, people=12, joints=17, images=2):
    """Poses that come in families of near copies, and scores without ties."""
    rng = np.random.default_rng(seed)
    family = rng.uniform(0, 200, (images, 4, joints, 2))
    member = rng.integers(0, 4, (images, people))
    poses = np.take_along_axis(family, member[..., None, None], axis=1)
    poses = poses + rng.normal(
        0, rng.uniform(0, 8, (images, people, 1, 1)), poses.shape
    )
    score = rng.permutation(images * people).reshape(images, people) + 1.0
    poses, score = jnp.asarray(poses, jnp.float32), jnp.asarray(score, jnp.float32)
    oks = oks_of(poses, COCO.sigmas[:joints], grouping.extent_area(poses))
    return poses, oks, score / (images * people)


def rows(score):
    """The rows that stay in descending order, image after image, as published."""
    score = np.asarray(score)
    order = np.argsort(-score, axis=1)
    stays = np.take_along_axis(score, order, axis=1) > LOW
    return np.concatenate([order[i][stays[i]] + 12 * i for i in range(2)])


def test_oks_over_enlarged_boxes_equals_the_published_one(golden):
    z, joints, area, _ = published(golden)
    oks = oks_of(joints, COCO.sigmas, area)
    check("decode: OKS of poses", oks[0], z["oks_matrix"], 1e-6, "absolute")


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_rescored_poses_that_stay_equal_the_published_ones(golden, threshold):
    z, joints, area, score = published(golden)
    oks = oks_of(joints, COCO.sigmas, area)
    for name, result in (
        ("oks", oks_nms(oks, score, threshold)),
        ("soft", soft_oks_nms(oks, score, threshold)),
    ):
        kept = rows(result)
        np.testing.assert_array_equal(kept, z[f"{name}{threshold}_kept"])
        theirs = z[f"{name}{threshold}_score"]
        check("decode: scores of poses", np.ravel(score)[kept], theirs, 1e-5, "each")


def test_area_of_a_crop_is_that_of_the_published_box(golden):
    z, _, area, _ = published(golden)
    scale = z["boxes_f64"][:, 2:4]
    turn = np.random.default_rng(0).uniform(-1, 1, len(scale))
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.zeros((len(scale), 2, 3))
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = (
        x * scale[:, 0] * 200 / 192 for x in (cos, -sin, sin, cos)
    )
    got = suppression.crop_area(jnp.asarray(matrix, jnp.float32), (256, 192))
    check("decode: area of a crop", got, np.ravel(area), 1e-5, "each")


def greedy(oks, score, threshold):
    """Hard suppression as one reads the rule."""
    left = {i for i in range(len(score)) if score[i] > LOW}
    result = np.full(len(score), LOW, np.float32)
    while left:
        best = max(left, key=lambda i: score[i])
        result[best] = score[best]
        left -= {i for i in left if i == best or oks[best, i] > threshold}
    return result


def softly(oks, score, spread, keep):
    """Soft suppression as one reads the rule."""
    left = {i: float(score[i]) for i in range(len(score)) if score[i] > LOW}
    result = np.full(len(score), LOW)
    while left and np.sum(result > LOW) < keep:
        best = max(left, key=lambda i: left[i])
        result[best] = left.pop(best)
        left = {i: s * np.exp(-(oks[best, i] ** 2) / spread) for i, s in left.items()}
    return result


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 0.95), st.integers(0, 12))
def test_suppression_is_the_loop_over_people(seed, threshold, real):
    _, oks, score = crowd(seed)
    score = score.at[:, real:].set(LOW)
    hard, soft = oks_nms(oks, score, threshold), soft_oks_nms(oks, score, threshold)
    few = soft_oks_nms(oks, score, threshold, keep=5)
    for image in range(2):
        one, given_score = np.asarray(oks[image]), np.asarray(score[image])
        np.testing.assert_array_equal(
            hard[image], greedy(one, given_score, np.float32(threshold))
        )
        for got, keep in ((soft, 20), (few, 5)):
            wanted = softly(one, given_score, threshold, keep)
            np.testing.assert_allclose(got[image], wanted, rtol=1e-5, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 0.9))
def test_who_stays_does_not_depend_on_the_order_of_the_people(seed, threshold):
    _, oks, score = crowd(seed)
    order = np.random.default_rng(seed).permutation(12)
    for rule in (oks_nms, soft_oks_nms):
        got = rule(oks, score, threshold)
        moved = rule(oks[:, order][:, :, order], score[:, order], threshold)
        np.testing.assert_array_equal(moved, got[:, order])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 0.9))
def test_survivors_survive_again_and_soft_scores_only_fall(seed, threshold):
    poses, oks, score = crowd(seed)
    hard = oks_nms(oks, score, threshold)
    np.testing.assert_array_equal(oks_nms(oks, hard, threshold), hard)
    assert np.all((hard == score) | np.isneginf(hard))
    assert np.all(soft_oks_nms(oks, score, threshold) <= score)
    best = np.argmax(score, axis=1)
    for got in (hard, soft_oks_nms(oks, score, threshold)):
        np.testing.assert_array_equal(np.argmax(got, axis=1), best)
    by_distance = distance_nms(poses, score, 0.05, 8)
    again = distance_nms(poses, by_distance, 0.05, 8)
    assert np.all((again == by_distance) | np.isneginf(again))


def test_padding_changes_nothing_whatever_it_holds():
    poses, _, score = crowd(3)
    junk = jnp.stack((jnp.full((2, 17, 2), jnp.nan), poses[:, 0], poses[:, 1]), axis=1)
    padded = jnp.concatenate((junk, poses), axis=1)
    padded_score = jnp.concatenate((jnp.full((2, 3), LOW), score), axis=1)
    oks = {
        len(p[0]): oks_of(p, COCO.sigmas, grouping.extent_area(p))
        for p in (poses, padded)
    }
    for rule in (oks_nms, soft_oks_nms):
        got = rule(oks[15], padded_score, 0.5)
        assert np.all(np.isneginf(got[:, :3]))
        np.testing.assert_array_equal(got[:, 3:], rule(oks[12], score, 0.5))
    got = distance_nms(padded, padded_score, 0.05, 8)
    assert np.all(np.isneginf(got[:, :3]))
    np.testing.assert_array_equal(got[:, 3:], distance_nms(poses, score, 0.05, 8))
    nobody = jnp.full((1, 4), LOW)
    for rule in (oks_nms, soft_oks_nms):
        np.testing.assert_array_equal(rule(jnp.ones((1, 4, 4)), nobody, 0.5), nobody)


def test_jit_changes_nothing():
    poses, oks, score = crowd(4)
    for jitted, eager, known in (
        (oks_nms, suppression.oks_nms, (oks, score, 0.5)),
        (soft_oks_nms, suppression.soft_oks_nms, (oks, score, 0.5)),
        (distance_nms, suppression.distance_nms, (poses, score, 0.05, 8)),
    ):
        np.testing.assert_allclose(jitted(*known), eager(*known), rtol=1e-6)


def test_a_threshold_is_strict_and_equal_poses_leave_the_better_one():
    oks = jnp.asarray([[[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]]], jnp.float32)
    score = jnp.asarray([[0.25, 0.5, 0.125]])
    np.testing.assert_array_equal(oks_nms(oks, score, 0.5), score)
    np.testing.assert_array_equal(oks_nms(oks, score, 0.49), [[LOW, 0.5, 0.125]])
    got = soft_oks_nms(oks, score, 0.5)
    np.testing.assert_allclose(got, [[0.25 * np.exp(-0.5), 0.5, 0.125]], rtol=1e-6)


def dekr(joints, score, near, count):
    """DEKR's loop, by its description."""
    extent = joints.max(axis=1) - joints.min(axis=1)
    reach = near * np.sqrt(np.sum(extent**2, axis=1))
    stays, dealt = [], set()
    for i in range(len(joints)):
        gap = np.sqrt(np.sum((joints[i] - joints) ** 2, axis=-1))
        called = np.flatnonzero(np.sum(gap < reach[i], axis=1) > count)
        if i in dealt:
            continue
        best = called[np.argmax(score[called])]
        if best not in dealt:
            stays.append(best)
            dealt |= set(called)
    return sorted(stays)


@pytest.mark.parametrize("seed", range(5))
def test_distance_nms_is_the_loop_over_people(seed):
    poses, _, score = crowd(seed, people=30)
    got = distance_nms(poses, score, 0.05, 8)
    for image in range(2):
        wanted = dekr(np.asarray(poses[image]), np.asarray(score[image]), 0.05, 8)
        np.testing.assert_array_equal(np.flatnonzero(got[image] > LOW), wanted)


@pytest.mark.parametrize("folder", ["dekr_coco", "dekr_crowdpose"])
def test_poses_that_stay_are_the_published_ones(golden, folder):
    z = np.load(golden / folder / "decode_single.npz")
    poses, maps = z["proposals_s1.0"], z["heatmap_s1.0"][0]
    joints = poses[..., :2]
    large = np.stack([enlarged(one) for one in maps])
    np.testing.assert_allclose(
        large[[0, -1]], z["heatmap_avg_channels_0_last"], atol=1e-6
    )
    x, y = np.floor(joints).astype(int).transpose(2, 0, 1)
    x, y = np.clip(x, 0, large.shape[2] - 1), np.clip(y, 0, large.shape[1] - 1)
    value = large[np.arange(joints.shape[1]), y, x]  # [P, J]
    got = distance_nms(
        jnp.asarray(joints)[None],
        jnp.asarray(value.mean(axis=1), jnp.float32)[None],
        0.05,
        8 if folder == "dekr_coco" else 7,
    )
    stays = np.flatnonzero(got[0] > LOW)
    wanted = z["nms_poses"]
    assert 0 < len(wanted) < len(poses)
    order = [int(np.argmin(np.abs(joints - one[:, :2]).sum((1, 2)))) for one in wanted]
    np.testing.assert_array_equal(joints[order], wanted[..., :2])
    np.testing.assert_array_equal(sorted(order), stays)


def enlarged(one, factor=4):
    """A map [h, w] four times as large: bilinear at p / 4, the last rows repeated."""
    y, x = (np.arange(n * factor) / factor for n in one.shape)
    y, x = np.minimum(y, one.shape[0] - 1), np.minimum(x, one.shape[1] - 1)
    along = np.array([np.interp(x, np.arange(one.shape[1]), row) for row in one])
    return np.array([np.interp(y, np.arange(one.shape[0]), c) for c in along.T]).T
