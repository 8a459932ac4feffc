"""OPEC-Net's head against the published code: forward, losses, gradients, training."""

import functools

import equivalence
import golden_nets as nets
import jax
import jax.numpy as jnp
import numpy as np
import optax
import published_opec as published
import pytest
from flax import linen as nn

from occjax.nn import opec_head
from occjax.ops import sampling
from occjax.skeletons import OCPOSE

check = functools.partial(equivalence.check, published.MODEL)
POSES = ("pose1", "pose2", "pose3")
PRECISIONS = [("float32", 2e-5), ("float64", 2e-7)]


def evaluate(model, variables, args):
    return nets.quick_jit(functools.partial(model.apply, train=False))(variables, *args)


def outputs_of(golden, dtype):
    """Reference figures and outputs in evaluation mode."""
    figures = np.load(golden / "opec_net" / "forward_eval.npz")
    model = published.head(dtype=dtype)
    args = published.arguments(figures, dtype)
    given = published.variables(golden, model, args, "forward_eval")
    return figures, evaluate(model, given, args)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_poses_and_losses_equal_the_published_ones(golden, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"):
        figures, outputs = outputs_of(golden, np.dtype(dtype))
        parts = published.loss_parts(outputs, figures["gt"])
        total = published.total(parts)
    heatmap = np.moveaxis(figures["heatmap"], 1, -1)
    check("forward: heatmaps", outputs.heatmaps, heatmap, tolerance)
    check("forward: first pose", outputs.start, figures["pose_init"], tolerance)
    for ours, key in zip(outputs.poses, POSES, strict=True):
        assert ours.dtype == dtype
        check("forward: poses", ours, figures[key], tolerance)
    check("loss", parts, figures["loss_parts"], tolerance, "each")
    check("loss: total", total, figures["loss"], tolerance, "each")


@pytest.mark.parametrize(
    ("name", "suffix", "corner", "beyond"),
    [("aligned", "", 0.0, -1.0), ("unaligned", "_acF", -0.5, -0.5)],
)
def test_features_at_joints_are_those_of_either_grid(
    golden, name, suffix, corner, beyond
):
    """Torch aligned corners until 1.1; later versions do not unless asked to."""
    with jax.enable_x64(True):
        figures, outputs = outputs_of(golden, np.float64)
        for i in (1, 2, 3):
            features = jnp.asarray(np.moveaxis(figures[f"cfa{i}"], 1, -1), jnp.float64)
            size = np.asarray(features.shape[2:0:-1])
            points = sampling.from_unit(outputs.start, (corner,) * 2, size + beyond)
            got = np.swapaxes(sampling.bilinear(features, points), 1, 2)
            wanted = figures[f"joint_feat{i}{suffix}"]
            check(f"forward: features at joints, {name} grid", got, wanted, 1e-6)


def full_size(figures):
    """The features, which are not stored: made from their rule."""
    rng = np.random.Generator(np.random.PCG64(403))
    sizes = ((1, 512, 20, 16), (1, 256, 40, 32), (1, 128, 80, 64))
    maps = [np.maximum(rng.standard_normal(s), 0) * 3 for s in sizes]
    maps = [x.astype(np.float32) for x in maps]
    sums = [np.sum(x, dtype=np.float64) for x in maps]
    np.testing.assert_allclose(sums, figures["feat_checksum"], rtol=1e-9)
    return {f"feat{i}": x for i, x in enumerate(maps, start=1)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "prefix", "parts", "dtype", "tolerance"),
    [
        ("integral", "integral_", ("forward_eval",), "float32", 2e-5),
        ("fc", "fc_", ("forward_eval", "full_size"), "float32", 3e-4),
        ("integral", "integral_", ("forward_eval",), "float64", 2e-7),
        ("fc", "fc_", ("forward_eval", "full_size"), "float64", 2e-7),
    ],
)
def test_both_heads_at_full_size(golden, start, prefix, parts, dtype, tolerance):
    figures = dict(np.load(golden / "opec_net" / "full_size.npz"))
    figures |= full_size(figures)
    with jax.enable_x64(dtype == "float64"):
        model = published.head(start=start, dtype=np.dtype(dtype))
        args = published.arguments(figures, np.dtype(dtype))
        given = published.variables(golden, model, args, *parts)
        outputs = evaluate(model, given, args)
        losses = published.loss_parts(outputs, figures["gt"])
        total = published.total(losses)
    poses = (outputs.start, *outputs.poses)
    link = f"forward: poses of the {start} head, 320x256"
    for ours, key in zip(poses, ("pose_init", *POSES), strict=True):
        check(link, ours, figures[prefix + key], tolerance)
    first = figures["heatmap_joint0"][:, 0]
    nets.assert_close_to_largest(outputs.heatmaps[..., 0], first, tolerance)
    if start == "fc":
        check("loss: fc head", losses, figures["fc_loss_parts"], tolerance)
        check("loss: fc head", total, figures["fc_loss"], tolerance)


class Training:
    """The reference batch and a step on it, in float64."""

    def __init__(self, golden):
        self.figures = np.load(golden / "opec_net" / "train.npz")
        self.state_dict = published.state_dict(golden, "forward_eval")
        self.args = published.arguments(self.figures, np.float64)
        self.model = published.head(dtype=np.float64)
        given = published.variables(golden, self.model, self.args, "forward_eval")
        given = jax.tree.map(lambda x: jnp.asarray(x, np.float64), given)
        self.params, self.stats = given["params"], given["batch_stats"]
        self.grad = nets.quick_jit(jax.value_and_grad(self._loss, has_aux=True))

    def _loss(self, params, stats):
        outputs, changed = self.model.apply(
            {"params": params, "batch_stats": stats},
            *self.args,
            train=True,
            mutable=["batch_stats"],
        )
        parts = published.loss_parts(outputs, self.figures["gt"])
        return published.total(parts), (parts, outputs, changed["batch_stats"])

    def five_steps(self, rates):
        """Adam with clipped gradients: rows like the stored history, and the end."""
        adam = optax.scale_by_adam()
        update = nets.quick_jit(adam.update)
        params, stats = self.params, self.stats
        state, rows = adam.init(params), []
        for rate in rates:
            (total, (parts, _, stats)), grad = self.grad(params, stats)
            norm = optax.tree.norm(grad)
            rows.append([rate, total, *parts, norm])
            factor = jnp.minimum(1 / (norm + 1e-6), 1)
            steps, state = update(jax.tree.map(lambda x, f=factor: x * f, grad), state)
            params = jax.tree.map(lambda p, s, r=rate: p - r * s, params, steps)
        given = {"params": params, "batch_stats": stats}
        (_, (_, outputs, _)), _ = self.grad(params, stats)
        return np.float64(rows), given, outputs, evaluate(self.model, given, self.args)


@pytest.fixture(scope="module")
def training(golden):
    """The training, its first step and its ends by schedule, as NumPy arrays."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        training = Training(golden)
        first = training.grad(training.params, training.stats)
        ends = {
            name: training.five_steps(training.figures[f"history_{name}"][:, 0])
            for name in ("sched", "const")
        }
        return training, *jax.tree.map(np.asarray, (first, ends))


@pytest.mark.slow
def test_a_training_step_equals_the_published_one(training):
    ours, ((total, (parts, outputs, stats)), grad), _ = training
    figures = ours.figures
    for pose, key in zip(outputs.poses, POSES, strict=True):
        check("forward: poses in training", pose, figures[f"fwd_{key}"], 2e-7)
    start = figures["fwd_pose_init"]
    check("forward: first pose in training", outputs.start, start, 2e-7)
    check("loss: in training", parts, figures["fwd_loss_parts"], 1e-9, "each")
    check("loss: total in training", total, figures["fwd_loss"], 1e-9, "each")
    norms = {
        "input": stats["gcn"]["input"]["bn"],
        "layers1.gconv1": stats["gcn"]["block1"]["layer1"]["bn"],
        "layers4": stats["gcn"]["block4"]["bn"],
    }
    for name, norm in norms.items():
        for kind in ("mean", "var"):
            wanted = figures[f"fwd_{kind}_gconv_{name}.bn"]
            nets.assert_close_to_largest(norm[kind], wanted, 2e-7)
    kernel = grad["adaption"]["heatmaps"]["kernel"]
    found = {
        "grad_e_out3": grad["gcn"]["output3"]["logits"],
        "grad_W_input": grad["gcn"]["input"]["conv"]["kernel"],
        "grad_level_conv_out": np.moveaxis(kernel, (-1, -2), (0, 1)),
    }
    for key, gradient in found.items():
        nets.assert_close_to_largest(gradient, figures[key], 2e-7)


@pytest.mark.slow
def test_every_gradient_has_the_published_length(training):
    ours, (_, grad), _ = training
    norms, rows = ours.figures["grad_norms"], opec_head.TORCH_NAMES
    found, wanted = nets.gradient_norms(grad, ours.state_dict, norms, rows)
    check("gradient norm", found, wanted, 1e-6, "each")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schedule", "spelt"), [("sched", "warm-up"), ("const", "constant rate")]
)
def test_five_adam_steps_equal_the_published_ones(training, schedule, spelt):
    ours, _, ends = training
    rows, given, outputs, evaluated = ends[schedule]
    history = ours.figures[f"history_{schedule}"]
    check(f"five optimiser steps: losses, {spelt}", rows, history, 1e-9, "each")
    params, stats = given["params"]["gcn"], given["batch_stats"]["gcn"]
    found = {
        "final_pose_init": outputs.start,
        "final_pose3": outputs.poses[-1],
        "final_pose3_eval": evaluated.poses[-1],
        "final_bn_mean": stats["input"]["bn"]["mean"],
        "final_bn_var": stats["input"]["bn"]["var"],
        "final_e_out3": params["output3"]["logits"],
        "final_bias_out3": params["output3"]["bias"],
    }
    for key, result in found.items():
        wanted = ours.figures[f"{key}_{schedule}"]
        check(f"five optimiser steps: results, {spelt}", result, wanted, 1e-6)


def test_parameters_are_as_many_as_the_published_ones(golden):
    args = published.arguments(np.load(golden / "opec_net" / "forward_eval.npz"))
    params = published.shapes(published.head(), *args)["params"]
    assert nets.count(params["adaption"]) == 2_210_956
    assert nets.count(params["gcn"]) == 1_900_742
    assert params.keys() == {"adaption", "gcn"}


def test_the_fc_head_has_the_published_number_of_parameters():
    params = published.shapes(published.head(start="fc"), *random_inputs((20, 16)))
    assert nets.count(params["params"]["start_fc"]) == 6_295_554


def random_inputs(size=(3, 2), channels=(512, 256, 128), batch=2):
    """Maps, base heatmaps and poses."""
    rng = np.random.default_rng(0)
    maps = [
        np.abs(rng.standard_normal((batch, size[0] << i, size[1] << i, c), np.float32))
        for i, c in enumerate(channels)
    ]
    heatmaps = rng.standard_normal((*maps[-1].shape[:3], OCPOSE.num_joints), np.float32)
    pose = rng.uniform(-1, 1, (batch, OCPOSE.num_joints, 3)).astype(np.float32)
    return maps, heatmaps, pose


SMALL = (8, 6, 4)


def small(features=8, **fields):
    """A narrow head."""
    return published.head(widths=(6, 4, 4), features=features, **fields)


VARIANTS = {
    "full": ({}, [8, 14, 18, 22], 3),
    "exact": ({"exact": True}, [8, 14, 18, 22], 3),
    "fc": ({"start": "fc"}, [8, 14, 18, 22], 3),
    "a": ({"image_guided": False}, [8, 8, 8, 8], 3),
    "b": ({"design": "one_stage"}, [8, 22], 1),
    "b, other reading": ({"design": "last_pose"}, [8, 14, 18, 22], 1),
    "c": ({"single_scale": True}, [8, 12, 16, 20], 3),
    "d": ({"adaption": "none"}, [8, 16, 22, 26], 3),
    "e": ({"adaption": "separate"}, [8, 14, 18, 22], 3),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_have_the_widths_of_table_6(name):
    fields, widths, count = VARIANTS[name]
    model, args = small(**fields), random_inputs(channels=SMALL)
    init = functools.partial(model.init_with_output, train=False)
    outputs, variables = jax.eval_shape(init, jax.random.key(0), *args)
    norms = variables["batch_stats"]["gcn"]
    blocks = sorted(name for name in norms if "block" in name)
    assert [norms[block]["bn"]["mean"].size for block in blocks] == widths
    assert [x.shape for x in outputs.poses] == [(2, 12, 2)] * count
    assert (outputs.start is None) == (name == "a")


@pytest.mark.parametrize(
    "name",
    [
        x if x == "full" else pytest.param(x, marks=pytest.mark.slow)
        for x in VARIANTS
        if x != "exact"
    ],
)
def test_gradient_reaches_every_parameter_of_a_variant(name):
    model, args = small(features=16, **VARIANTS[name][0]), random_inputs(channels=SMALL)
    # positive weights behind a ReLU: no gate has all of its four units closed
    variables = jax.tree.map_with_path(
        lambda path, leaf: np.abs(leaf) if "gate" in str(path) else leaf,
        published.random_variables(model, *args),
    )

    def loss(params):
        # in evaluation mode: in training a bias before a batch norm has no effect
        outputs = model.apply({**variables, "params": params}, *args, train=False)
        poses = (*outputs.poses, *([] if outputs.start is None else [outputs.start]))
        return sum(jnp.sum(jnp.square(x - 0.3)) for x in poses)

    grads = nets.quick_jit(jax.grad(loss))(variables["params"])
    for path, grad in jax.tree.leaves_with_path(grads):
        assert np.all(np.isfinite(grad)), path
        # the softmax of a map takes no notice of a constant
        no_effect = name != "fc" and "heatmaps" in str(path) and "bias" in str(path)
        assert no_effect or np.any(grad != 0), path


def test_samples_are_taken_short_of_the_pose_unless_asked_for_exactly():
    maps, heatmaps, pose = random_inputs(channels=SMALL)
    ramp = np.arange(12, dtype=np.float32)  # of the finest map: 12 rows, 8 columns
    maps[2] = np.broadcast_to(ramp[:, None, None], maps[2].shape).copy()
    heatmaps = np.full_like(heatmaps, -1e3)
    heatmaps[:, 9, 4] = 1e3
    model = functools.partial(small, adaption="none")
    variables = published.random_variables(model(), maps, heatmaps, pose)
    seen = []

    def spy(call, args, kwargs, context):
        if (context.module.name, context.method_name) == ("gcn", "__call__"):
            seen.append(args[1][-1])  # the last stage's features
        return call(*args, **kwargs)

    for exact in (False, True):
        with nn.intercept_methods(spy):
            outputs = model(exact=exact).apply(
                variables, maps, heatmaps, pose, train=False
            )
        np.testing.assert_allclose(outputs.start[0, 0], (0, 0.5), atol=1e-6)
    np.testing.assert_allclose(seen[0], 9 * 11 / 12, rtol=1e-6)
    np.testing.assert_allclose(seen[1], 9, rtol=1e-6)


def test_poses_that_do_not_count_change_nothing_for_the_others():
    model, args = small(), random_inputs(channels=SMALL, batch=4)
    variables = published.random_variables(model, *args)
    run = nets.quick_jit(
        functools.partial(model.apply, train=True, mutable=["batch_stats"])
    )
    mask = jnp.asarray([True, True, True, False])
    expected, stats = run(variables, *args, mask=mask)
    moved = jax.tree.map(lambda x: np.concatenate((x[:3], x[3:] + 5)), args)
    got, moved_stats = run(variables, *moved, mask=mask)
    np.testing.assert_array_equal(got.poses[-1][:3], expected.poses[-1][:3])
    assert np.any(got.poses[-1][3:] != expected.poses[-1][3:])
    jax.tree.map(np.testing.assert_array_equal, stats, moved_stats)


def test_bfloat16_computes_near_float32_and_gives_float32_poses():
    args = random_inputs(channels=SMALL)
    variables = published.random_variables(small(), *args)
    expected = evaluate(small(), variables, args)
    narrow = evaluate(small(dtype=jnp.bfloat16), variables, args)
    assert narrow.heatmaps.dtype == jnp.bfloat16
    for ours, wanted in zip(
        (*narrow.poses, narrow.start), (*expected.poses, expected.start), strict=True
    ):
        assert ours.dtype == jnp.float32
        error = np.mean(np.abs(ours - wanted))
        assert error < 0.05 * np.mean(np.abs(wanted))


@pytest.mark.parametrize(
    ("fields", "heatmaps", "message"),
    [
        ({"start": "mlp"}, None, "start: expected one of integral, fc, got 'mlp'"),
        ({"design": "both"}, None, "design: expected one of progressive"),
        ({"adaption": "fusion"}, None, "adaption: expected one of cascaded"),
        ({"adaption": "none"}, None, "heatmaps: expected the base network's"),
    ],
)
def test_unknown_variants_and_missing_heatmaps_are_refused(fields, heatmaps, message):
    maps, _, pose = random_inputs(channels=SMALL)
    with pytest.raises(ValueError, match=message):
        published.shapes(small(**fields), maps, heatmaps, pose)
