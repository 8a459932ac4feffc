"""KS-net: what it learns from any method's heatmaps, and what OAKS makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from occjax.methods import ksnet, oahpe, top_down
from occjax.nn.crop_model import Reading
from occjax.nn.ks_net import KSNet
from occjax.ops import rescoring
from occjax.runtime import initial
from occjax.skeletons import COCO
from occjax.types import Inputs, Labels

PYRAMID = {"name": "pyramid", "widths": (8, 16), "depths": (1, 1), "features": 8}
HEATMAPS = {"method": "top_down", "backbone": PYRAMID, "sigma": 1.0}
HEAD = {"channels": 8, "hidden": 16}
LABELS = {
    **{"method": "oahpe", "backbone": PYRAMID, "coarse_sigmas": (), "labels": HEAD},
    "decoder": "quarter",
}
NET = {"backbone": {"name": "two_convs", "widths": (8, 8)}, "hidden": 16}
BACKBONES = {
    "two_convs": {},
    "resnet": {"depth": 18, "width": 8},
    "vgg": {"depth": 11, "width": 16},
}


def build(base=LABELS, **fields):
    return ksnet.Model(skeleton=COCO, base=base, net=NET, **fields)


def batch(size=64, to_source=((2, 0, 5), (0, 2, -3))):
    rng = np.random.default_rng(0)
    inputs = Inputs(
        rng.integers(0, 256, (2, size, size, 3), np.uint8),
        np.full((2, 2), size, np.int32),
        np.tile(np.array(to_source, np.float32), (2, 1, 1)),
        box_score=np.array([1.0, 0.5], np.float32),
    )
    labels = Labels(
        rng.uniform(4, size - 4, (2, 1, 17, 2)).astype(np.float32),
        rng.integers(0, 3, (2, 1, 17)).astype(np.uint8),
        np.full((2, 1), 900, np.float32),
        np.zeros((2, size // 4, size // 4), bool),
        np.zeros((2, 1), np.float32),
        oks_area=np.array([[400.0], [1600.0]], np.float32),
    )
    return inputs, labels


def started(model):
    return initial.variables(model, batch()[0], seed=0)


def run(model, variables, train=False):
    inputs, _ = batch()
    if not train:
        return model.apply(variables, inputs, train=False)
    return model.apply(variables, inputs, train=True, mutable=["batch_stats"])[0]


def test_the_truth_is_the_similarity_of_the_bases_joints_by_the_annotations_area():
    model = build()
    variables = started(model)
    outputs, (inputs, labels) = run(model, variables, train=True), batch()
    method, base = model.frozen("base")
    poses = method.decode(base, outputs.base, inputs)
    joints = (np.asarray(poses.joints[:, 0], float) - [5, -3]) / 2  # input pixels
    np.testing.assert_allclose(outputs.joints, joints, atol=1e-4)

    gap = np.square(joints - labels.joints[:, 0]).sum(axis=-1)
    k = 2 * np.array(COCO.sigmas)
    truth = np.exp(-gap / (2 * labels.oks_area * k**2))
    error = np.abs(np.asarray(outputs.quality, float) - truth)
    expected = np.sum(error * (labels.visibility[:, 0] > 0), axis=1)
    values, weights = ksnet.loss_terms(model, outputs, labels)["similarity"]
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    np.testing.assert_array_equal(weights, 1)


def test_unlabelled_joints_teach_nothing():
    model = build()
    outputs, (_, labels) = run(model, started(model), train=True), batch()

    def loss(quality):
        found = outputs._replace(quality=quality)
        return jnp.sum(ksnet.loss_terms(model, found, labels)["similarity"][0])

    slope = np.asarray(jax.grad(loss)(outputs.quality))
    np.testing.assert_array_equal(slope != 0, labels.visibility[:, 0] > 0)


def test_labels_without_the_annotations_area_are_refused():
    model = build()
    outputs, (_, labels) = run(model, started(model), train=True), batch()
    with pytest.raises(ValueError, match="oks_area"):
        ksnet.loss_terms(model, outputs, labels._replace(oks_area=None))


def test_the_base_is_run_as_in_a_test_and_learns_nothing():
    model = build()
    variables, (inputs, labels) = started(model), batch()

    def loss(params):
        outputs, new = model.apply(
            {**variables, "params": params}, inputs, train=True, mutable=["batch_stats"]
        )
        terms = ksnet.loss_terms(model, outputs, labels)
        return jnp.sum(terms["similarity"][0]), new["batch_stats"]

    slopes, stats = jax.grad(loss, has_aux=True)(variables["params"])
    moved = {name for name, tree in slopes.items() if any(map(np.any, leaves(tree)))}
    assert moved == {"quality"}
    for name, tree in variables["batch_stats"].items():
        same = all(map(np.array_equal, leaves(tree), leaves(stats[name])))
        assert same == (name != "quality")


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_the_base_has_the_variables_and_poses_of_its_own_method():
    model = build()
    variables, (inputs, _) = started(model), batch()
    method, alone = model.frozen("base")
    own = initial.variables(alone, inputs, seed=1)
    for kind, tree in own.items():
        assert set(tree) <= set(variables[kind])
        variables[kind] = {**variables[kind], **tree}
    poses = method.decode(alone, alone.apply(own, inputs, train=False), inputs)
    plain = build(score="heatmap")
    same = ksnet.decode(plain, run(plain, variables), inputs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), same, poses
    )
    scored = ksnet.decode(model, run(model, variables), inputs)
    np.testing.assert_array_equal(scored.joints, same.joints)
    assert not np.allclose(scored.score, same.score)


def test_labels_may_come_from_a_model_of_their_own():
    model = build(HEATMAPS, labels=LABELS)
    variables, (inputs, _) = started(model), batch()
    assert "label_head" in variables["params"]["labels"]
    poses = ksnet.decode(model, run(model, variables), inputs)
    teller = oahpe.Model(
        skeleton=COCO, **{k: v for k, v in LABELS.items() if k != "method"}
    )
    inner = {kind: tree["labels"] for kind, tree in variables.items()}
    told = oahpe.decode(teller, teller.apply(inner, inputs, train=False), inputs)
    np.testing.assert_allclose(poses.labelled, told.labelled, rtol=1e-5)
    base = {k: v for k, v in HEATMAPS.items() if k != "method"}
    plain = top_down.Model(skeleton=COCO, **base)
    shared = {
        kind: {k: v for k, v in tree.items() if k not in ("labels", "quality")}
        for kind, tree in variables.items()
    }
    found = top_down.decode(plain, plain.apply(shared, inputs, train=False), inputs)
    np.testing.assert_allclose(poses.joints, found.joints, atol=1e-4)


def decoded(quality, labelled, **fields):
    """Poses of given similarities and labels, of a base of flat heatmaps."""
    model = build(HEATMAPS, labels=LABELS, **fields)
    maps = np.tile(np.linspace(0.1, 0.9, 17, dtype=np.float32), (2, 16, 16, 1))
    outputs = ksnet.Outputs(
        Reading((jnp.asarray(maps),)),
        jnp.asarray(quality, jnp.float32),
        jnp.asarray(labelled, jnp.float32),
        None,
    )
    return ksnet.decode(model, outputs, batch()[0])


def test_the_score_is_oaks_times_that_of_the_box():
    rng = np.random.default_rng(0)
    quality, labelled = rng.uniform(0, 1, (2, 2, 17))
    poses = decoded(quality, labelled)
    oaks = np.sum(quality * labelled, axis=1) / np.sum(labelled, axis=1)
    np.testing.assert_allclose(poses.score[:, 0], oaks * [1, 0.5], rtol=1e-5)
    np.testing.assert_allclose(poses.joint_score[:, 0], quality, rtol=1e-6)
    np.testing.assert_allclose(poses.labelled[:, 0], labelled, rtol=1e-6)


def test_with_all_labels_and_the_peaks_as_similarities_it_is_the_conventional_score():
    peaks = np.tile(np.linspace(0.1, 0.9, 17), (2, 1))
    base = {**HEATMAPS, "confident": -1.0}
    model = build(base, labels=LABELS)
    outputs = ksnet.Outputs(
        Reading((jnp.asarray(np.tile(peaks[:, None, None], (16, 16, 1))),)),
        jnp.asarray(peaks, jnp.float32),
        jnp.ones((2, 17)),
        None,
    )
    ours = ksnet.decode(model, outputs, batch()[0])
    conventional = ksnet.decode(model.clone(score="heatmap"), outputs, batch()[0])
    np.testing.assert_allclose(ours.score, conventional.score, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"score": "best"}, "score: expected one of oaks, heatmap, got 'best'"),
        ({"base": {"method": "ksnet"}}, "base.method: .* got 'ksnet'"),
        ({"base": {"backbone": PYRAMID}}, "base.method: .* got None"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields)


@pytest.mark.parametrize(
    "base",
    [
        {"method": "oasnet", "backbone": PYRAMID, "repair": {"read": 8, "inner": 4}},
        {
            **{"method": "opecnet", "backbone": {**PYRAMID, "all_levels": True}},
            "head": {"widths": (8, 8), "features": 8},
        },
    ],
    ids=lambda base: base["method"],
)
def test_any_method_with_heatmaps_of_crops_is_a_base(base):
    model = build(base, labels=LABELS)
    variables, (inputs, labels) = started(model), batch()
    poses = ksnet.decode(model, run(model, variables), inputs)
    assert np.all(np.isfinite(poses.score))
    outputs = run(model, variables, train=True)
    back = 2 * np.asarray(outputs.joints) + [5, -3]
    np.testing.assert_allclose(back, poses.joints[:, 0], atol=1e-3)
    terms = ksnet.loss_terms(model, outputs, labels)
    assert np.all(np.isfinite(terms["similarity"][0]))


def test_a_base_that_tells_no_labels_needs_one_that_does():
    with pytest.raises(ValueError, match="top_down does not tell .* give a run of OA"):
        run(build(HEATMAPS), started(build(HEATMAPS)))


def test_a_base_without_heatmaps_of_crops_is_refused():
    base = {"method": "pinet", "backbone": PYRAMID, "flip_test": False}
    with pytest.raises(ValueError, match="pinet reads no heatmaps"):
        started(build(base))


def test_several_scales_are_refused():
    inputs, _ = batch()
    model = build()
    scaled = inputs._replace(
        scaled=(inputs.image,), scaled_to_source=(inputs.to_source,)
    )
    with pytest.raises(ValueError, match="scales"):
        model.apply(started(model), scaled, train=False)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_network_of_the_papers_table_learns_similarities_by_heart(name):
    rng = np.random.default_rng(0)
    maps = rng.uniform(0, 0.2, (16, 24, 24, 3)).astype(np.float32)
    truth = rng.uniform(0, 1, (16, 3)).astype(np.float32)
    for person in range(16):
        row, column = rng.integers(0, 24, 2)
        maps[person, row, column] = truth[person]
    net = KSNet(3, {"name": name, **BACKBONES[name]}, hidden=64)
    variables = net.init(jax.random.key(0), maps, train=True)
    transform = optax.adam(optax.cosine_decay_schedule(3e-3, 200))

    @jax.jit
    def update(variables, state):
        def loss(params):
            found, new = net.apply(
                {**variables, "params": params}, maps, train=True, mutable="batch_stats"
            )
            return jnp.mean(jnp.abs(found - truth)), new

        (error, new), slopes = jax.value_and_grad(loss, has_aux=True)(
            variables["params"]
        )
        steps, state = transform.update(slopes, state)
        params = optax.apply_updates(variables["params"], steps)
        return {"params": params, **new}, state, error

    state, error = transform.init(variables["params"]), np.inf
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(200):
            variables, state, error = update(variables, state)
    assert error < 0.02


def test_similarity_of_the_ops_is_what_decode_ranks_by():
    labels = batch()[1]
    exact = rescoring.similarity(
        labels.joints[:, 0], labels.joints[:, 0], labels.oks_area[:, 0], COCO.sigmas
    )
    known = (labels.visibility[:, 0] > 0).astype(np.float32)
    poses = decoded(exact, known)
    np.testing.assert_allclose(poses.score[:, 0], [1.0, 0.5], rtol=1e-5)
