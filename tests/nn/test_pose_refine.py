"""Pose refinement alone, against the published module's figures."""

import equivalence
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.nn import pose_refine
from occjax.runtime.weights import convert
from occjax.skeletons import COCO, CROWDPOSE

TITLES = {
    "pinet_ochuman": "PINet (OCHuman)",
    "pinet_coco": "PINet (COCO)",
    "pinet_crowdpose": "PINet (CrowdPose)",
}
PUBLISHED = [
    ("pinet_ochuman", COCO, 3),
    ("pinet_coco", COCO, 2),
    ("pinet_crowdpose", CROWDPOSE, 3),
]


def load(golden, folder, skeleton, layers, dtype=np.float32):
    """Module, variables and the module's arguments."""
    _, weights = golden_weights.load(golden / folder)
    z = np.load(golden / folder / "pr.npz")
    module = pose_refine.PoseRefine(
        skeleton.num_joints, skeleton.bones, layers, dtype=dtype
    )
    args = (
        jnp.asarray(np.moveaxis(z["features"], 1, -1), dtype),
        jnp.asarray(z["center_yx"][..., ::-1].astype(np.int32)),
        jnp.asarray(z["coords_xy"], dtype),
    )
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, train=False))
    own = {name[3:]: w for name, w in weights.items() if name.startswith("pr.")}
    return module, convert(own, pose_refine.TORCH_NAMES, shapes), args, z


def check(folder, link, got, wanted, tolerance):
    got = np.asarray(got).reshape(wanted.shape)
    equivalence.check(TITLES[folder], f"forward: {link}", got, wanted, tolerance)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 2e-5), (np.float64, 5e-6)]
)
@pytest.mark.parametrize(("folder", "skeleton", "layers"), PUBLISHED)
def test_corrections_and_features_equal_the_published_ones(
    golden, folder, skeleton, layers, dtype, tolerance
):
    with jax.enable_x64(dtype == np.float64):
        module, variables, args, z = load(golden, folder, skeleton, layers, dtype)
        got, seen = jax.jit(
            lambda v: module.apply(v, *args, train=False, capture_intermediates=True)
        )(variables)
    check(folder, "corrections", got, z["refine_offset"], tolerance)
    for name in ("head", *(f"layer{i}" for i in range(layers))):
        inside = seen["intermediates"][name]["__call__"][0][..., ::8]
        wanted = z[f"after_{name}_ch_every8"]
        check(folder, f"correction, {name}", inside, wanted, tolerance)


@pytest.mark.parametrize(("folder", "skeleton", "layers"), PUBLISHED[:1])
def test_training_mode_equals_the_published_one(golden, folder, skeleton, layers):
    module, variables, args, z = load(golden, folder, skeleton, layers)
    everybody = jnp.ones(args[1].shape[:2], bool)
    got, changed = jax.jit(
        lambda v: module.apply(
            v, *args, train=True, mask=everybody, mutable=["batch_stats"]
        )
    )(variables)
    check(folder, "corrections, training", got, z["refine_offset_train"], 3e-4)
    stats = changed["batch_stats"]
    for norm, name in ((stats["head"]["bn"], "head_bn"), (stats["bn"], "pred_bn")):
        for ours in ("mean", "var"):
            wanted = z[f"{name}_running_{ours}_after"]
            link = f"correction, running {ours} of {name}, training"
            check(folder, link, norm[ours], wanted, 3e-4)


def small(graph="dynamic", **fields):
    return pose_refine.PoseRefine(
        COCO.num_joints, COCO.bones, layers=1, features=6, graph=graph, **fields
    )


def example():
    rng = np.random.default_rng(0)
    return (
        jnp.asarray(rng.standard_normal((2, 8, 9, 5)), jnp.float32),
        jnp.asarray(rng.integers(0, 8, (2, 4, 2)), jnp.int32),
        jnp.asarray(rng.uniform(0, 8, (2, 4, 17, 2)), jnp.float32),
    )


def test_only_the_dynamic_graph_learns_its_adjacency():
    args = example()
    params = {
        graph: jax.eval_shape(
            lambda graph=graph: small(graph).init(jax.random.key(0), *args, train=True)
        )["params"]
        for graph in pose_refine.GRAPHS
    }
    assert params["dynamic"].pop("adjacency").shape == (17, 17)
    assert params["dynamic"].keys() == params["static"].keys()
    assert set(params["no_graph"]) == {"hidden", "bn", "out"}
    assert params["no_graph"]["hidden"]["kernel"].shape == (15, 6)


def test_static_graph_computes_what_the_dynamic_one_starts_from():
    args = example()
    variables = jax.jit(lambda: small().init(jax.random.key(0), *args, train=False))()
    start = jax.jit(lambda v: small().apply(v, *args, train=False))(variables)
    params = {k: v for k, v in variables["params"].items() if k != "adjacency"}
    static = jax.jit(lambda v: small("static").apply(v, *args, train=False))(
        {**variables, "params": params}
    )
    np.testing.assert_allclose(static, start, atol=1e-6)


def test_aligned_sampling_reads_the_pixel_that_is_asked_for():
    features, pixels, _ = example()
    joints = jnp.broadcast_to(pixels[..., None, :], (2, 4, 17, 2)).astype(jnp.float32)
    aligned = small(aligned=True)
    at_joints = aligned.apply({}, features, joints, method="_at_joints")
    for b, n in np.ndindex(2, 4):
        x, y = np.asarray(pixels[b, n])
        wanted = np.broadcast_to(features[b, y, x], (17, 5))
        np.testing.assert_allclose(at_joints[b, n], wanted, rtol=1e-6)
    shifted = small().apply({}, features, joints, method="_at_joints")
    assert np.abs(shifted - at_joints).max() > 0.1
