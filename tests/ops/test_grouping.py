"""Peaks, proposals, OKS groups and fusion: published figures and plain loops."""

import functools

import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.ops import flip_test, grouping
from occjax.skeletons import BY_NAME

check = functools.partial(equivalence.check, "PINet (every dataset)")
ranked = jax.jit(grouping.ranked, static_argnums=1, static_argnames="batch_cut")


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


@pytest.mark.parametrize("size", ["8x600", "8x592", "10x400", "8x392", "12x20", "1x30"])
def test_peaks_equal_the_published_ones(golden, size):
    z = np.load(golden / "pinet_functions" / "peaks.npz")
    both = nhwc(z[f"map_{size}"])[None]  # upright, mirrored
    maps = flip_test.average(both, (0,))
    pixels, score = jax.jit(grouping.peaks, static_argnums=1)(maps, 30)
    found = np.asarray(score[0, 0] > 0.01)
    wanted_score, wanted = z[f"score_{size}"], z[f"peak_xy_{size}"]
    check("decode: peaks, scores", score[0, 0][found], wanted_score, 1e-6, "each")

    def ordered(pixels, score):  # equal scores may come in any order
        return sorted(
            (-round(float(s), 5), *map(int, p))
            for s, p in zip(score, pixels, strict=True)
        )

    got = ordered(np.asarray(pixels[0, 0])[found], wanted_score)
    assert got == ordered(wanted, wanted_score)


def test_a_map_without_maxima_above_gives_padding():
    pixels, score = grouping.peaks(jnp.zeros((1, 4, 4, 1)).at[0, 1, 2, 0].set(1), 16)
    assert float(score[0, 0, 0]) == 1
    np.testing.assert_array_equal(pixels[0, 0, 0], (2, 1))
    # a plateau of equal pixels counts, the pixels beside a higher one do not
    assert np.isneginf(score[0, 0]).sum() == 8


def test_more_peaks_than_pixels_are_refused():
    with pytest.raises(ValueError, match="at most the 16 pixels"):
        grouping.peaks(jnp.zeros((1, 4, 4, 1)), 17)


@pytest.mark.parametrize("case", ["a", "b", "none"])
def test_proposals_equal_the_published_ones(golden, case):
    z = np.load(golden / "pinet_functions" / "proposals.npz")
    part, weight = nhwc(z[f"{case}_detkpt"]), nhwc(z[f"{case}_weight"])
    largest = jnp.max(weight.reshape(*part.shape, -1), axis=-1)
    count = int(z[f"{case}_max"]) // 3
    rank = part * largest
    pixels, chosen = ranked(rank, count, batch_cut=True)
    flat = np.asarray(pixels[..., 0] + part.shape[2] * pixels[..., 1])
    for k in range(3):
        wanted = z[f"{case}_inds_{k}"]
        np.testing.assert_array_equal(np.sum(chosen[:, k], axis=-1), wanted.shape[1])
        ranks = np.asarray(rank)[..., k].reshape(2, -1)
        for b in range(2):
            mine = flat[b, k][: wanted.shape[1]]
            positive = ranks[b][wanted[b]] > 0  # the others are in no order
            np.testing.assert_array_equal(mine[positive], wanted[b][positive])
            assert not np.any(ranks[b][mine[~positive]])


def test_without_the_batch_cut_each_image_keeps_what_has_rank():
    rank = jnp.zeros((2, 4, 4, 1)).at[0, 0, :3, 0].set(jnp.asarray([3.0, 1.0, 2.0]))
    pixels, chosen = ranked(rank, 5, batch_cut=False)
    np.testing.assert_array_equal(np.sum(chosen, axis=-1), [[3], [0]])
    np.testing.assert_array_equal(pixels[0, 0, :3], [(0, 0), (2, 0), (1, 0)])


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def group(poses, score, sigmas, threshold, members):
    joints = poses[..., :2]
    oks = grouping.oks_matrix(joints, sigmas, grouping.extent_area(joints))
    groups = grouping.greedy_groups(oks, score, threshold)
    giver, fused = grouping.fuse(groups, poses[..., 2], score, members=members)
    return oks, groups, giver, fused


@pytest.mark.parametrize("name", ["ochuman", "crowdpose"])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.9])
def test_groups_and_fused_poses_equal_the_published_ones(golden, name, threshold):
    z = np.load(golden / "pinet_functions" / "nms_fusion.npz")
    sigmas = BY_NAME["coco" if name == "ochuman" else name].sigmas
    np.testing.assert_allclose(sigmas, z[f"{name}_sigmas_f64"])
    poses = z[f"{name}_poses_f64"]
    score = z[f"{name}_scores_f64"]
    oks, groups, giver, fused = group(
        jnp.asarray(poses, jnp.float32),
        jnp.asarray(score, jnp.float32),
        sigmas,
        threshold,
        True,
    )
    check("decode: OKS of poses", oks, z[f"{name}_oks"], 2e-6, "absolute")
    prefix = f"{name}_t{threshold}_"
    heads = np.flatnonzero(fused > -np.inf)
    order = np.asarray(groups.order)
    np.testing.assert_array_equal(order[heads], z[prefix + "keep"])
    group_of = np.empty(len(score), int)
    group_of[order] = np.searchsorted(heads, groups.head)
    np.testing.assert_array_equal(group_of, z[prefix + "group_of_pose"])
    rank_in = np.empty(len(score), int)
    for rank, head in enumerate(groups.head):
        rank_in[order[rank]] = np.sum(np.asarray(groups.head)[:rank] == head)
    np.testing.assert_array_equal(rank_in, z[prefix + "rank_in_group"])
    got = np.take_along_axis(poses, np.asarray(giver)[heads][..., None], axis=0)
    check("decode: fused poses", np.float32(got), z[prefix + "fused"], 1e-5, "each")
    theirs = z[prefix + "fused_scores"]
    check("decode: fused scores", fused[heads], theirs, 1e-5, "each")


def greedy(oks, score, threshold):
    """The head of each pose, as one reads the rule."""
    head = np.full(len(score), -1)
    for i in np.argsort(-score, kind="stable"):
        if head[i] < 0:
            head[(head < 0) & ((oks[i] > threshold) | (np.arange(len(score)) == i))] = i
    return head


@pytest.mark.parametrize("seed", range(5))
def test_fixed_point_of_suppression_is_the_greedy_loop(seed):
    rng = np.random.default_rng(seed)
    oks = rng.uniform(size=(40, 40)) ** 2
    oks = (oks + oks.T) / 2
    score = rng.uniform(size=40)
    groups = jax.jit(grouping.greedy_groups)(jnp.asarray(oks), jnp.asarray(score), 0.5)
    order = np.asarray(groups.order)
    got = np.empty(40, int)
    got[order] = order[np.asarray(groups.head)]
    np.testing.assert_array_equal(got, greedy(oks, score, 0.5))


def test_a_chain_of_neighbours_is_settled_along_its_whole_length():
    # each pose resembles the next one only: every second one survives
    count = 30
    oks = np.eye(count) + np.eye(count, k=1) + np.eye(count, k=-1)
    score = np.linspace(1, 0.1, count)
    groups = grouping.greedy_groups(jnp.asarray(oks), jnp.asarray(score), 0.7)
    np.testing.assert_array_equal(groups.head, np.arange(count) // 2 * 2)


def test_oks_of_the_specification_and_of_degenerate_poses():
    pose = np.stack((np.linspace(0, 160, 17), np.linspace(0, 320, 17)), axis=-1)
    poses = np.stack((pose, pose + (6, -4), pose * 0, pose * 0 + 1e-3))
    poses = jnp.asarray(poses, jnp.float32)
    oks = jax.jit(grouping.oks_matrix, static_argnums=1)(
        poses, BY_NAME["coco"].sigmas, grouping.extent_area(poses)
    )
    np.testing.assert_allclose(oks[0, 1], 0.9425583, rtol=1e-6)
    np.testing.assert_allclose(np.diag(oks), 1)
    np.testing.assert_array_equal(oks, oks.T)
    assert float(oks[2, 3]) == 0  # points without extent resemble only themselves


def test_padding_neither_heads_a_group_nor_gives_a_joint():
    rng = np.random.default_rng(0)
    pose = rng.uniform(0, 100, (17, 3))
    poses = jnp.asarray(np.stack((pose, pose, pose)), jnp.float32)
    poses = poses.at[:, :, 2].set(jnp.asarray([0.5, 9.0, 0.6])[:, None])
    score = jnp.asarray([0.5, -jnp.inf, 0.6])
    _, groups, giver, fused = group(poses, score, BY_NAME["coco"].sigmas, 0.7, True)
    np.testing.assert_array_equal(groups.order, (2, 0, 1))
    np.testing.assert_allclose(fused, (0.6, -np.inf, -np.inf), rtol=1e-6)
    assert np.all(giver[0] == 2)


def test_fusion_takes_only_strictly_better_joints_and_can_be_left_out():
    pose = np.random.default_rng(0).uniform(0, 100, (2, 3))
    poses = jnp.asarray(np.stack((pose, pose)), jnp.float32)
    poses = poses.at[:, :, 2].set(jnp.asarray([[0.9, 0.5], [0.6, 0.5]]))
    poses = poses.at[1, 1, 2].set(0.55)
    score = jnp.asarray([0.7, 0.575])
    *_, giver, fused = group(poses, score, (0.1, 0.1), 0.7, True)
    np.testing.assert_array_equal(giver[0], (0, 1))
    np.testing.assert_allclose(fused, ((0.9 + 0.55) / 2, -np.inf), rtol=1e-6)
    tied = poses.at[1, 1, 2].set(0.5)
    *_, giver, _ = group(tied, score, (0.1, 0.1), 0.7, True)
    np.testing.assert_array_equal(giver[0], (0, 0))
    *_, giver, fused = group(poses, score, (0.1, 0.1), 0.7, False)
    np.testing.assert_array_equal(giver[0], (0, 0))
    np.testing.assert_allclose(fused, (0.7, -np.inf), rtol=1e-6)


def test_scores_of_further_scales_come_to_the_level_of_the_first():
    first = jnp.asarray([[2.0, 1.0, -jnp.inf], [-jnp.inf] * 3])
    further = jnp.asarray([[8.0, 4.0], [0.4, 0.2]])
    empty = jnp.full((2, 1), -jnp.inf)
    got = jax.jit(grouping.comparable)((first, further, empty), 0.9)
    low = -np.inf
    np.testing.assert_allclose(
        got, [[2, 1, low, 1.8, 0.9, low], [low, low, low, 0.36, 0.18, low]], rtol=1e-6
    )
