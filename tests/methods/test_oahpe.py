"""OA-HPE: which joints count as labelled, what each stage learns, sizes, balance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import oahpe as experiment
from occjax.methods import oahpe
from occjax.nn.crop_model import Reading
from occjax.ops import joint_maps, losses
from occjax.runtime import initial, step
from occjax.skeletons import COCO
from occjax.types import Inputs, Labels

CPN = {"name": "cpn", "depth": 18, "width": 8, "features": 8}
PYRAMID = {"name": "pyramid", "widths": (8, 16), "depths": (1, 1), "features": 8}
HEAD = {"channels": 8, "hidden": 16}


def build(backbone=CPN, **fields):
    return oahpe.Model(skeleton=COCO, backbone=backbone, labels=HEAD, **fields)


def batch(size=64):
    rng = np.random.default_rng(0)
    inputs = Inputs(
        rng.integers(0, 256, (2, size, size, 3), np.uint8),
        np.full((2, 2), size, np.int32),
        np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1)),
    )
    labels = Labels(
        rng.uniform(4, size - 4, (2, 1, 17, 2)).astype(np.float32),
        rng.integers(0, 3, (2, 1, 17)).astype(np.uint8),
        np.full((2, 1), 900, np.float32),
        np.zeros((2, size // 4, size // 4), bool),
        np.zeros((2, 1), np.float32),
    )
    return inputs, labels


def outputs_of(maps, logits):
    maps = tuple(jnp.asarray(x, jnp.float32) for x in maps)
    return Reading(maps, labelled=logits)


def test_a_joint_has_a_label_if_it_is_annotated_within_the_crop():
    _, labels = batch()
    labels.visibility[0, 0, :3] = 1, 2, 0
    labels.joints[0, 0, 0] = -1, 10  # annotated, but the crop has cut it off
    labels.joints[0, 0, 1] = 63, 63
    found = np.asarray(oahpe.has_label(labels, (64, 64)))
    np.testing.assert_array_equal(found[0, :3], [False, True, False])
    np.testing.assert_array_equal(found[1], labels.visibility[1, 0] > 0)


def test_the_loss_of_labels_is_the_cross_entropy_summed_over_joints():
    _, labels = batch()
    logits = np.random.default_rng(1).normal(0, 3, (2, 17)).astype(np.float32)
    maps = np.zeros((2, 16, 16, 17))
    terms = oahpe.loss_terms(
        build(coarse_sigmas=()), outputs_of([maps], logits), labels
    )
    chance = 1 / (1 + np.exp(-logits.astype(float)))
    true = labels.visibility[:, 0] > 0
    expected = -np.log(np.where(true, chance, 1 - chance)).sum(axis=1)
    np.testing.assert_allclose(terms["labelled"][0], expected, rtol=1e-5)
    assert "coarse" not in terms


def test_the_loss_of_labels_is_finite_for_logits_of_fifty():
    logits = jnp.asarray([[50.0, -50.0], [-50.0, 50.0]])
    truth = jnp.asarray([[True, False]] * 2)

    def loss(logits):
        return jnp.sum(losses.binary(logits, truth)[0])

    value, slope = jax.value_and_grad(loss)(logits)
    np.testing.assert_allclose(value, 100, rtol=1e-6)
    np.testing.assert_allclose(slope, [[0, 0], [-1, 1]], atol=1e-6)


def test_coarse_maps_show_visible_joints_alone_and_refined_ones_the_hardest():
    _, labels = batch()
    model = build(hardest=3, sigma=1.0, coarse_sigmas=(2.0, 1.0, 1.0, 1.0))
    joints, seen = labels.joints[:, 0], labels.visibility[:, 0]
    shape = (16, 16)
    visible = [
        joint_maps.targets(joints, seen == 2, shape, sigma, 4)[0]
        for sigma in model.coarse_sigmas
    ]
    refined, weight = joint_maps.targets(joints, seen > 0, shape, 1.0, 4)
    logits = np.zeros((2, 17), np.float32)

    perfect = outputs_of([*visible, refined], logits)
    terms = oahpe.loss_terms(model, perfect, labels)
    np.testing.assert_allclose(terms["coarse"][0], 0, atol=1e-12)
    np.testing.assert_allclose(terms["heatmap"][0], 0, atol=1e-12)

    blank = outputs_of([0 * x for x in perfect.maps], logits)
    terms = oahpe.loss_terms(model, blank, labels)
    square = np.mean([np.mean(np.square(x), axis=(1, 2)) for x in visible], axis=0)
    np.testing.assert_allclose(terms["coarse"][0], square, rtol=1e-5)
    each = np.asarray(weight) * np.mean(np.square(refined), axis=(1, 2))
    hardest = -np.sort(-each, axis=1)[:, :3]
    np.testing.assert_allclose(terms["heatmap"][0], hardest, rtol=1e-5)


def test_losses_balance_as_maps_with_peaks_of_255_do():
    _, labels = batch()
    rng = np.random.default_rng(2)
    maps = [rng.uniform(0, 1, (2, 16, 16, 17)) for _ in range(5)]
    logits = jnp.asarray(rng.normal(0, 1, (2, 17)), jnp.float32)
    terms = oahpe.loss_terms(build(), outputs_of(maps, logits), labels)
    ours = sum(
        experiment.LOSS[name] * np.sum(v * w) / np.sum(w)
        for name, (v, w) in terms.items()
    )
    values = {n: float(np.sum(v * w) / np.sum(w)) for n, (v, w) in terms.items()}
    plain = 255**2 * (values["coarse"] / 2 + values["heatmap"]) + values["labelled"]
    np.testing.assert_allclose(ours * 255**2, plain, rtol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "fields"),
    [
        (CPN, {}),
        (PYRAMID, {"coarse_sigmas": ()}),
        ({**PYRAMID, "all_levels": True}, {"coarse_sigmas": ()}),
        (
            {"name": "resnet", "depth": 18, "width": 4},
            {"deconv": (8, 8, 8), "coarse_sigmas": ()},
        ),
        (
            {"name": "hrnet", "width": 4, "stem": 8, "blocks": 1, "bottlenecks": 1}
            | {"modules": (1, 1, 1), "concat": False, "all_levels": True},
            {"coarse_sigmas": ()},
        ),
        (
            {"name": "fastpose", "width": 4, "duc": (32, 16)},
            {"coarse_sigmas": ()},
        ),
        (
            {"name": "hourglass", "stacks": 2, "levels": 2, "stem": (8, 8, 8)},
            {"coarse_sigmas": (1.0,)},
        ),
    ],
    ids=lambda x: x.get("name") if isinstance(x, dict) else None,
)
def test_every_network_with_maps_can_tell_of_labels(backbone, fields):
    model = build(backbone, **fields)
    inputs, labels = batch()
    variables = initial.variables(model, inputs, seed=0)
    outputs, _ = model.apply(variables, inputs, train=True, mutable=["batch_stats"])
    assert outputs.labelled.shape == (2, 17)
    terms = oahpe.loss_terms(model, outputs, labels)
    assert set(terms) == {"heatmap", "labelled"} | (
        {"coarse"} if len(outputs.maps) > 1 else set()
    )
    poses = oahpe.decode(model, model.apply(variables, inputs, train=False), inputs)
    assert poses.labelled.shape == (2, 1, 17)
    assert np.all((poses.labelled > 0) & (poses.labelled < 1))


def test_labels_are_the_mean_of_both_orientations():
    model = build(PYRAMID, coarse_sigmas=())
    inputs, _ = batch()
    variables = initial.variables(model, inputs, seed=0)
    alone = model.clone(flip_test=False)
    mirrored = inputs._replace(image=inputs.image[:, :, ::-1])
    first, second = (
        alone.apply(variables, one, train=False).labelled for one in (inputs, mirrored)
    )
    expected = (first + second[:, np.array(COCO.flip)]) / 2
    got = model.apply(variables, inputs, train=False).labelled
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_stages_without_a_width_of_their_own_are_told():
    model = build(coarse_sigmas=(2.0,))
    with pytest.raises(ValueError, match=r"coarse_sigmas: expected 4, .* \(2.0,\)"):
        model.init(jax.random.key(0), batch()[0], train=True)


def test_the_visibility_subnet_has_the_size_that_the_paper_implies():
    config = experiment.get_config("coco")
    _, model = step.build_model(config, COCO)
    shapes = step.variable_shapes(model, (384, 288, 3))["params"]["label_head"]
    sizes = [int(np.prod(x.shape)) for x in jax.tree.leaves(shapes)]
    # 1x1 convolution, batch norm, 27648 x 1024, 1024 x 1024, 1024 x 17
    bring = 2048 * 256 + 2 * 256
    dense = (27648 + 1) * 1024 + (1024 + 1) * 1024 + (1024 + 1) * 17
    assert sum(sizes) == bring + dense
    assert 29.8e6 < sum(sizes) < 30.0e6
    pooled = model.clone(labels={**config.model.labels, "pool": True})
    shapes = step.variable_shapes(pooled, (384, 288, 3))["params"]["label_head"]
    count = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))
    assert 1.8e6 < count < 2.0e6
