"""Training targets against the published code's arrays and a plain loop."""

import functools

import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.ops import heatmap
from occjax.skeletons import COCO, CROWDPOSE
from occjax.types import Labels

check = functools.partial(equivalence.check, "PINet (every dataset)")


def every_pixel(size, parts):
    """[1, K, H * W, 2]."""
    y, x = np.mgrid[: size[0], : size[1]]
    pixels = np.stack((x, y), axis=-1).reshape(1, 1, -1, 2)
    return jnp.asarray(np.repeat(pixels, parts, axis=1), jnp.int32)


def dense_offsets(people, size, radius=2):
    """Offsets [K J 2, H, W] and weights alike, channels as in the published head."""
    parts = people.centres.shape[2]
    targets = jax.jit(heatmap.offset_targets, static_argnums=(2, 3))(
        people, every_pixel(size, parts), size, radius
    )
    weight = np.broadcast_to(targets.weight[..., None], targets.offset.shape)
    return [
        np.moveaxis(np.asarray(x)[0], 1, -1).reshape(-1, *size)
        for x in (targets.offset, weight)
    ]


def people_of(joints, centres, areas, dtype=np.float32):
    """One image's People from arrays whose last column is the visibility."""
    joints, centres = np.asarray(joints), np.asarray(centres)
    return heatmap.People(
        joints=jnp.asarray(joints[None, ..., :2], dtype),
        labelled=jnp.asarray(joints[None, ..., 2] > 0),
        centres=jnp.asarray(centres[None, ..., :2], dtype),
        present=jnp.asarray(centres[None, ..., 2] > 0),
        area=jnp.asarray(np.ravel(areas)[None], dtype),
    )


def maps_of(points, size, sigma=2.0, background=0.1, dtype=np.float32):
    """Gaussians and weights [C, H, W] of points [P, C, 3]."""
    points = np.asarray(points)
    target = heatmap.gaussians(
        jnp.asarray(points[None, ..., :2], dtype),
        jnp.asarray(points[None, ..., 2] > 0),
        size,
        sigma,
    )
    weight = heatmap.map_weights(target, background, jnp.zeros((1, *size), bool))
    return [np.moveaxis(np.asarray(x)[0], -1, 0) for x in (target, weight)]


DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
PUBLISHED = [("coco", COCO, 1024.0), ("ochuman", COCO, 1024.0)]
PUBLISHED += [("crowdpose", CROWDPOSE, 0.0)]
TITLES = {"coco": "COCO", "ochuman": "OCHuman", "crowdpose": "CrowdPose"}


def offsets_within(dtype, pixels):
    """Tolerance and its measure: the references are the true offsets in float32."""
    return (pixels, "absolute") if dtype == np.float32 else (1e-7, "largest")


@DTYPES
@pytest.mark.parametrize(("name", "skeleton", "small"), PUBLISHED)
def test_targets_equal_the_published_ones(golden, name, skeleton, small, dtype):
    z = np.load(golden / "pinet_functions" / f"targets_{name}.npz")
    size = (128, 128)
    joints = z["used_joints_f64"]
    model = functools.partial(equivalence.check, f"PINet ({TITLES[name]})")
    with jax.enable_x64(dtype == np.float64):
        labels = Labels(
            joints=jnp.asarray(4 * joints[None, ..., :2], dtype),
            visibility=jnp.asarray(joints[None, ..., 2], jnp.uint8),
            area=jnp.asarray(z["areas_f64"].reshape(1, -1), dtype),
            ignore=jnp.asarray(z["source_mask"][None] == 0),
            head_size=jnp.zeros((1, len(joints))),
        )
        people = heatmap.people_on_map(labels, skeleton.parts["part-large"], 4, small)
        drawn = [
            heatmap.gaussians(points, there, size, 2.0)
            for points, there in (
                (people.joints, people.labelled),
                (people.centres, people.present),
            )
        ]
        weights = [heatmap.map_weights(x, 0.1, labels.ignore)[0] for x in drawn]
        offset, offset_weight = dense_offsets(people, size)
    # a coordinate near 128 is rounded to 4e-6 in float32
    tolerance = 4e-6 if dtype == np.float32 else 1e-6
    present = z["part_centres_f64"][..., 2] > 0
    np.testing.assert_array_equal(people.present[0], present)
    centres = z["part_centres_f64"][..., :2][present]
    ours = np.asarray(people.centres)[0][present]
    model("target: part centres", ours, centres, 1e-6, "each")
    for what, maps, weight, target, mask in (
        ("heatmaps", drawn[0], weights[0], z["heatmap"], z["kpt_mask"]),
        ("part maps", drawn[1], weights[1], z["detkpt_map"], z["detkpt_mask"]),
    ):
        target, mask = target.transpose(1, 2, 0), mask.transpose(1, 2, 0)
        model(f"target: {what}", maps[0], target, tolerance, "absolute")
        model(f"target: weights of {what}", weight, mask, 1e-6, "each")
    link = "target: weights of offsets"
    model(link, offset_weight, z["offset_weight"], 1e-6, "each")
    model("target: offsets", offset, z["offset"], *offsets_within(dtype, 8e-6))


@DTYPES
@pytest.mark.parametrize("other_order", [False, True])
def test_overlap_rule_keeps_both_published_slips(golden, other_order, dtype):
    z = np.load(golden / "pinet_functions" / "target_rules.npz")
    order = z["order"] if other_order else np.arange(8)
    suffix = "_other_order" if other_order else ""
    keys = ("joints_f64", "part_centres_f64", "areas_f64")
    with jax.enable_x64(dtype == np.float64):
        people = people_of(*(z[key][order] for key in keys), dtype)
        offset, weight = dense_offsets(people, (24, 24))
    link = "target: overlaps, "
    wanted = z["offset" + suffix]
    check(link + "offsets", offset, wanted, *offsets_within(dtype, 2e-6))
    check(link + "weights", weight, z["weight" + suffix], 1e-6, "each")


@DTYPES
@pytest.mark.parametrize(
    ("suffix", "sigma", "background"), [("", 2.0, 0.1), ("_sigma1_bg1", 1.0, 1.0)]
)
def test_gaussian_windows_are_the_published_ones(
    golden, suffix, sigma, background, dtype
):
    z = np.load(golden / "pinet_functions" / "target_rules.npz")
    with jax.enable_x64(dtype == np.float64):
        target, weight = maps_of(z["joints_f64"], (24, 24), sigma, background, dtype)
    check("target: windows", target, z["heatmap" + suffix], 1e-6, "absolute")
    wanted = z["ignored" + suffix]
    check("target: weights of windows", weight, wanted, 1e-6, "each")


@pytest.mark.parametrize(
    ("joint", "columns", "rows", "total", "highest"),
    [
        ((64.0, 20.0), (57, 71), (13, 27), 25.12513, 1.0),
        ((64.3, 20.7), (57, 72), (13, 28), 25.12983, 0.977751),
        ((1.25, 126.5), (0, 9), (119, 127), 14.143968, 0.961691),
    ],
)
def test_one_gaussian_has_the_figures_of_the_specification(
    joint, columns, rows, total, highest
):
    target, weight = maps_of([[(*joint, 2)]], (128, 128))
    y, x = np.nonzero(target[0])
    assert (x.min(), x.max(), y.min(), y.max()) == (*columns, *rows)
    np.testing.assert_array_equal(weight[0] == 1, target[0] > 0)
    np.testing.assert_allclose((target.sum(), target.max()), (total, highest), 1e-6)


def test_window_of_offsets_is_four_by_four_and_not_centred():
    people = people_of([[(60.0, 20.0, 2)]], [[(64.9, 20.2, 2)]], [2500.0])
    offset, weight = dense_offsets(people, (128, 128))
    y, x = np.nonzero(weight[0])
    assert (set(x), set(y)) == ({62, 63, 64, 65}, {18, 19, 20, 21})
    np.testing.assert_allclose(weight[0, 18, 62], 1 / 50)
    np.testing.assert_allclose(offset[:, 18, 62], (62 - 60, 18 - 20))


def write_one_after_another(people, size, radius):
    """The published rule as a plain loop over persons, joints and pixels."""
    joints, labelled, centres, present, area = (np.asarray(x)[0] for x in people)
    parts, count = centres.shape[1], joints.shape[1]
    offset = np.zeros((parts, count, *size, 2))
    owner = np.full((parts, count, *size), -1)
    stored = np.zeros((parts, *size))
    for p, k, j in np.ndindex(len(joints), parts, count):
        on_map = (joints[p, j] >= 0).all() and (joints[p, j] < size[::-1]).all()
        if not (present[p, k] and labelled[p, j] and on_map):
            continue
        cx, cy = centres[p, k].astype(int)
        if not (0 <= cx < size[1] and 0 <= cy < size[0]):
            continue
        for y in range(max(cy - radius, 0), min(cy + radius, size[0])):
            for x in range(max(cx - radius, 0), min(cx + radius, size[1])):
                if offset[k, j, y, x].any() and stored[k, y, x] < area[p]:
                    continue
                offset[k, j, y, x] = (x, y) - joints[p, j]
                owner[k, j, y, x] = p
                stored[k, y, x] = area[p]
    return offset, owner


@pytest.mark.parametrize("seed", range(4))
def test_replay_at_pixels_equals_a_loop_that_writes_dense_maps(seed):
    rng, size = np.random.default_rng(seed), (10, 12)
    joints = rng.integers(-1, 13, (6, 4, 2)) + rng.choice([0, 0.25], (6, 4, 2))
    visible = rng.integers(0, 3, (6, 4, 1))
    centres = np.concatenate(
        (rng.uniform(1, 7, (6, 2, 2)), rng.integers(0, 4, (6, 2, 1))), axis=-1
    )
    areas = rng.permutation([100, 200, 200, 300, 400, 500])
    people = people_of(np.concatenate((joints, visible), axis=-1), centres, areas)
    offset, owner = write_one_after_another(people, size, 2)
    got = heatmap.offset_targets(people, every_pixel(size, 2), size, 2)
    got_owner = np.moveaxis(np.asarray(got.owner)[0], 1, -1).reshape(owner.shape)
    np.testing.assert_array_equal(got_owner, owner)
    got_offset = np.moveaxis(np.asarray(got.offset)[0], 1, 2).reshape(offset.shape)
    np.testing.assert_array_equal(got_offset, offset)
    # the windows name every pixel that anybody owns, and nobody else's
    pixels, person = heatmap.offset_windows(people, 2)
    windows = heatmap.offset_targets(people, pixels, size, 2)
    own = np.asarray(windows.owner)[0] == np.asarray(person)[None, :, None]
    assert own.sum() == (owner >= 0).sum()


def test_padding_and_small_persons_move_nothing_they_should_not():
    rng = np.random.default_rng(0)
    labels = Labels(
        joints=jnp.asarray(rng.uniform(10, 110, (1, 3, 17, 2)), jnp.float32),
        visibility=jnp.full((1, 3, 17), 2, jnp.uint8),
        area=jnp.asarray([[4000.0, 900.0, 0.0]]),
        ignore=jnp.zeros((1, 32, 32), bool),
        head_size=jnp.zeros((1, 3)),
    )
    people = heatmap.people_on_map(labels, COCO.parts["part-large"], 4, 1024.0)
    np.testing.assert_array_equal(people.labelled.all(-1), [[True, True, False]])
    np.testing.assert_array_equal(people.present.all(-1), [[True, False, False]])
    everybody = heatmap.people_on_map(labels, COCO.parts["part-large"], 4, 0.0)
    np.testing.assert_array_equal(everybody.present.all(-1), [[True, True, False]])


def test_part_centre_is_the_mean_of_its_labelled_joints_on_and_off_the_map():
    joints = jnp.asarray([[[[0.0, 0.0], [8.0, 2.0], [-4.0, 6.0], [9.0, 9.0]]]])
    labelled = jnp.asarray([[[False, True, True, False]]])
    centres, present = heatmap.part_centres(joints, labelled, ((0, 1, 2), (3,)))
    np.testing.assert_array_equal(present, [[[True, False]]])
    np.testing.assert_array_equal(centres[0, 0, 0], (2.0, 4.0))


def test_ignored_pixels_weigh_nothing():
    target = heatmap.gaussians(
        jnp.full((1, 1, 1, 2), 4.0), jnp.ones((1, 1, 1), bool), (8, 8), 0.5
    )
    ignore = jnp.zeros((1, 8, 8), bool).at[:, :, 4:].set(True)
    weight = heatmap.map_weights(target, 0.1, ignore)
    assert not np.any(weight[:, :, 4:])
    assert set(np.unique(weight)) == set(np.float32([0, 0.1, 1]))
