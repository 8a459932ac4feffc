"""The progressive GCN alone, on the published image features."""

import functools

import equivalence
import golden_nets as nets
import jax
import numpy as np
import published_opec as published
import pytest

from occjax.nn import progressive_gcn
from occjax.ops import graph
from occjax.runtime import weights
from occjax.skeletons import OCPOSE

INSIDE = {"gcn_input": "input"} | {f"res{i}": f"block{i}" for i in (1, 2, 3, 4)}


def own_weights(golden):
    """The part's arrays under torch's names."""
    arrays = published.state_dict(golden, "forward_eval")
    return {name: x for name, x in arrays.items() if name.startswith("gconv")}


@pytest.mark.parametrize("suffix", ["", "_acF"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 2e-7)])
def test_poses_and_layers_equal_the_published_ones(golden, dtype, tolerance, suffix):
    figures = np.load(golden / "opec_net" / "forward_eval.npz")
    with jax.enable_x64(dtype == "float64"):
        pose = figures["pose_in"].astype(dtype)
        sampled = [
            np.swapaxes(figures[f"joint_feat{i}{suffix}"], 1, 2).astype(dtype)
            for i in (1, 2, 3)
        ]
        model = progressive_gcn.ProgressiveGCN(OCPOSE.bones, dtype=np.dtype(dtype))
        shapes = published.shapes(model, pose, sampled)
        given = weights.convert(
            own_weights(golden), progressive_gcn.TORCH_NAMES, shapes
        )
        run = functools.partial(model.apply, train=False, capture_intermediates=True)
        poses, seen = nets.quick_jit(run)(given, pose, sampled)
    for i, ours in enumerate(poses, start=1):
        link = "forward: poses of the graph alone"
        wanted = figures[f"pose{i}{suffix}"]
        equivalence.check(published.MODEL, link, ours, wanted, tolerance)
    if not suffix:
        for key, name in INSIDE.items():
            inside = seen["intermediates"][name]["__call__"][0]
            nets.assert_close_to_largest(inside, figures[key], tolerance)
    assert nets.count(shapes["params"]) == 1_900_742


def test_weights_come_back_under_the_published_names(golden):
    arrays, rows = own_weights(golden), progressive_gcn.TORCH_NAMES
    sampled = [np.zeros((1, 12, c), np.float32) for c in (256, 128, 128)]
    pose = np.zeros((1, 12, 3), np.float32)
    model = progressive_gcn.ProgressiveGCN(OCPOSE.bones)
    shapes = published.shapes(model, pose, sampled)
    back = weights.revert(weights.convert(arrays, rows, shapes), rows)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)


def inputs(nodes, batch=2):
    rng = np.random.default_rng(0)
    pose = rng.uniform(-1, 1, (batch, nodes, 3)).astype(np.float32)
    sampled = [
        rng.standard_normal((batch, nodes, c)).astype(np.float32) for c in (6, 4)
    ]
    return pose, sampled


def test_a_couple_swapped_is_answered_swapped():
    """A gate that treats people alike leaves nothing else that tells them apart."""
    bones = graph.couple(OCPOSE.bones, 12)
    model = progressive_gcn.ProgressiveGCN(bones, features=8)
    pose, sampled = inputs(24)
    variables = published.random_variables(model, pose, sampled)
    for name, block in variables["params"].items():
        if "block" in name:
            fc2 = block["gate"]["fc2"]
            for key in fc2:
                half = fc2[key][..., :12]
                fc2[key] = np.concatenate((half, half), axis=-1)
        for layer in jax.tree.leaves(block, is_leaf=lambda x: "logits" in x):
            if isinstance(layer, dict):
                layer["logits"] = np.ones_like(layer["logits"])
    run = nets.quick_jit(functools.partial(model.apply, train=False))
    swap = [*range(12, 24), *range(12)]
    straight = run(variables, pose, sampled)
    swapped = run(variables, pose[:, swap], [x[:, swap] for x in sampled])
    for ours, other in zip(straight, swapped, strict=True):
        np.testing.assert_allclose(ours[:, swap], other, atol=1e-4)
    alone = run(variables, pose, [x * (np.arange(24) < 12)[:, None] for x in sampled])
    assert np.any(np.abs(alone[-1][:, :12] - straight[-1][:, :12]) > 1e-3)


def test_stages_see_their_own_features_and_earlier_ones():
    pose, sampled = inputs(12)
    model = progressive_gcn.ProgressiveGCN(OCPOSE.bones, features=8)
    variables = published.random_variables(model, pose, sampled)
    run = nets.quick_jit(functools.partial(model.apply, train=False))
    first, second = run(variables, pose, sampled)
    other_first, other_second = run(variables, pose, [sampled[0], sampled[1] + 1])
    np.testing.assert_array_equal(first, other_first)
    assert np.any(second != other_second)
    last = progressive_gcn.ProgressiveGCN(OCPOSE.bones, features=8, every=False)
    run = nets.quick_jit(functools.partial(last.apply, train=False))
    (only,) = run(variables, pose, sampled)
    np.testing.assert_allclose(only, second, atol=1e-4)
