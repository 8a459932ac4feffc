"""PINet's inference with the reference weights against the published code's figures."""

import functools

import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import published_pinet as published
import pytest
from flax import linen as nn

from occjax.methods import pinet
from occjax.ops.part_poses import Candidates, Maps, candidates

NAMES = tuple(published.FIELDS)
TO_SOURCE = ((0.78125, 0, -5), (0, 0.78125, 0))  # 192 x 128 view of a 140 x 100 image

IN_BOTH = pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(np.float32, 2e-5), pytest.param(np.float64, 5e-6, marks=pytest.mark.slow)],
    ids=["float32", "float64"],
)


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


def nchw(x):
    """Channels, and what follows them, flattened before the map: torch's layout."""
    return np.moveaxis(np.asarray(x).reshape(*x.shape[:3], -1), -1, 1)


def check(name, link, got, wanted, tolerance=2e-5):
    """Relative to the largest value, as the figures' tolerances are given."""
    equivalence.check(published.TITLES[name], link, got, wanted, tolerance)


def run(model, variables, inputs):
    with nn.intercept_methods(published.one_backbone):
        return model.apply(variables, inputs, train=False)


@IN_BOTH
@pytest.mark.parametrize("name", [n for n in NAMES if n != "pinet_coco"])
def test_heads_give_the_published_maps(golden, name, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        model, variables = published.build(golden, name, dtype, flip_test=False)
        z = np.load(golden / name / "eval_maps.npz")
        image = published.image_from_normalised(z["image"], dtype)
        maps = run(model, variables, published.inputs_of(image)).maps
        heatmap, parts, offset = map(nchw, maps)
    check(name, "forward: heatmaps", heatmap, z["heatmap"], tolerance)
    check(name, "forward: part maps", parts, z["detkptmap"], tolerance)
    stored, every = ("offset", 1) if "offset" in z else ("offset_ch_every4", 4)
    check(name, "forward: offsets", offset[:, ::every], z[stored], tolerance)


@IN_BOTH
@pytest.mark.parametrize("name", NAMES)
def test_flip_test_gives_the_published_poses(golden, name, dtype, tolerance):
    z = np.load(golden / name / "eval_forward.npz")
    with jax.enable_x64(dtype == np.float64):
        model, variables = published.build(golden, name, dtype)
        image = published.image_from_normalised(z["image"], dtype)
        (found,) = run(model, variables, published.inputs_of(image)).candidates
        found = jax.tree.map(np.asarray, found)
    wanted = z["heatmaps_avg"]
    check(name, "forward: mean heatmaps", nchw(found.heatmap), wanted, tolerance)
    real = found.score[0] > -np.inf
    by_part = real.reshape(-1, model.peaks).sum(axis=1)
    np.testing.assert_array_equal(by_part[by_part > 0], z["n_per_part"])
    check(name, "forward: scores", found.score[0][real], z["scores"], tolerance)
    check(name, "forward: poses", found.joints[0][real], z["poses"], tolerance)


def decode(model, found, size=(128, 192)):
    inputs = published.inputs_of(jnp.zeros((1, *size, 3)), TO_SOURCE)
    outputs = pinet.Outputs(maps=None, candidates=tuple(found))
    poses = jax.jit(functools.partial(pinet.decode, model))(outputs, inputs)
    return jax.tree.map(lambda x: np.asarray(x)[0], poses)


def assert_poses(name, what, got, poses, scores):
    """Decoded Poses against [N, J, 3] and [N] in any order; the rest is padding."""
    order = np.argsort(-scores, kind="stable")
    count = len(scores)
    assert np.all(np.isneginf(got.score[count:]))
    link = f"decode: {what}, "
    check(name, link + "scores", got.score[:count], scores[order], 1e-5)
    check(name, link + "joints", got.joints[:count], poses[order][..., :2], 1e-5)
    joint_score = got.joint_score[:count]
    check(name, link + "scores of joints", joint_score, poses[order][..., 2], 1e-5)


def assert_decoded(name, model, found, z, source):
    """Each candidate alone, then the persons that they make, as published."""
    poses, score, keep = z["image_poses"], z["adjusted_scores"], z["keep"]
    alone = decode(model.clone(nms=2.0, fuse=False), found)
    assert_poses(name, f"{source} to candidates", alone, poses, score)
    fused = decode(model, found)
    persons = f"{source} to persons"
    assert_poses(name, persons, fused, z["fused_poses"], z["fused_scores"])
    heads = decode(model.clone(fuse=False), found)
    assert_poses(name, f"{persons}, not fused", heads, poses[keep], score[keep])


def bare(name, **fields):
    """The settings of a model that is never run."""
    backbone = {"name": "hrnet"}
    return pinet.Model(backbone=backbone, **published.FIELDS[name], **fields)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "pinet_coco"])
def test_maps_of_overlapping_people_become_the_published_persons(golden, name):
    model = bare(name)
    z = np.load(golden / name / "decode.npz")
    offset = nhwc(z["offsets"])
    joints = model.skeleton.num_joints
    maps = Maps(
        nhwc(z["heatmaps"])[None],
        nhwc(z["detkptmaps"])[None],
        offset.reshape(1, *offset.shape[:3], -1, joints, 2),
    )
    part_order = tuple(range(maps.parts.shape[-1]))

    @jax.jit
    def find(maps):
        return candidates(
            maps,
            joint_order=model.skeleton.flip,
            part_order=part_order,
            peaks=30,
            threshold=0.01,
        )

    found = find(maps)
    heatmap = nchw(found.heatmap)
    check(name, "decode: maps, mean of both", heatmap, z["heatmaps_avg"], 1e-5)
    real = np.asarray(found.score[0]) > -np.inf
    by_part = real.reshape(-1, 30).sum(axis=1)
    np.testing.assert_array_equal(by_part, z["n_per_part"])
    joints, score = found.joints[0][real], found.score[0][real]
    check(name, "decode: maps to poses, joints", joints, z["poses"], 1e-5)
    check(name, "decode: maps to poses, scores", score, z["scores"], 1e-5)
    assert_decoded(name, model, [found], z, "maps")


@pytest.mark.parametrize("name", ["pinet_ochuman", "pinet_crowdpose"])
def test_three_scales_become_the_published_persons(golden, name):
    z = np.load(golden / name / "postproc_multiscale.npz")
    found = [
        Candidates(
            nhwc(z[f"heatmap_s{scale}"]),
            jnp.asarray(z[f"poses_s{scale}"])[None],
            jnp.asarray(z[f"scores_s{scale}"])[None],
            pixels=None,
        )
        for scale in ("1.0", "2.0", "0.5")
    ]
    assert_decoded(name, bare(name), found, z, "three scales")


def test_one_scale_from_image_to_persons_is_the_published_one(golden):
    name = "pinet_ochuman"
    model, variables = published.build(golden, name)
    z = np.load(golden / name / "end2end_single.npz")
    inputs = published.inputs_of(z["resized_uint8_hwc"][None], TO_SOURCE)
    outputs = run(model, variables, inputs)
    assert_decoded(name, model, outputs.candidates, z, "image")


@pytest.mark.slow
def test_three_scales_from_image_to_persons_are_the_published_ones(golden):
    cv2 = pytest.importorskip("cv2")
    name = "pinet_ochuman"
    model, variables = published.build(golden, name)
    z = np.load(golden / name / "end2end_multi.npz")

    def resized(scale):
        matrix = scale * np.asarray([[1.28, 0, 6.4], [0, 1.28, 0]])
        size = (int(192 * scale), int(128 * scale))
        return cv2.warpAffine(z["image_uint8_hwc"], matrix, size)

    view = z["resized_uint8_hwc"]
    if np.any(resized(1) != view):
        pytest.skip("this OpenCV resizes otherwise than the one that made the figures")
    inputs = published.inputs_of(
        view[None], TO_SOURCE, [resized(scale)[None] for scale in (2, 0.5)]
    )
    outputs = run(model, variables, inputs)
    for found, scale in zip(outputs.candidates, ("1.0", "2.0", "0.5"), strict=True):
        real = np.asarray(found.score[0]) > -np.inf
        theirs = z[f"candidate_scores_s{scale}"]
        link = f"forward: image at scale {scale} to "
        ours, wanted = np.asarray(found.joints[0])[real], z[f"poses_s{scale}"]
        # two peaks of scale 2 differ by 5e-6 of 5, too little for an order in float32
        away = np.abs(ours[None] - wanted[:, None]).mean(axis=(2, 3))
        order = away.argmin(axis=1)
        assert sorted(order) == list(range(len(wanted)))
        check(name, link + "scores", np.asarray(found.score[0])[real][order], theirs)
        check(name, link + "poses", ours[order], wanted)
    assert_decoded(name, model, outputs.candidates, z, "image at three scales")
