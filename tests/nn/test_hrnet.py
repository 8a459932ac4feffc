import functools

import equivalence
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_nets import (
    evaluate,
    inside,
    nhwc,
    quick_jit,
    random_variables,
    shapes_of,
    train,
)

from occjax.errors import UserError
from occjax.nn import hrnet
from occjax.runtime import weights

TINY = {"width": 4, "modules": (1, 2, 1), "blocks": 1, "stem": 8, "bottlenecks": 1}
STAGES = {"stage2": "stage2_0", "stage3": "stage3_3", "stage4": "stage4_2"}
check = functools.partial(equivalence.check, "HRNet-W32 backbone")


@pytest.fixture(scope="module")
def reference(golden):
    """Folder, manifest and converted variables of the official W32 backbone."""
    folder = golden / "hrnet_w32_backbone"
    manifest, state_dict = golden_weights.load(folder)
    shapes = shapes_of(hrnet.Backbone())
    return folder, manifest, weights.convert(state_dict, hrnet.TORCH_NAMES, shapes)


def test_w32_has_the_official_number_of_parameters_and_batch_norms():
    shapes = shapes_of(hrnet.Backbone())
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 29_305_536
    assert len(jax.tree.leaves(shapes["params"])) == 3 * 305
    assert len(jax.tree.leaves(shapes["batch_stats"])) == 2 * 305


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(np.float32, 2e-5), pytest.param(np.float64, 5e-6, marks=pytest.mark.slow)],
)
def test_every_stage_equals_the_official_code(reference, dtype, tolerance):
    folder, _, variables = reference
    expected = np.load(folder / "eval_stages.npz")
    image = nhwc(expected["input"])
    features, seen = inside(hrnet.Backbone(), variables, image, dtype)
    parts = {
        "stem": seen["stem2"]["__call__"][0],
        "layer1_ch_every4": seen["layer1_3"]["__call__"][0][..., ::4],
    }
    for stage, name in STAGES.items():
        for b, branch in enumerate(seen[name]["__call__"][0]):
            parts[f"{stage}_{b}"] = branch
    for part, ours in parts.items():
        theirs = nhwc(expected[part])
        check(f"forward: {part.removesuffix('_ch_every4')}", ours, theirs, tolerance)
    expected = nhwc(np.load(folder / "eval_features.npz")["features"])
    check("forward: features", features, expected, tolerance)


def test_running_statistics_after_one_training_pass_equal_the_official_code(reference):
    folder, manifest, variables = reference
    image = nhwc(np.load(folder / "eval_stages.npz")["input"])
    expected = np.load(folder / "train_bn.npz")
    features, state = train(hrnet.Backbone(), variables, image)
    theirs = nhwc(expected["features_train_ch_every8"])
    check("forward: features, training", features[..., ::8], theirs, 3e-4)
    state_dict = dict(golden_weights.load(folder)[1])
    for part in ("running_mean", "running_var"):
        names = [f"{name}.{part}" for name in manifest["bn_order"]]
        ends = np.cumsum([state_dict[name].size for name in names])
        pieces = np.split(expected[f"{part}_after"], ends)
        assert not pieces[-1].size  # every value has its batch norm
        state_dict.update(zip(names, pieces[:-1], strict=True))
    after = weights.convert(state_dict, hrnet.TORCH_NAMES, shapes_of(hrnet.Backbone()))
    of_each = jax.tree.leaves_with_path(state["batch_stats"])
    theirs = jax.tree.leaves(after["batch_stats"])
    for (path, ours), wanted in zip(of_each, theirs, strict=True):
        check(f"forward: running {path[-1].key}, training", ours, wanted, 3e-4)


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
