"""Graphs of the body: published matrices, walks along bones, jraph's convolution."""

import collections

import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.ops import graph
from occjax.skeletons import BY_NAME, COCO, CROWDPOSE, OCPOSE

SKELETONS = pytest.mark.parametrize("skeleton", BY_NAME.values(), ids=BY_NAME)


@pytest.mark.parametrize(
    ("folder", "model", "skeleton", "nonzero", "total"),
    [
        ("pinet_coco", "PINet (COCO)", COCO, 51, 16.810968),
        ("pinet_crowdpose", "PINet (CrowdPose)", CROWDPOSE, 44, 13.832777),
    ],
)
def test_adjacency_is_the_published_start(
    golden, folder, model, skeleton, nonzero, total
):
    got = graph.normalized_adjacency(skeleton.bones, skeleton.num_joints)
    wanted = np.load(golden / folder / "pr.npz")["adj_official_init"]
    link = "forward: first adjacency"
    equivalence.check(model, link, got, wanted, 1e-7, "absolute")
    assert np.count_nonzero(got) == nonzero
    np.testing.assert_allclose(got.sum(), total, rtol=1e-7)


def test_repeated_bones_count_once_and_stray_joints_are_refused():
    once = graph.normalized_adjacency(((0, 1),), 2)
    np.testing.assert_allclose(once, np.full((2, 2), 0.5))
    twice = graph.normalized_adjacency(((0, 1), (1, 0)), 2)
    np.testing.assert_array_equal(twice, once)
    with pytest.raises(ValueError, match=r"0\.\.1, got \(0, 2\)"):
        graph.adjacency(((0, 2),), 2)
    with pytest.raises(ValueError, match=r"two joints, got \(1, 1\)"):
        graph.adjacency(((1, 1),), 2)


def test_edges_and_means_of_opec_net_are_the_published_ones(golden):
    figures = np.load(golden / "opec_net" / "adjacency.npz")
    bones = {frozenset(map(int, pair)) for pair in figures["edges"]}
    assert {frozenset(bone) for bone in OCPOSE.bones} == bones
    assert OCPOSE.flip == tuple(figures["flip_index"])
    senders, receivers = graph.edges(OCPOSE.bones, 12, loops=True)
    index = np.stack((receivers, senders), axis=1)
    np.testing.assert_array_equal(index, figures["e_index"])
    mean = graph.by_row(graph.adjacency(OCPOSE.bones, 12) + np.eye(12))
    for key in ("adj_row_normalised", "adj_of_e"):
        np.testing.assert_allclose(mean, figures[key], atol=1e-7)
    np.testing.assert_allclose(mean[0, [0, 1, 2, 6]], 0.25)


def test_a_couple_is_two_bodies_joined_at_equal_joints(golden):
    figures = np.load(golden / "opec_net" / "couple_graph_derived.npz")
    bones = graph.couple(OCPOSE.bones, 12)
    wanted = {frozenset(map(int, pair)) for pair in figures["edges"]}
    assert {frozenset(bone) for bone in bones} == wanted
    assert len(bones) == 36
    mean = graph.by_row(graph.adjacency(bones, 24) + np.eye(24))
    np.testing.assert_allclose(mean, figures["adj_row_normalised"], atol=1e-7)
    assert len(graph.edges(bones, 24, loops=True)[0]) == 96


@SKELETONS
def test_mirroring_leaves_the_graph_as_it_is(skeleton):
    matrix = graph.adjacency(skeleton.bones, skeleton.num_joints)
    flip = list(skeleton.flip)
    np.testing.assert_array_equal(matrix[flip][:, flip], matrix)


@SKELETONS
def test_edges_are_the_entries_of_the_matrix(skeleton):
    matrix = graph.adjacency(skeleton.bones, skeleton.num_joints)
    np.testing.assert_array_equal(matrix, matrix.T)
    for loops in (False, True):
        got = np.zeros_like(matrix)
        senders, receivers = graph.edges(
            skeleton.bones, skeleton.num_joints, loops=loops
        )
        np.add.at(got, (receivers, senders), 1)
        np.testing.assert_array_equal(got, matrix + loops * np.eye(len(matrix)))
        assert np.all(np.diff(receivers * len(matrix) + senders) > 0)


def walked(bones, num_joints):
    """Distances [J, J] by breadth-first search; -1 where no way leads."""
    near = collections.defaultdict(set)
    for a, b in bones:
        near[a].add(b)
        near[b].add(a)
    distance = np.full((num_joints, num_joints), -1)
    for start in range(num_joints):
        queue, distance[start, start] = [start], 0
        for joint in queue:
            for other in near[joint]:
                if distance[start, other] < 0:
                    distance[start, other] = distance[start, joint] + 1
                    queue.append(other)
    return distance


@pytest.mark.parametrize(
    ("bones", "num_joints"),
    [(s.bones, s.num_joints) for s in BY_NAME.values()]
    + [(graph.couple(OCPOSE.bones, 12), 24), (((0, 1), (2, 3)), 5)],
)
def test_hops_are_the_distances_of_a_search(bones, num_joints):
    distance = walked(bones, num_joints)
    wanted = [distance == k for k in range(5)]
    np.testing.assert_array_equal(graph.hops(bones, num_joints, 4), wanted)


def test_hops_of_a_tree_are_the_published_matrices(golden):
    figures = np.load(golden / "graph_conv" / "adjacency.npz")
    parents = figures["h36m_parents"]
    bones = [(int(p), j) for j, p in enumerate(parents) if p >= 0]
    hops = graph.hops(bones, len(parents), 5)[1:]
    got = [graph.neighbours_and_self(hop) for hop in hops]
    np.testing.assert_allclose(got, figures["h36m"], atol=1e-7)


@pytest.mark.parametrize("name", ["h36m", "coco17", "crowd14"])
def test_published_lists_give_the_published_matrices(golden, name):
    figures = np.load(golden / "graph_conv" / "adjacency.npz")
    for k, wanted in enumerate(figures[name]):
        # the second list of COCO names a joint as its own neighbour
        matrix = np.zeros_like(wanted)
        pairs = figures[f"{name}_lists_{k}"]
        matrix[pairs[:, 0], pairs[:, 1]] = matrix[pairs[:, 1], pairs[:, 0]] = 1
        got = graph.neighbours_and_self(matrix)
        np.testing.assert_allclose(got, wanted, atol=1e-7)


def test_joints_without_bones_keep_their_zeros():
    lonely = graph.adjacency(((0, 1),), 3)
    for matrix in (graph.by_row(lonely), graph.by_degree(lonely)):
        np.testing.assert_array_equal(matrix, lonely)


@SKELETONS
@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("by_degree", [False, True])
def test_dense_products_equal_convolutions_of_jraph(skeleton, loops, by_degree):
    jraph = pytest.importorskip("jraph", reason="jraph is not installed")
    count = skeleton.num_joints
    x = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
    senders, receivers = graph.edges(skeleton.bones, count, loops=loops)
    convolution = jraph.GraphConvolution(
        lambda nodes: nodes, symmetric_normalization=by_degree
    )
    given = jraph.GraphsTuple(
        nodes=jnp.asarray(x),
        edges=None,
        receivers=jnp.asarray(receivers),
        senders=jnp.asarray(senders),
        globals=None,
        n_node=jnp.asarray([count]),
        n_edge=jnp.asarray([len(senders)]),
    )
    matrix = graph.adjacency(skeleton.bones, count) + loops * np.eye(count)
    matrix = graph.by_degree(matrix) if by_degree else matrix
    with jax.numpy_dtype_promotion("standard"):  # jraph mixes types
        got = convolution(given).nodes
    np.testing.assert_allclose(got, matrix @ x, atol=1e-5)
