"""What PINet promises, on a network small enough to compile in a moment."""

import functools

import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.methods import pinet
from occjax.ops import flip_test, heatmap, losses
from occjax.ops.image import IMAGENET_MEAN
from occjax.ops.part_poses import Maps
from occjax.skeletons import COCO
from occjax.types import Inputs, Labels

BACKBONE = {"name": "pyramid", "widths": (4, 8), "depths": (1, 1), "features": 8}
SIZE, MAP = 64, 16
KEY = jax.random.key(0)


def small(**fields):
    settings = {"refine_features": 6, "refine_layers": 1, "max_proposals": 12}
    return pinet.Model(COCO, BACKBONE, **{**settings, **fields})


def example(batch=2, seed=0):
    """Inputs whose last three columns have the mean colour, 0 after normalisation."""
    image = np.random.default_rng(seed).uniform(0, 255, (batch, SIZE, SIZE, 3))
    image[:, :, -3:] = 255 * np.asarray(IMAGENET_MEAN)
    to_source = np.asarray([[2.0, 0, -7], [0, 2, 5]], np.float32)
    return Inputs(
        image=jnp.asarray(image, jnp.float32),
        valid=jnp.full((batch, 2), SIZE),
        to_source=jnp.asarray(np.repeat(to_source[None], batch, axis=0)),
    )


def people(batch=2, persons=3, seed=1):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(16, 48, (batch, persons, 1, 2))
    joints = centre + rng.normal(0, 8, (batch, persons, 17, 2))
    return Labels(
        joints=jnp.asarray(joints, jnp.float32),
        visibility=jnp.asarray(rng.integers(0, 3, (batch, persons, 17)), jnp.uint8),
        area=jnp.asarray(rng.uniform(1200, 3000, (batch, persons)), jnp.float32),
        ignore=jnp.asarray(rng.uniform(size=(batch, MAP, MAP)) < 0.1),
        head_size=jnp.zeros((batch, persons), jnp.float32),
    )


@functools.cache
def variables(refine="dynamic", parts="part-large"):
    model = small(refine=refine, parts=parts)
    # inputs are arguments: the compiler would otherwise work the whole network out
    found = jax.jit(model.init, static_argnames="train")(KEY, example(), train=True)
    # heads start near zero; peaks above the threshold need livelier ones
    return jax.tree.map(
        lambda x: x if x.ndim < 2 else x + 0.3 * jax.random.normal(KEY, x.shape), found
    )


def reduce(terms):
    return {
        name: jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1)
        for name, (values, weights) in terms.items()
    }


@jax.jit
def train_terms(variables, labels):
    """Reduced losses and outputs."""
    model = small()
    outputs, _ = model.apply(
        variables,
        example(),
        train=True,
        proposals=pinet.proposals(model, labels),
        mutable=["batch_stats"],
    )
    return reduce(pinet.loss_terms(model, outputs, labels)), outputs


@pytest.mark.parametrize("name", ["coco", "ochuman"])
def test_losses_over_windows_equal_the_published_dense_losses(golden, name):
    z = np.load(golden / "pinet_functions" / f"targets_{name}.npz")
    joints, rng = z["used_joints_f64"], np.random.default_rng(0)
    labels = Labels(
        joints=jnp.asarray(4 * joints[None, ..., :2], jnp.float32),
        visibility=jnp.asarray(joints[None, ..., 2], jnp.uint8),
        area=jnp.asarray(z["areas_f64"].reshape(1, -1), jnp.float32),
        ignore=jnp.asarray(z["source_mask"][None] == 0),
        head_size=jnp.zeros((1, len(joints))),
    )
    pred = rng.standard_normal((17 + 3 + 102, 128, 128)).astype(np.float32)
    nhwc = [jnp.asarray(x.transpose(1, 2, 0)[None]) for x in np.split(pred, (17, 20))]
    maps = Maps(nhwc[0], nhwc[1], nhwc[2].reshape(1, 128, 128, 3, 17, 2))
    model = small()
    got = reduce(
        jax.jit(functools.partial(pinet.loss_terms, model))(pinet.Outputs(maps), labels)
    )
    target = np.concatenate((z["heatmap"], z["detkpt_map"]))
    weight = np.concatenate((z["kpt_mask"], z["detkpt_mask"]))
    wanted = np.mean(weight * (pred[:20] - target) ** 2)
    title = {"coco": "PINet (COCO)", "ochuman": "PINet (OCHuman)"}[name]
    check = functools.partial(equivalence.check, title)
    check("loss: of targets, heatmap", got["heatmap"], wanted, 1e-5, "each")
    dense = losses.weighted_smooth_l1(pred[20:], z["offset"], z["offset_weight"])
    wanted = reduce({"offset": dense})["offset"]
    check("loss: of targets, offset", got["offset"], wanted, 1e-5, "each")


def test_padding_persons_change_no_loss_and_no_proposal():
    labels = people()
    more = people(persons=5, seed=9)
    padded = Labels(
        joints=jnp.concatenate((labels.joints, more.joints), axis=1),
        visibility=jnp.concatenate((labels.visibility, more.visibility), axis=1),
        area=jnp.concatenate((labels.area, 0 * more.area), axis=1),
        ignore=labels.ignore,
        head_size=jnp.zeros((2, 8)),
    )
    terms, outputs = train_terms(variables(), labels)
    padded_terms, padded_outputs = train_terms(variables(), padded)
    assert set(terms) == {"heatmap", "offset", "refine"}
    for name, value in terms.items():
        np.testing.assert_allclose(padded_terms[name], value, rtol=1e-5)
    at, padded_at = outputs.proposals, padded_outputs.proposals
    np.testing.assert_array_equal(at.valid, padded_at.valid)
    np.testing.assert_array_equal(
        at.pixels[at.valid], padded_at.pixels[padded_at.valid]
    )


def test_proposals_are_the_best_pixels_of_the_windows_and_smaller_persons_first():
    labels = people(batch=1, persons=2)._replace(
        visibility=jnp.full((1, 2, 17), 2, jnp.uint8),
        area=jnp.asarray([[1600.0, 90000.0]]),
    )
    model = small(max_proposals=60)
    at = jax.jit(functools.partial(pinet.proposals, model))(labels)
    placed = heatmap.people_on_map(labels, COCO.parts["part-large"], 4, 0.0)
    for k in range(3):
        chosen = np.asarray(at.pixels[0, k])[np.asarray(at.valid[0, k])]
        first = np.trunc(np.asarray(placed.centres)[0, 0, k])
        assert np.all(chosen[0] - first >= -2)
        assert np.all(chosen[0] - first <= 1)
        corners = np.trunc(np.asarray(placed.centres)[0, :, k])  # [P, 2]
        near = chosen[:, None] - corners
        assert np.all(np.any(np.all((near >= -2) & (near < 2), axis=-1), axis=-1))


def test_refinement_ignores_proposals_that_are_not_valid():
    model, given, labels = small(max_proposals=150), variables(), people()
    at = jax.jit(functools.partial(pinet.proposals, model))(labels)
    assert not np.all(at.valid)
    moved = jnp.where(at.valid[..., None], at.pixels, MAP - 1 - at.pixels)

    @jax.jit
    def run(inputs, at):
        return model.apply(
            given, inputs, train=True, proposals=at, mutable=["batch_stats"]
        )

    outputs, stats = run(example(), at)
    other, other_stats = run(example(), at._replace(pixels=moved))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), stats, other_stats
    )
    valid = np.asarray(at.valid)
    np.testing.assert_allclose(outputs.refined[valid], other.refined[valid], atol=1e-5)


def test_refinement_teaches_the_features_but_not_the_coarse_poses():
    grad = jax.grad(lambda given: train_terms(given, people())[0]["refine"])(
        variables()
    )["params"]
    for head in ("heatmap_head", "part_head", "offset_head"):
        assert not any(np.any(x) for x in jax.tree.leaves(grad[head]))
    for part in ("trunk", "refiner"):
        assert any(np.any(x) for x in jax.tree.leaves(grad[part]))
    assert np.any(grad["refiner"]["adjacency"])


@pytest.mark.parametrize("refine", pinet.REFINE)
def test_refine_term_is_there_exactly_when_the_model_refines(refine):
    model, inputs, labels = small(refine=refine), example(), people()

    def outputs():
        given = model.init(KEY, inputs, train=True)
        at = pinet.proposals(model, labels)
        out, _ = model.apply(
            given, inputs, train=True, proposals=at, mutable=["batch_stats"]
        )
        return pinet.loss_terms(model, out, labels), given["params"]

    terms, params = jax.eval_shape(outputs)
    assert ("refine" in terms) == ("refiner" in params) == (refine != "none")


def test_training_with_refinement_asks_for_proposals():
    with pytest.raises(ValueError, match="proposals: expected .* got None"):
        jax.eval_shape(
            lambda: small().apply(
                variables(), example(), train=True, mutable=["batch_stats"]
            )
        )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parts": "large"}, "parts: expected one of center, head, .*, got 'large'"),
        ({"parts": ((0, 17),)}, "parts: expected joint indices below 17"),
        ({"parts": ()}, "parts: expected joint indices"),
        ({"parts": ((5, 7, 9),)}, "mirror image of every part"),
        ({"refine": "gcn"}, "refine: expected one of dynamic, .*, got 'gcn'"),
        ({"sigma": 0.1}, "sigma: expected 0.5 or more, got 0.1"),
        ({"max_proposals": 2}, "max_proposals: expected 3 or more, got 2"),
        ({"max_poses": 0}, "max_poses: expected 1 or more, got 0"),
    ],
)
def test_fields_that_make_no_sense_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        small(**fields)


def test_one_sided_parts_do_without_the_flip_test():
    assert small(parts=((5, 7, 9),), flip_test=False).parts == ((5, 7, 9),)


def predict(model, given, inputs):
    @jax.jit
    def run(given, inputs):
        outputs = model.apply(given, inputs, train=False)
        return pinet.decode(model, outputs, inputs), outputs.candidates[0]

    return run(given, inputs)


@pytest.mark.parametrize("parts", ["part-large", "part-small"])
def test_flip_test_sees_the_mirrored_image_as_the_mirrored_scene(parts):
    model, given, inputs = small(parts=parts), variables(parts=parts), example()
    _, upright = predict(model, given, inputs)
    mean = jnp.asarray(IMAGENET_MEAN).reshape(1, 1, 1, 3) * 255
    mirrored = flip_test.orientations(inputs.image - mean, 4)[:, 1] + mean
    _, other = predict(model, given, inputs._replace(image=mirrored))
    real = np.asarray(upright.score) > -np.inf
    assert real.sum() > 10
    for b in range(2):
        wanted = np.asarray(upright.joints[b])[real[b]][:, list(COCO.flip)]
        wanted[..., 0] = MAP - 1 - wanted[..., 0]
        got = np.asarray(other.joints[b])[np.asarray(other.score[b]) > -np.inf]
        assert got.shape == wanted.shape
        apart = np.abs(wanted[:, None] - got[None]).max(axis=(2, 3))
        assert apart.min(axis=1).max() < 1e-2


def test_without_the_flip_test_each_pose_is_its_pixel_minus_its_offset():
    model = small(refine="none", flip_test=False, peaks=4)
    given = {k: dict(v) for k, v in variables().items()}
    given["params"].pop("refiner")
    given["batch_stats"].pop("refiner")
    run = jax.jit(functools.partial(model.apply, train=False))
    outputs = run(given, example())
    (found,) = outputs.candidates
    maps = jax.tree.map(np.asarray, outputs.maps)
    for b, n in np.argwhere(np.asarray(found.score) > -np.inf):
        part = n // 4
        y, x = np.argwhere(maps.parts[b, ..., part] == found.score[b, n])[0]
        wanted = (x, y) - maps.offset[b, y, x, part]
        np.testing.assert_allclose(found.joints[b, n], wanted, atol=1e-5)


def test_people_come_back_from_their_own_targets():
    labels = people(batch=1, persons=2)
    apart = jnp.asarray([[[[-12.0, 0.0]], [[12.0, 4.0]]]])
    spread = np.random.default_rng(3).normal(0, 5, (1, 2, 17, 2))
    joints = 32 + apart + jnp.asarray(spread, jnp.float32)
    labels = labels._replace(
        joints=joints, visibility=jnp.full((1, 2, 17), 2, jnp.uint8)
    )
    model = small(refine="none", flip_test=False)
    placed = heatmap.people_on_map(labels, COCO.parts["part-large"], 4, 0.0)
    y, x = np.mgrid[:MAP, :MAP]
    pixels = np.broadcast_to(np.stack((x, y), -1).reshape(1, 1, -1, 2), (1, 3, 256, 2))

    @jax.jit
    def decode(placed):
        dense = heatmap.offset_targets(placed, jnp.asarray(pixels), (MAP, MAP), 2)
        offset = jnp.moveaxis(dense.offset, 1, 2).reshape(1, 1, MAP, MAP, 3, 17, 2)
        maps = Maps(
            heatmap.gaussians(placed.joints, placed.labelled, (MAP, MAP), 2.0)[:, None],
            heatmap.gaussians(placed.centres, placed.present, (MAP, MAP), 2.0)[:, None],
            offset,
        )
        found = pinet.candidates(
            maps, joint_order=(), part_order=(), peaks=30, threshold=0.01
        )
        return pinet.decode(model, pinet.Outputs(maps, candidates=(found,)), example(1))

    poses = decode(placed)
    real = np.asarray(poses.score[0]) > -np.inf
    assert real.sum() == 2
    wanted = np.asarray(joints[0]) * 2 + (-7, 5)
    got = np.asarray(poses.joints[0])[real]
    got = got[np.argsort(got[:, :, 0].mean(axis=1))]
    np.testing.assert_allclose(got, wanted, atol=1e-3)
    assert np.all(np.isnan(poses.visible))  # not predicted


def test_poses_come_best_first_and_can_be_cut():
    poses, _ = predict(small(), variables(), example())
    score = np.asarray(poses.score)
    assert np.isfinite(score[:, 0]).all()
    assert np.all(score[:, 1:] <= score[:, :-1])
    few, _ = predict(small(max_poses=3), variables(), example())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b[:, :3], rtol=1e-5), few, poses
    )


def test_further_scales_add_candidates_in_the_pixels_of_the_first():
    inputs = example()
    half = jax.image.resize(inputs.image, (2, 32, 32, 3), "linear")
    model, given = small(peaks=4, nms=2.0, fuse=False), variables()
    one, _ = predict(model, given, inputs)
    two, _ = predict(model, given, inputs._replace(scaled=(half,)))
    assert two.joints.shape[1] == 2 * one.joints.shape[1]
    known = np.asarray(one.joints[0])[np.asarray(one.score[0]) > -np.inf]
    both = np.asarray(two.joints[0])
    apart = np.abs(known[:, None] - both[None]).max(axis=(2, 3))
    assert apart.min(axis=1).max() < 1e-2


def test_half_precision_keeps_maps_and_poses_in_single_precision():
    model = small(dtype=jnp.bfloat16)
    poses, found = predict(model, variables(), example())
    assert {x.dtype for x in jax.tree.leaves((poses, found))} == {jnp.dtype("float32")}
