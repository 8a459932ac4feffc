"""DEKR's inference and targets against the published code's figures."""

import functools
import math

import equivalence
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import published_dekr as published
import pytest
from flax import linen as nn
from published_pinet import image_from_normalised, inputs_of, one_backbone

from occjax.methods import dekr
from occjax.nn import rescorer
from occjax.ops import heatmap, losses, rescoring, sampling
from occjax.ops.part_poses import Maps, candidates
from occjax.runtime import weights
from occjax.types import Labels

NAMES = tuple(published.FIELDS)
FEATURES = ("heatmap_in", "offset_in")
TO_SOURCE = ((0.78125, 0, -5), (0, 0.78125, 0))  # 192 x 128 view of a 140 x 100 image
SIZE = (128, 192)

check = functools.partial(equivalence.check, published.NAME)


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


def nchw(x):
    """Channels, and what follows them, flattened before the map: torch's layout."""
    return np.moveaxis(np.asarray(x).reshape(*x.shape[:3], -1), -1, 1)


def run(model, variables, z, **asked):
    image = image_from_normalised(z["image"], model.dtype)
    with nn.intercept_methods(one_backbone):
        return model.apply(variables, inputs_of(image), train=False, **asked)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_branches_give_the_published_maps(golden, name, dtype):
    z = np.load(golden / name / "eval_heads.npz")
    with jax.enable_x64(dtype == np.float64):
        model, variables = published.build(golden, name, dtype, flip_test=False)
        outputs, kept = run(
            model,
            variables,
            z,
            mutable=["intermediates"],
            capture_intermediates=lambda module, _: module.name in FEATURES,
        )
        tolerance = 2e-5 if dtype == np.float32 else 5e-6
        maps = outputs.maps
        heat = jnp.concatenate((maps.heatmap, maps.parts), axis=-1)
        check("forward", nchw(heat), z["heatmap"], tolerance)
        check("forward", nchw(maps.offset), z["offset"], tolerance)
        for branch, every in (("heatmap", 4), ("offset", 16)):
            (found,) = kept["intermediates"][f"{branch}_in"]["__call__"]
            wanted = z[f"{branch}_feature_ch_every{every}"]
            check("forward", nchw(found)[:, ::every], wanted, tolerance)


@pytest.mark.parametrize("flip", [False, True])
def test_flip_test_gives_the_published_maps_and_poses(golden, flip):
    z = np.load(golden / "dekr_coco" / "flip_test.npz")
    wanted = {
        kind: z[f"{kind}map_{'flip' if flip else 'noflip'}"][0]
        for kind in ("heat", "pose")
    }
    _, height, width = wanted["heat"].shape
    # all maxima of the centre map, however low
    model, variables = published.build(
        golden,
        "dekr_coco",
        flip_test=flip,
        peaks=height * width,
        threshold=-math.inf,
    )
    (found,) = run(model, variables, z).candidates
    link = "decode: flip test" if flip else "forward"
    check(link, nchw(found.heatmap)[0], wanted["heat"][:-1], 2e-5)
    centre = wanted["heat"][-1]
    padded = np.pad(centre, 1, constant_values=-np.inf)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).max((2, 3))
    row, column = np.nonzero(centre == around)
    order = np.argsort(-centre[row, column])
    row, column = row[order], column[order]
    count = len(row)
    assert np.all(np.isneginf(found.score[0, count:]))
    check(link, found.score[0, :count], centre[row, column], 2e-5)
    poses = wanted["pose"][:, row, column].reshape(-1, 2, count).transpose(2, 0, 1)
    check(link, found.joints[0, :count], poses, 2e-5)


def found_in(model, z, scale):
    """Candidates in the stored maps of a scale."""
    heat, pose = nhwc(z[f"heatmap_s{scale}"]), np.asarray(nhwc(z[f"posemap_s{scale}"]))
    _, height, width, _ = pose.shape
    pixel = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    offset = pixel[None, :, :, None] - pose.reshape(1, height, width, -1, 2)
    maps = Maps(
        heat[:, None, :, :, :-1],
        heat[:, None, :, :, -1:],
        jnp.asarray(offset[:, None, :, :, None], jnp.float32),
    )
    return candidates(
        maps,
        joint_order=model.skeleton.flip,
        part_order=(0,),
        peaks=model.peaks,
        threshold=model.threshold,
    )


def decoded(model, found, expected=None):
    """Poses of the one image, those that are there."""
    inputs = inputs_of(jnp.zeros((1, *SIZE, 3)), TO_SOURCE)
    outputs = dekr.Outputs(None, inputs.to_source, tuple(found), expected)
    poses = jax.jit(functools.partial(dekr.decode, model))(outputs, inputs)
    there = np.asarray(poses.score[0]) > -np.inf
    return jax.tree.map(lambda x: np.asarray(x)[0][there], poses)


CASES = [(name, case) for name in NAMES for case in ("decode_single", "decode_multi")]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_maps_of_overlapping_people_become_the_published_persons(golden, name, case):
    model, z = published.bare(name), np.load(golden / name / f"{case}.npz")
    scales = ("1.0", "2.0", "0.5") if case == "decode_multi" else ("1.0",)
    found = [found_in(model, z, scale) for scale in scales]
    for one, scale in zip(found, scales, strict=True):
        proposals = z[f"proposals_s{scale}"]
        real = np.asarray(one.score[0]) > -np.inf
        joints = 4 / float(scale) * np.asarray(one.joints[0])[real]
        link = f"decode: {case.removeprefix('decode_')} scale"
        check(link, joints, proposals[..., :2], 1e-5)
        check(link, one.score[0][real], proposals[:, 0, 2], 1e-5)
    poses = decoded(model, found)
    order = np.argsort(-z["nms_scores"], kind="stable")
    check(link, poses.joints, z["final_poses"][order][..., :2], 1e-5)
    check(link, poses.joint_score, z["nms_poses"][order][..., 2], 1e-5)
    check(link, poses.score, z["nms_scores"][order], 1e-5)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_enlarged_maps_are_the_published_ones(golden, name, case):
    z = np.load(golden / name / f"{case}.npz")
    large = z["heatmap_avg_channels_0_last"]
    y, x = np.mgrid[: large.shape[1], : large.shape[2]]
    grid = jnp.asarray(np.stack((x, y), axis=-1).reshape(1, -1, 1, 2), jnp.float32)
    grid = jnp.broadcast_to(grid + 0.9, (1, grid.shape[1], 2, 2))  # floor comes first
    maps = [nhwc(z[key])[..., jnp.asarray((0, -1))] for key in z if "heatmap_s" in key]
    found = sum(sampling.floor_response(one, grid, SIZE) for one in maps) / len(maps)
    found = np.asarray(found[0]).T.reshape(large.shape)
    check("decode: enlarged maps", found, large, 1e-6)


def rescoring_net(golden, name):
    """The published rescoring net's weights in our model of it."""
    manifest, _ = golden_weights.load(golden / name, "rescore_net")
    state_dict = golden_weights.generate(manifest)
    skeleton = published.FIELDS[name]["skeleton"]
    net = rescorer.Rescorer(rescorer.LINKS[skeleton.name])
    joints = skeleton.num_joints
    shapes = jax.eval_shape(
        net.init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, 1, joints, 2), np.float32),
        jax.ShapeDtypeStruct((1, 1, joints), np.float32),
    )
    return net, weights.convert(state_dict, rescorer.TORCH_NAMES, shapes)


@pytest.mark.parametrize(("name", "case"), CASES)
def test_rescoring_is_the_published_one(golden, name, case):
    z = np.load(golden / name / f"{case}.npz")
    net, variables = rescoring_net(golden, name)
    joints, joint_score = np.split(z["final_poses"][None], (2,), axis=-1)
    joint_score = joint_score[..., 0]
    feature = rescoring.limb_features(joints, joint_score, net.links)
    check("score: rescoring features", feature[0], z["rescore_feature"], 1e-5)
    found = net.apply(variables, jnp.asarray(joints), jnp.asarray(joint_score))
    check("score: rescoring net", found[0], z["rescore_net_out"][:, 0], 1e-5)
    check("score", found[0] * z["nms_scores"], z["rescored_scores"], 1e-5)


def test_decoding_multiplies_by_what_the_rescoring_net_expects(golden):
    model = published.bare("dekr_coco")
    z = np.load(golden / "dekr_coco" / "decode_single.npz")
    found = found_in(model, z, "1.0")
    net, variables = rescoring_net(golden, "dekr_coco")
    inputs = inputs_of(jnp.zeros((1, *SIZE, 3)), TO_SOURCE)
    poses = dekr._scored(model, [found], SIZE)
    expected = net.apply(
        variables, sampling.affine(poses.joints, inputs.to_source), poses.joint_score
    )
    rescored = decoded(model, [found], expected)
    order = np.argsort(-z["rescored_scores"])
    check("score", rescored.score, z["rescored_scores"][order], 1e-5)
    check("score", rescored.joints, z["final_poses"][order][..., :2], 1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_targets_are_the_published_ones(golden, name, dtype):
    model, z = published.bare(name), np.load(golden / name / "targets.npz")
    joints, size = z["keypoints_f64"], (128, 128)
    with jax.enable_x64(dtype == np.float64):
        labels = Labels(
            joints=jnp.asarray(4 * joints[None, ..., :2], dtype),
            visibility=jnp.asarray(joints[None, ..., 2], jnp.uint8),
            # the figures are of a frame that is image and map at once, and small are
            # persons of small annotated area
            area=jnp.asarray(16 * z["annotated_area_f64"][None], dtype),
            ignore=jnp.asarray(np.all(z["mask"] == 0, axis=0)[None]),
            head_size=jnp.zeros((1, len(joints))),
        )
        to_source = jnp.asarray(np.eye(2, 3)[None] / 4, dtype)
        people = dekr.people_on_map(model, labels, to_source)
        area = np.asarray(people.area[0])[z["num_keypoints"] > 0] / 16
        wanted = z["areas_f64"][:, 0][z["num_keypoints"] > 0]
        check("target: area", area, wanted, 1e-6)
        pairs = [(people.joints, people.labelled, model.sigma)]
        pairs += [(people.centres, people.present, model.centre_sigma)]
        target = jnp.concatenate(
            [heatmap.gaussians(at, there, size, s) for at, there, s in pairs], axis=-1
        )
        mask = heatmap.map_weights(target, model.background, labels.ignore)
        x, y = np.meshgrid(np.arange(128), np.arange(128))
        pixels = jnp.asarray(np.stack((x, y), axis=-1).reshape(1, 1, -1, 2), jnp.int32)
        offsets = heatmap.offset_targets(people, pixels, size, model.offset_radius)
    # float32 rounds a joint at 100 by 4e-6 pixels on each axis; slopes are up to 0.3
    tolerance = 5e-6 if dtype == np.float32 else 1e-6
    wanted, wanted_mask = z["heatmap"].copy(), z["mask"].copy()
    if name == "dekr_crowdpose":
        # who has no labelled joint at all has a centre at (0, 0) in the published
        # CrowdPose data; here that is nobody
        assert np.count_nonzero(z["num_keypoints"] == 0) == 1
        assert wanted[-1, 0, 0] == 1
        wanted[-1, :8, :8], wanted_mask[-1, :8, :8] = 0, model.background
    check("target: heatmap", nchw(target)[0], wanted, tolerance)
    check("target: mask", nchw(mask)[0], wanted_mask, 1e-6)
    offset = np.asarray(offsets.offset[0, 0]).reshape(*size, -1)
    check("target: offset", offset.transpose(2, 0, 1), z["offset"], 1e-6)
    weight = 4 * np.asarray(offsets.weight[0, 0]).reshape(*size, -1)
    weight = np.repeat(weight, 2, axis=-1).transpose(2, 0, 1)
    check("target: weight", weight, z["offset_weight"], 1e-6)


def test_losses_are_the_published_ones(golden):
    z = np.load(golden / "dekr_coco" / "losses.npz")
    values, count = losses.weighted_mse(
        *(nhwc(z[f"heatmap_{part}"]) for part in ("pred", "gt", "mask"))
    )
    found = jnp.sum(values) / jnp.sum(count)
    check("loss: heatmap", found, z["heatmap_loss"], 2e-5)
    values, count = losses.weighted_smooth_l1(
        *(nhwc(z[f"offset_{part}"]) for part in ("pred", "gt", "weight"))
    )
    found = 0.03 * jnp.sum(values) / jnp.sum(count)
    check("loss: offset", found, z["offset_loss_with_factor"], 2e-5)
