"""ResNets and SimpleBaseline's head against torchvision and the official code."""

import functools

import equivalence
import golden_nets as nets
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from occjax import nn as occjax_nn
from occjax.errors import UserError
from occjax.nn import heads, resnet
from occjax.nn.torch_names import prefixed
from occjax.runtime import weights

POSE_NAMES = (
    *prefixed(heads.DECONVOLUTION_NAMES, "", "head"),
    *prefixed(heads.HEATMAP_NAMES, "", "final"),
    *prefixed(resnet.TORCH_NAMES, "", "trunk"),
)


class Classifier(nn.Module):
    """The whole of torchvision's network."""

    depth: int
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, image, *, train):
        trunk = resnet.Backbone(self.depth, dtype=self.dtype, name="trunk")
        stages = trunk.stages(image, train=train)
        pooled = jnp.mean(stages[-1], axis=(1, 2))
        return *stages, nn.Dense(1000, dtype=self.dtype, name="fc")(pooled)


CLASSIFIER_NAMES = (
    *prefixed(resnet.TORCH_NAMES, "", "trunk"),
    ("fc", "fc", "linear"),
)


class Pose(nn.Module):
    """The whole of SimpleBaseline's network; returns C5, three maps and heatmaps."""

    depth: int
    joints: int
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, image, *, train):
        x = resnet.Backbone(self.depth, dtype=self.dtype, name="trunk")(
            image, train=train
        )
        head = heads.Deconvolution(dtype=self.dtype, name="head")
        maps = head(x, train=train)
        final = heads.Heatmaps(self.joints, dtype=self.dtype, name="final")
        return x, *maps, final(maps[-1])


@pytest.fixture(scope="module")
def folder(golden):
    return golden / "torchvision_resnet"


@nets.in_both_precisions
@pytest.mark.parametrize("depth", [50, pytest.param(101, marks=pytest.mark.slow)])
def test_stages_and_logits_equal_torchvision(folder, depth, dtype, tolerance):
    model = Classifier(depth)
    part = f"resnet{depth}"
    expected, variables = nets.reference(folder, part, model, CLASSIFIER_NAMES)
    image = nets.nhwc(expected["input"])
    (*stages, logits), _ = nets.inside(model, variables, image, dtype)
    check = functools.partial(equivalence.check, f"ResNet-{depth} (torchvision)")
    for i, ours in enumerate(stages, start=2):
        check(f"forward: C{i}", ours, nets.nhwc(expected[f"C{i}"]), tolerance)
    check("forward: logits", logits, expected["logits"], tolerance)


def test_running_statistics_after_a_training_pass_equal_torchvision(folder):
    model = Classifier(50)
    _, variables = nets.reference(folder, "resnet50", model, CLASSIFIER_NAMES)
    expected = np.load(folder / "resnet50_train.npz")
    outputs, state = nets.train(model, variables, nets.nhwc(expected["input"]))
    check = functools.partial(equivalence.check, "ResNet-50 (torchvision)")
    check("forward: logits, training", outputs[-1], expected["logits"], 3e-4)
    trunk = state["batch_stats"]["trunk"]
    stored = {
        "bn1": trunk["stem"],
        "layer1.0.bn3": trunk["layer1_0"]["conv3"],
        "layer3.5.bn2": trunk["layer3_5"]["conv2"],
        "layer4.2.bn3": trunk["layer4_2"]["conv3"],
    }
    for name, stats in stored.items():
        for moment in ("mean", "var"):
            given = expected[f"{moment}_{name}"]
            link = f"forward: running {moment}, training"
            check(link, stats["bn"][moment], given, 3e-4)


@pytest.mark.slow
def test_gradients_in_float64_equal_torchvision(folder):
    model = Classifier(50)
    _, variables = nets.reference(folder, "resnet50", model, CLASSIFIER_NAMES)
    model = model.clone(dtype=jnp.float64)
    _, state_dict = golden_weights.load(folder, "resnet50")
    expected = np.load(folder / "resnet50_train.npz")

    def loss(params, image):
        given = {**variables, "params": params}
        outputs, _ = model.apply(given, image, train=True, mutable=["batch_stats"])
        return jnp.mean(jnp.square(outputs[-1])), outputs[-1]

    with jax.enable_x64(True):
        params = jax.tree.map(np.float64, variables["params"])
        image = np.float64(nets.nhwc(expected["input"]))
        given = nets.quick_jit(jax.value_and_grad(loss, has_aux=True))(params, image)
    (value, logits), grads = given
    check = functools.partial(equivalence.check, "ResNet-50 (torchvision)")
    check("forward: logits, training", logits, expected["logits"], 1e-7)
    check("loss", value, expected["loss"], 1e-9, "each")
    norms = expected["grad_norms"]
    norms = nets.gradient_norms(grads, state_dict, norms, CLASSIFIER_NAMES)
    check("gradient norm", *norms, 1e-6, "each")
    first = np.transpose(grads["trunk"]["stem"]["conv"]["kernel"], (3, 2, 0, 1))
    check("gradient norm: whole first layer", first, expected["grad_conv1"], 1e-6)


@nets.in_both_precisions
@pytest.mark.parametrize(
    ("depth", "joints"), [(50, 17), pytest.param(101, 16, marks=pytest.mark.slow)]
)
def test_heatmaps_equal_the_official_simple_baseline(
    golden, depth, joints, dtype, tolerance
):
    model, part = Pose(depth, joints), f"pose_resnet{depth}"
    expected, variables = nets.reference(
        golden / "simple_baseline", part, model, POSE_NAMES
    )
    image = nets.nhwc(expected["input"])
    maps, _ = nets.inside(model, variables, image, dtype)
    names = ("C5", "deconv1", "deconv2", "deconv3", "heatmaps")
    for name, ours in zip(names, maps, strict=True):
        if name in expected:
            theirs = nets.nhwc(expected[name])
            of = f"SimpleBaseline ResNet-{depth}"
            equivalence.check(of, f"forward: {name}", ours, theirs, tolerance)


@pytest.mark.parametrize(
    ("depth", "trunk", "pose"),
    [
        (18, 11_176_512, None),
        (34, 21_284_672, None),
        (50, 23_508_032, 33_999_697),
        (101, 42_500_160, 52_991_825),
        (152, 58_143_808, 68_635_473),
    ],
)
def test_every_depth_has_the_published_number_of_parameters(depth, trunk, pose):
    found = nets.shapes_of(resnet.Backbone(depth))["params"]
    assert nets.count(found) == trunk
    if pose is not None:
        assert nets.count(nets.shapes_of(Pose(depth, 17))["params"]) == pose


def test_stages_have_strides_four_to_thirty_two_whatever_the_input():
    model = resnet.Backbone(18, width=4)
    maps = jax.ShapeDtypeStruct((2, 96, 72, 17), jnp.float32)  # KS-net's heatmaps
    init = functools.partial(
        model.init_with_output, train=False, method=resnet.Backbone.stages
    )
    stages, _ = jax.eval_shape(init, jax.random.key(0), maps)
    sizes = [(24, 18, 4), (12, 9, 8), (6, 5, 16), (3, 3, 32)]
    assert [stage.shape[1:] for stage in stages] == sizes


def test_caffes_networks_differ_in_where_the_stride_sits_only():
    image = np.random.default_rng(0).standard_normal((1, 32, 32, 3), np.float32)
    ours = resnet.Backbone(50, width=4)
    theirs = ours.clone(caffe=True)
    variables = nets.random_variables(ours)
    jax.tree.map(
        np.testing.assert_array_equal, variables, nets.random_variables(theirs)
    )
    outputs = [
        model.apply(variables, image, train=False, method=resnet.Backbone.stages)
        for model in (ours, theirs)
    ]
    np.testing.assert_array_equal(outputs[0][0], outputs[1][0])  # stage 1: no stride
    assert outputs[0][1].shape == outputs[1][1].shape
    assert np.any(outputs[0][1] != outputs[1][1])


def test_bfloat16_computes_near_float32_and_jit_gives_what_eager_gives():
    model = Tiny()
    variables = nets.random_variables(model)
    image = np.random.default_rng(0).standard_normal((2, 64, 32, 3), np.float32)
    expected, _ = nets.train(model, variables, image)
    eager, _ = model.apply(variables, image, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(expected, eager, rtol=1e-3, atol=1e-3)
    narrow, state = nets.train(Tiny(dtype=jnp.bfloat16), variables, image)
    assert narrow.dtype == jnp.bfloat16
    assert narrow.shape == (2, 16, 8, 5)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
    error = np.mean(np.abs(np.asarray(narrow, np.float32) - expected))
    assert error < 0.05 * np.mean(np.abs(expected))


class Tiny(nn.Module):
    """A narrow SimpleBaseline."""

    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, image, *, train):
        x = resnet.Backbone(18, width=4, dtype=self.dtype)(image, train=train)
        maps = heads.Deconvolution((8, 8, 8), dtype=self.dtype)(x, train=train)
        return heads.Heatmaps(5, dtype=self.dtype)(maps[-1])


def test_gradient_reaches_every_parameter():
    model, image = Tiny(), np.random.default_rng(1).standard_normal((2, 64, 64, 3))
    nets.assert_gradients_everywhere(
        model, nets.random_variables(model), np.float32(image)
    )


def test_the_imagenet_classifier_is_dropped_and_the_wrong_depth_refused(folder):
    _, state_dict = golden_weights.load(folder, "resnet50")
    shapes = nets.shapes_of(resnet.Backbone(50))
    converted = weights.convert(state_dict, resnet.IMAGENET_NAMES, shapes)
    assert jax.tree.structure(converted) == jax.tree.structure(shapes)
    with pytest.raises(UserError, match=r"fc\.weight matches no row"):
        weights.convert(state_dict, resnet.TORCH_NAMES, shapes)
    deeper = nets.shapes_of(resnet.Backbone(101))
    with pytest.raises(UserError, match=r"params/layer3_22/conv3/bn/scale is missing"):
        weights.convert(state_dict, resnet.IMAGENET_NAMES, deeper)


def test_an_unknown_depth_is_refused():
    with pytest.raises(ValueError, match=r"one of \(18, 34, 50, 101, 152\), got 26"):
        nets.shapes_of(occjax_nn.backbone("resnet", depth=26))
    with pytest.raises(ValueError, match=r"depth 18 has no bottlenecks"):
        nets.shapes_of(resnet.Backbone(18, caffe=True))
