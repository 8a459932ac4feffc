import dataclasses

import numpy as np
import pytest

from occjax import skeletons
from occjax.data import figure, flesh, paint, render
from occjax.data.figure import CHEST, INDEX, PELVIS, SKULL


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def sample(rng: np.random.Generator, count: int) -> tuple:
    build = figure.sample_build(rng, count)
    angles = figure.sample_angles(rng, count, np.zeros(count, bool))
    yaw = rng.uniform(-np.pi, np.pi, count)
    return build, angles, yaw


def standing(rng: np.random.Generator, yaw: float) -> figure.Figures:
    """One average grown-up, upright with hanging arms and looking ahead."""
    build = figure.sample_build(rng, 1)
    angles = figure.sample_angles(rng, 1, np.ones(1, bool))
    angles[:, :5] = 0.0
    for limb in (5, 9):
        angles[:, limb : limb + 4] = 0.0, 12.0, 8.0, 0.0
    return figure.pose(build, angles, np.array([yaw]))


def length(figures: figure.Figures, a: slice, b: slice) -> np.ndarray:
    return np.linalg.norm(figures.joints[:, b] - figures.joints[:, a], axis=-1)


# --- Poses ------------------------------------------------------------------------


def test_every_range_of_every_pose_lies_within_the_joint_limits():
    for name, row in figure.POSES.items():
        ranges = np.array(sum(row[1:], ()), float)
        assert ranges.shape == (figure.NUM_ANGLES, 2), name
        assert np.all(ranges[:, 0] <= ranges[:, 1]), name
        assert np.all(ranges[:, 0] >= figure.LIMITS[:, 0]), name
        assert np.all(ranges[:, 1] <= figure.LIMITS[:, 1]), name


def test_sampled_angles_lie_within_the_joint_limits(rng):
    angles = figure.sample_angles(rng, 500, np.zeros(500, bool))
    assert np.all(angles >= figure.LIMITS[:, 0])
    assert np.all(angles <= figure.LIMITS[:, 1])


def test_calm_people_stand(rng):
    angles = figure.sample_angles(rng, 100, np.ones(100, bool))
    pitch_of_legs = angles[:, [13, 17]]
    assert np.abs(pitch_of_legs).max() < 15


def test_people_face_every_way_and_differ_in_build(rng):
    build, _, _ = sample(rng, 300)
    for field in dataclasses.fields(build):
        values = getattr(build, field.name)
        assert values.min() > 0
        assert values.max() > 1.1 * values.min(), field.name


# --- Kinematics -------------------------------------------------------------------


def test_bones_keep_their_lengths_in_every_pose(rng):
    build, angles, yaw = sample(rng, 200)
    figures = figure.pose(build, angles, yaw)
    chains = (
        (figure.SHOULDERS, figure.ELBOWS, build.upper_arm),
        (figure.ELBOWS, figure.WRISTS, build.forearm),
        (figure.HIPS, figure.KNEES, build.thigh),
        (figure.KNEES, figure.ANKLES, build.shank),
    )
    for start, end, wanted in chains:
        found = length(figures, start, end)
        np.testing.assert_allclose(found, np.tile(wanted[:, None], 2), rtol=1e-9)


def test_frames_are_right_handed_rotations(rng):
    frames = figure.pose(*sample(rng, 50)).frames
    np.testing.assert_allclose(
        frames @ np.swapaxes(frames, -1, -2),
        np.broadcast_to(np.eye(3), frames.shape),
        atol=1e-12,
    )
    # Left, up, front against image axes (x right, y down, z away).
    np.testing.assert_allclose(np.linalg.det(frames), 1.0, rtol=1e-9)


def test_mirrored_pose_has_mirrored_and_swapped_joints(rng):
    build, angles, yaw = sample(rng, 60)
    plain = figure.pose(build, angles, yaw)
    mirrored = figure.pose(build, figure.mirror_angles(angles), -yaw)
    flip = (*skeletons.COCO.flip, figure.HEAD, figure.NECK)
    np.testing.assert_allclose(
        mirrored.joints[:, flip] * (-1, 1, 1), plain.joints, atol=1e-12
    )
    np.testing.assert_allclose(
        mirrored.toes[:, ::-1] * (-1, 1, 1), plain.toes, atol=1e-12
    )


def test_mirroring_twice_changes_nothing(rng):
    _, angles, _ = sample(rng, 20)
    again = figure.mirror_angles(figure.mirror_angles(angles))
    np.testing.assert_array_equal(again, angles)


def test_turning_on_the_spot_is_a_rotation_about_the_vertical(rng):
    build, angles, yaw = sample(rng, 30)
    here, there = (figure.pose(build, angles, yaw + turn).joints for turn in (0, 0.7))
    np.testing.assert_allclose(here[..., 1], there[..., 1], atol=1e-12)
    radius = [np.hypot(joints[..., 0], joints[..., 2]) for joints in (here, there)]
    np.testing.assert_allclose(*radius, atol=1e-12)


def test_knees_bend_backwards_and_elbows_forwards(rng):
    build, angles, yaw = sample(rng, 300)
    angles[:, [8, 12]] = 0.0  # elbows bend in the plane of the arm's swing,
    angles[:, [6, 10]] = np.minimum(angles[:, [6, 10]], 80)  # seen from the side
    figures = figure.pose(build, angles, yaw)
    local = [
        np.einsum("njc,nac->nja", figures.joints, figures.frames[:, frame])
        for frame in (PELVIS, CHEST)
    ]
    for joints, chain, sign in (
        (local[0], (figure.HIPS, figure.KNEES, figure.ANKLES), -1),
        (local[1], (figure.SHOULDERS, figure.ELBOWS, figure.WRISTS), 1),
    ):
        root, middle, end = (joints[:, rows, 1:] for rows in chain)  # up, front
        first, second = middle - root, end - middle
        turn = first[..., 1] * second[..., 0] - first[..., 0] * second[..., 1]
        assert np.all(sign * turn >= -1e-9)


def test_facing_the_camera_puts_left_on_the_right(rng):
    joints = standing(rng, 0.0).joints[0]
    assert joints[INDEX["left_shoulder"], 0] > joints[INDEX["right_shoulder"], 0]
    assert joints[INDEX["nose"], 2] < joints[INDEX["left_ear"], 2]


def test_facing_away_puts_left_on_the_left(rng):
    joints = standing(rng, np.pi).joints[0]
    assert joints[INDEX["left_shoulder"], 0] < joints[INDEX["right_shoulder"], 0]
    assert joints[INDEX["nose"], 2] > joints[INDEX["left_ear"], 2]


def test_a_quarter_turn_to_the_own_left_faces_right_in_the_image(rng):
    joints = standing(rng, np.pi / 2).joints[0]
    assert joints[INDEX["nose"], 0] > joints[INDEX["left_ear"], 0]
    assert joints[INDEX["left_shoulder"], 2] > joints[INDEX["right_shoulder"], 2]


def test_upright_people_stack_up_from_ankle_to_head(rng):
    joints = standing(rng, 0.3).joints[0, :, 1]
    names = ("head", "nose", "neck", "left_hip", "left_knee", "left_ankle")
    heights = [joints[INDEX[name]] for name in names]
    assert heights == sorted(heights)
    assert 0.8 < heights[-1] - heights[0] < 1.15


# --- Reaching ---------------------------------------------------------------------


def test_hand_reaches_what_is_in_reach(rng):
    figures = figure.pose(*sample(rng, 100))
    build = figures.build
    direction = rng.normal(size=(100, 2, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    span = rng.uniform(0.5, 0.95, (100, 2)) * (build.upper_arm + build.forearm)[:, None]
    target = figures.joints[:, figure.SHOULDERS] + span[..., None] * direction
    moved = figure.reach(figures, target, np.ones((100, 2), bool))
    np.testing.assert_allclose(moved.joints[:, figure.WRISTS], target, atol=1e-9)
    upper = length(moved, figure.SHOULDERS, figure.ELBOWS)
    fore = length(moved, figure.ELBOWS, figure.WRISTS)
    np.testing.assert_allclose(upper, np.tile(build.upper_arm[:, None], 2), rtol=1e-6)
    np.testing.assert_allclose(fore, np.tile(build.forearm[:, None], 2), rtol=1e-6)


def test_hand_points_at_what_is_out_of_reach(rng):
    figures = figure.pose(*sample(rng, 20))
    root = figures.joints[:, figure.SHOULDERS]
    target = root + (0.0, 0.0, 5.0)
    moved = figure.reach(figures, target, np.ones((20, 2), bool))
    way = moved.joints[:, figure.WRISTS] - root
    np.testing.assert_allclose(way[..., :2], 0.0, atol=1e-9)
    assert np.all(way[..., 2] < 0.5)


def test_arms_that_do_not_reach_stay_and_the_original_is_untouched(rng):
    figures = figure.pose(*sample(rng, 20))
    before = figures.joints.copy()
    use = np.tile([True, False], (20, 1))
    moved = figure.reach(figures, np.zeros((20, 2, 3)), use)
    still = np.ones(figure.NUM_JOINTS, bool)
    still[[INDEX["left_elbow"], INDEX["left_wrist"]]] = False
    np.testing.assert_array_equal(moved.joints[:, still], before[:, still])
    np.testing.assert_array_equal(figures.joints, before)
    assert np.any(moved.joints != before)


# --- Flesh ------------------------------------------------------------------------


def alone(figures: figure.Figures, wear: np.ndarray | None = None) -> render.Scene:
    """The truth about one person alone, 200 pixels tall in 256 x 256."""
    if wear is None:
        wear = np.zeros((1, len(flesh.WEARABLES)), bool)
    cast = flesh.place(figures, wear, np.array([[128, 128, 0.0]]), np.array([200.0]))
    pieces = flesh.dress(cast)
    polygons = paint.hulls(pieces.discs)
    seen = paint.cover(polygons, pieces.depth, (256, 256))
    shapes = paint.silhouettes(polygons, pieces.owner, 1, (256, 256))
    return render.examine(render.Arrangement(pieces, seen, cast, shapes))


def visible(scene: render.Scene) -> set[str]:
    return {figure.JOINTS[i] for i in np.nonzero(scene.joints[0, :, 2] == 2)[0]}


FACE = {"nose", "left_eye", "right_eye"}


def test_from_the_front_everything_shows(rng):
    assert visible(alone(standing(rng, 0.0))) == set(figure.JOINTS)


def test_from_behind_the_face_is_hidden_and_the_body_shows(rng):
    hidden = set(figure.JOINTS) - visible(alone(standing(rng, np.pi)))
    assert hidden == FACE


def test_from_the_side_the_far_side_is_hidden(rng):
    # Facing right in the image, the left side is the far one.
    seen = visible(alone(standing(rng, np.pi / 2)))
    assert {"right_shoulder", "right_ear", "right_eye", "nose"} <= seen
    assert not {"left_shoulder", "left_ear", "left_eye", "left_hip"} & seen


def test_from_the_other_side_the_other_side_is_hidden(rng):
    seen = visible(alone(standing(rng, -np.pi / 2)))
    assert {"left_shoulder", "left_ear", "left_eye", "nose"} <= seen
    assert not {"right_shoulder", "right_ear", "right_eye", "right_hip"} & seen


def test_long_hair_hides_the_neck_from_behind(rng):
    wear = np.zeros((1, len(flesh.WEARABLES)), bool)
    wear[0, [flesh.WEARABLES.index(name) for name in ("hair", "long hair")]] = True
    person = standing(rng, np.pi)
    assert "neck" in visible(alone(person))
    assert "neck" not in visible(alone(person, wear))


def test_every_joint_lies_within_the_silhouette_in_any_pose(rng):
    figures = figure.pose(*sample(rng, 25))
    wear = flesh.sample_wear(rng, 25)
    for row in range(25):
        scene = alone(figures[np.array([row])], wear[row : row + 1])
        at = np.rint(scene.joints[0, :, :2]).astype(int)
        labelled = scene.joints[0, :, 2] > 0
        assert np.all(scene.silhouettes[0][at[labelled, 1], at[labelled, 0]])


def test_hair_styles_exclude_each_other(rng):
    wear = flesh.sample_wear(rng, 400)
    worn = {name: wear[:, i] for i, name in enumerate(flesh.WEARABLES)}
    styles = worn["long hair"].astype(int) + worn["tail"] + worn["bun"]
    assert styles.max() == 1
    assert not np.any(styles[~worn["hair"]])
    assert all(column.any() and not column.all() for column in worn.values())


def test_left_and_right_pieces_are_mirror_images():
    for name, row in flesh.PIECES.items():
        if name.startswith("left "):
            twin = flesh.PIECES[name.replace("left ", "right ")]
            assert twin.slot == row.slot  # no colour tells left from right
            assert twin.bias == row.bias
            assert twin.discs == tuple(d.replace("left", "right") for d in row.discs)


def test_rough_extent_is_near_the_painted_one(rng):
    figures = figure.pose(*sample(rng, 60))
    wear = np.zeros((60, len(flesh.WEARABLES)), bool)
    scale = np.full(60, 100.0)
    cast = flesh.place(figures, wear, np.zeros((60, 3)), scale)
    rough = 100.0 * figure.extent(figures)
    # Ankles may point anywhere within the feet; a few percent of the stature.
    assert np.abs(rough - flesh.extent(cast)).max() < 6.0


def test_skull_is_where_the_head_joint_says(rng):
    figures = figure.pose(*sample(rng, 20))
    top = figures.joints[:, figure.HEAD] - figure.skull(figures)
    up = figures.frames[:, SKULL, 1]
    cosine = np.sum(top * up, axis=1) / np.linalg.norm(top, axis=1)
    np.testing.assert_allclose(cosine, 1.0, rtol=1e-9)
