import functools
import json

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from golden_nets import (
    assert_close_to_largest,
    assert_gradient_norms,
    count,
    evaluate,
    nhwc,
    quick_jit,
    random_variables,
    shapes_of,
    train,
)

from occjax.errors import UserError
from occjax.nn import heads, hrnet
from occjax.nn.torch_names import prefixed
from occjax.runtime import weights

TINY = {"width": 4, "modules": (1, 2, 1), "blocks": 1, "stem": 8, "bottlenecks": 1}
STAGES = {"stage2": "stage2_0", "stage3": "stage3_3", "stage4": "stage4_2"}


@pytest.fixture(scope="module")
def reference(golden):
    """Folder, manifest and converted variables of the official W32 backbone."""
    folder = golden / "hrnet_w32_backbone"
    manifest, state_dict = golden_weights.load(folder)
    shapes = shapes_of(hrnet.Backbone())
    return folder, manifest, weights.convert(state_dict, hrnet.TORCH_NAMES, shapes)


@pytest.fixture(scope="module")
def evaluated(reference):
    """Features and all module outputs of the official weights in evaluation mode."""
    folder, _, variables = reference
    image = nhwc(np.load(folder / "eval_stages.npz")["input"])
    apply = functools.partial(
        hrnet.Backbone().apply, train=False, capture_intermediates=True
    )
    features, state = quick_jit(apply)(variables, image)
    return features, state["intermediates"]


def test_w32_has_the_official_number_of_parameters_and_batch_norms():
    shapes = shapes_of(hrnet.Backbone())
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 29_305_536
    assert len(jax.tree.leaves(shapes["params"])) == 3 * 305
    assert len(jax.tree.leaves(shapes["batch_stats"])) == 2 * 305


def test_features_equal_the_official_code(reference, evaluated):
    expected = nhwc(np.load(reference[0] / "eval_features.npz")["features"])
    assert_close_to_largest(evaluated[0], expected, 2e-5)


def test_every_stage_equals_the_official_code(reference, evaluated):
    expected = np.load(reference[0] / "eval_stages.npz")
    intermediates = evaluated[1]
    stem = intermediates["stem2"]["__call__"][0]
    layer1 = intermediates["layer1_3"]["__call__"][0]
    assert_close_to_largest(stem, nhwc(expected["stem"]), 2e-5)
    assert_close_to_largest(layer1[..., ::4], nhwc(expected["layer1_ch_every4"]), 2e-5)
    for stage, name in STAGES.items():
        for b, branch in enumerate(intermediates[name]["__call__"][0]):
            assert_close_to_largest(branch, nhwc(expected[f"{stage}_{b}"]), 2e-5)


def test_running_statistics_after_one_training_pass_equal_the_official_code(reference):
    folder, manifest, variables = reference
    image = nhwc(np.load(folder / "eval_stages.npz")["input"])
    expected = np.load(folder / "train_bn.npz")
    features, state = train(hrnet.Backbone(), variables, image)
    assert_close_to_largest(
        features[..., ::8], nhwc(expected["features_train_ch_every8"]), 3e-4
    )
    state_dict = dict(golden_weights.load(folder)[1])
    for part in ("running_mean", "running_var"):
        names = [f"{name}.{part}" for name in manifest["bn_order"]]
        ends = np.cumsum([state_dict[name].size for name in names])
        pieces = np.split(expected[f"{part}_after"], ends)
        assert not pieces[-1].size  # every value has its batch norm
        state_dict.update(zip(names, pieces[:-1], strict=True))
    after = weights.convert(state_dict, hrnet.TORCH_NAMES, shapes_of(hrnet.Backbone()))
    jax.tree.map(
        functools.partial(assert_close_to_largest, tolerance=3e-4),
        state["batch_stats"],
        after["batch_stats"],
    )


@pytest.mark.slow
def test_features_in_float64_equal_the_official_code_to_its_rounding(reference):
    folder, _, variables = reference
    expected = nhwc(np.load(folder / "eval_features.npz")["features"])
    with jax.enable_x64(True):
        image = nhwc(np.load(folder / "eval_stages.npz")["input"]).astype(np.float64)
        features = evaluate(hrnet.Backbone(dtype=jnp.float64), variables, image)
    assert features.dtype == np.float64
    assert_close_to_largest(features, expected, 5e-6)


class Pose(nn.Module):
    """The whole top-down network: finest branch and heatmaps."""

    joints: int
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, image, *, train):
        trunk = hrnet.Backbone(concat=False, dtype=self.dtype, name="trunk")
        final = heads.Heatmaps(self.joints, dtype=self.dtype, name="final")
        return final(trunk(image, train=train))


POSE_NAMES = (
    *prefixed(heads.HEATMAP_NAMES, "", "final"),
    *prefixed(hrnet.TORCH_NAMES, "", "trunk"),
)


@pytest.fixture(scope="module")
def pose(golden):
    """Folder and converted variables of the official top-down W32."""
    _, state_dict = golden_weights.load(golden / "pose_hrnet_w32")
    shapes = shapes_of(Pose(17))
    return golden / "pose_hrnet_w32", weights.convert(state_dict, POSE_NAMES, shapes)


def test_heatmaps_equal_the_official_top_down_network(pose):
    folder, variables = pose
    expected = np.load(folder / "eval_heatmaps.npz")
    for size in ("small", "full"):
        maps = evaluate(Pose(17), variables, nhwc(expected[f"{size}_image"]))
        assert_close_to_largest(maps, nhwc(expected[f"{size}_heatmap"]), 2e-5)
    assert count(variables["params"]) == 28_536_113


def in_order(tree, names, part, state_dict):
    """Our statistics as one vector, in the order in which torch has them."""
    numbered = dict(state_dict)
    start = 0
    for name in names:
        size = state_dict[f"{name}.{part}"].size
        numbered[f"{name}.{part}"] = np.arange(start, start + size, dtype=np.float32)
        start += size
    where = weights.convert(numbered, POSE_NAMES, shapes_of(Pose(17)))["batch_stats"]
    vector = np.full(start, np.nan)
    leaf = part.removeprefix("running_")
    for path, value in jax.tree.leaves_with_path(tree):
        if path[-1].key == leaf:
            index = functools.reduce(lambda node, key: node[key.key], path, where)
            vector[index.astype(int)] = value
    return vector


@pytest.mark.slow
def test_a_training_step_in_float64_equals_the_official_code(pose):
    folder, variables = pose
    manifest, state_dict = golden_weights.load(folder)
    expected = np.load(folder / "train_step.npz")
    target, weight = nhwc(expected["target"]), expected["target_weight"][..., 0]
    weight = np.float64(np.square(weight)[:, None, None])  # it multiplies both maps

    def loss(params):
        given = {**variables, "params": params}
        model = Pose(17, dtype=jnp.float64)
        image = np.float64(nhwc(expected["image"]))
        maps, state = model.apply(given, image, train=True, mutable=["batch_stats"])
        error = jnp.square(maps - np.float64(target)) * weight
        return 0.5 * jnp.mean(error), (maps, state["batch_stats"])

    with jax.enable_x64(True):
        params = jax.tree.map(np.float64, variables["params"])
        compiled = quick_jit(jax.value_and_grad(loss, has_aux=True))
        (value, (maps, stats)), grads = compiled(params)
    trajectory = json.loads((folder / "trajectory.json").read_text())
    np.testing.assert_allclose(value, trajectory["float64"][0], rtol=1e-6)
    assert_close_to_largest(maps, nhwc(expected["pred"]), 3e-4)  # torch's in float32
    norms = json.loads((folder / "train_grad_l2.json").read_text())["l2"]
    norms = {name: pair[1] for name, pair in norms.items()}
    assert_gradient_norms(grads, state_dict, norms, POSE_NAMES)
    for part in ("running_mean", "running_var"):
        found = in_order(stats, manifest["bn_order"], part, state_dict)[::4]
        assert_close_to_largest(found, expected[f"{part}_after_step_every4"], 3e-4)


def test_w48_is_the_same_network_with_wider_branches():
    model = hrnet.Backbone(width=48)
    assert jax.eval_shape(
        functools.partial(model.init_with_output, train=False),
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32),
    )[0].shape == (1, 16, 24, 15 * 48)


@pytest.fixture(scope="module")
def tiny():
    """A narrow, short backbone with all four branches, its variables, an image."""
    model = hrnet.Backbone(**TINY)
    image = np.random.default_rng(0).standard_normal((2, 32, 64, 3), np.float32)
    return model, random_variables(model), image


def test_without_concat_only_the_finest_branch_is_fused_and_returned(tiny):
    model, variables, image = tiny
    finest = hrnet.Backbone(**TINY, concat=False)
    shapes = shapes_of(finest)
    for collection, tree in shapes.items():
        left_out = set(shapes_of(model)[collection]["stage4_0"]) - set(tree["stage4_0"])
        assert left_out  # the fusions towards the three coarser branches
        assert not any(name.startswith(("branch", "fuse0")) for name in left_out)
    kept = jax.tree.map(lambda _, leaf: leaf, shapes, select(variables, shapes))
    every = evaluate(model, variables, image)
    assert every.shape == (2, 8, 16, 15 * 4)
    np.testing.assert_allclose(evaluate(finest, kept, image), every[..., :4], rtol=1e-4)


def select(tree, like):
    """The part of a nested dict whose keys are in `like`."""
    if not isinstance(like, dict):
        return tree
    return {key: select(tree[key], like[key]) for key in like}


def test_bfloat16_computes_near_float32_and_keeps_float32_variables(tiny):
    model, variables, image = tiny
    narrow = hrnet.Backbone(**TINY, dtype=jnp.bfloat16)
    y, state = train(narrow, variables, image)
    expected, _ = train(model, variables, image)
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    error = np.abs(np.asarray(y, np.float32) - expected)
    assert np.mean(error) < 0.05 * np.mean(np.abs(expected))


def test_gradient_reaches_every_parameter(tiny):
    model, variables, image = tiny

    def loss(params):
        given = {**variables, "params": params}
        y, _ = model.apply(given, image, train=True, mutable=["batch_stats"])
        return jnp.mean(jnp.square(y) * jnp.linspace(0, 1, 60)[None, None, None])

    grads = quick_jit(jax.grad(loss))(variables["params"])
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.all(np.isfinite(grad)), path
        assert np.any(grad != 0), path


def test_sides_that_do_not_halve_five_times_are_refused(tiny):
    model, variables, _ = tiny
    with pytest.raises(ValueError, match=r"multiples of 32, got \(32, 48\)"):
        model.apply(variables, np.zeros((1, 32, 48, 3), np.float32), train=False)


def test_coarser_branches_are_brought_up_bilinearly():
    x = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    joined = hrnet.concatenate([np.zeros((1, 4, 4, 1), np.float32), x])[0, ..., 1]
    along = np.array([0, 0.25, 0.75, 1])  # align_corners=False, edges replicated
    np.testing.assert_allclose(joined, 2 * along[:, None] + along, rtol=1e-6)


def test_the_table_names_each_variable_once_and_the_imagenet_head_is_dropped(reference):
    folder, _, variables = reference
    state_dict = dict(golden_weights.load(folder)[1])
    state_dict["classifier.weight"] = np.zeros((1000, 2048), np.float32)
    state_dict["incre_modules.0.0.bn1.num_batches_tracked"] = np.zeros((), np.int64)
    shapes = shapes_of(hrnet.Backbone())
    from_imagenet = weights.convert(state_dict, hrnet.IMAGENET_NAMES, shapes)
    jax.tree.map(np.testing.assert_array_equal, from_imagenet, variables)
    with pytest.raises(UserError, match=r"^weights: 2 .*classifier\.weight matches no"):
        weights.convert(state_dict, hrnet.TORCH_NAMES, shapes)
