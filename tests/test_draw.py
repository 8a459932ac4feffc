import cv2
import numpy as np
import pytest

from occjax import draw
from occjax.skeletons import COCO, CROWDPOSE
from occjax.types import OCCLUDED, UNLABELLED, VISIBLE


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8)


@pytest.fixture
def joints():
    return np.random.default_rng(1).uniform(15, 75, (17, 2))


def codes(value):
    return np.full(17, value)


def one_joint(code, at=(40.0, 30.0)):
    """A grey image with the nose alone, drawn large."""
    joints, visible = np.zeros((17, 2)), codes(UNLABELLED)
    joints[0], visible[0] = at, code
    grey = np.full((60, 80, 3), 128, np.uint8)
    return grey, draw.draw_pose(grey, joints, visible, COCO, size=8)


def test_drawing_does_not_touch_its_input(image, joints):
    before = image.copy()
    drawn = draw.draw_pose(image, joints, codes(VISIBLE), COCO)
    np.testing.assert_array_equal(image, before)
    assert np.any(drawn != image)
    assert drawn.dtype == np.uint8


def test_visible_joint_is_solid_and_occluded_one_hollow():
    grey, solid = one_joint(VISIBLE)
    _, hollow = one_joint(OCCLUDED)
    assert tuple(solid[30, 40]) == draw.MIDDLE
    assert tuple(hollow[30, 40]) == tuple(grey[30, 40])  # the image shows through
    assert tuple(hollow[30, 49]) == draw.MIDDLE  # on the ring


def test_joint_is_drawn_at_its_coordinates():
    grey, drawn = one_joint(VISIBLE, at=(40.5, 30.0))
    rows, columns = np.nonzero(np.any(drawn != grey, axis=-1))
    assert np.mean(columns) == pytest.approx(40.5, abs=0.1)
    assert np.mean(rows) == pytest.approx(30.0, abs=0.1)


def test_unlabelled_joints_leave_no_mark(image, joints):
    drawn = draw.draw_pose(image, joints, codes(UNLABELLED), COCO)
    np.testing.assert_array_equal(drawn, image)


def test_bone_to_an_occluded_joint_is_thinner(image):
    joints, visible = np.zeros((17, 2)), codes(UNLABELLED)
    joints[5], joints[7] = (10, 60), (80, 60)
    visible[[5, 7]] = VISIBLE
    solid = draw.draw_pose(image, joints, visible, COCO, size=4)
    visible[7] = OCCLUDED
    dashed = draw.draw_pose(image, joints, visible, COCO, size=4)
    between = np.s_[:, 25:65]  # without the joints themselves
    painted = [np.any(d != image, axis=-1)[between].sum() for d in (solid, dashed)]
    assert painted[1] < 0.7 * painted[0]


def test_sides_and_persons_differ_in_colour():
    colors = [draw.person_color(person) for person in range(30)]
    assert len(set(colors)) == 30
    assert all(max(color) == 255 for color in colors)
    assert len({draw.LEFT, draw.RIGHT, draw.MIDDLE}) == 3


def test_left_joint_has_the_left_colour(image, joints):
    for joint, color in ((5, draw.LEFT), (6, draw.RIGHT)):
        visible = codes(UNLABELLED)
        visible[joint] = VISIBLE
        drawn = draw.draw_pose(image, np.round(joints), visible, COCO, size=4)
        x, y = np.round(joints[joint]).astype(int)
        assert tuple(drawn[y, x]) == color


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, -1e30])
def test_joints_far_off_or_undefined_do_no_harm(image, joints, value):
    joints[3] = value
    drawn = draw.draw_pose(image, joints, codes(VISIBLE), COCO)
    assert drawn.shape == image.shape


def test_wrong_joint_count_is_refused(image, joints):
    with pytest.raises(ValueError, match=r"\(14, 2\)"):
        draw.draw_pose(image, joints, codes(VISIBLE), CROWDPOSE)


@pytest.mark.parametrize("cell", [(300, 200), (40, 40), (90, 120)])
def test_fitted_joints_stay_on_their_pixels(cell):
    image = np.zeros((120, 90, 3), np.uint8)
    image[59:62, 29:32] = 255  # centre x=30, y=60
    fitted, moved = draw.fit(image, np.array([30.0, 60.0]), *cell)
    assert fitted.shape == (cell[1], cell[0], 3)
    # The dark ground is not quite black: weigh what is clearly brighter.
    bright = np.maximum(fitted[..., 0].astype(float) - 64, 0)
    rows, columns = np.indices(bright.shape)
    center = [np.sum(bright * at) / bright.sum() for at in (columns, rows)]
    np.testing.assert_allclose(moved, center, atol=0.35)


def test_contact_sheet_fills_short_rows_and_enlarges_small_images(image, joints):
    small = np.zeros((20, 20, 3), np.uint8)
    panel = draw.Panel(image, joints[None], codes(VISIBLE)[None], "a caption")
    empty = draw.Panel(small, np.zeros((0, 17, 2)), np.zeros((0, 17)))
    sheet = draw.contact_sheet([[panel, panel], [empty]], COCO, 200, ("one", "two"))
    assert sheet.shape[1] == 2 * 202
    assert sheet.shape[0] > 200 * 120 // 90 + 200
    with pytest.raises(ValueError, match="panel"):
        draw.contact_sheet([], COCO)


def test_panels_of_coco_items_keep_people_worth_drawing(image, joints):
    truth = np.concatenate([joints, codes(OCCLUDED)[:, None]], axis=-1)
    keypoints = truth.reshape(-1).tolist()
    annotations = [{"keypoints": keypoints, "iscrowd": crowd} for crowd in (0, 1)]
    panel = draw.truth_panel(image, annotations, COCO, "")
    np.testing.assert_allclose(panel.joints, joints[None])
    assert np.all(panel.visibility == OCCLUDED)

    seen = [0.9] * 8 + [0.1] * 9
    found = [
        {"keypoints": keypoints, "score": 0.3, "visible": seen},
        {"keypoints": keypoints, "score": 0.9},
        {"keypoints": keypoints, "score": 0.05},
    ]
    panel = draw.found_panel(image, found, COCO, "", min_score=0.1)
    assert len(panel.joints) == 2
    assert np.all(panel.visibility[0] == VISIBLE)  # best first, nothing known: solid
    np.testing.assert_array_equal(panel.visibility[1] == VISIBLE, np.array(seen) > 0.5)


def test_saved_image_reads_back_the_same(image, tmp_path):
    draw.save_png(tmp_path / "new/a.png", image)
    read = cv2.imread(str(tmp_path / "new/a.png"))
    np.testing.assert_array_equal(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), image)
