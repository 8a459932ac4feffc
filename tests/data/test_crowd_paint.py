import numpy as np
import pytest

from occjax.data import paint, palette, scenery, staging

SIZE = (40, 60)
LIGHT = np.array([0.1, -0.1, 0.4])
BACKDROP = np.full((*SIZE, 3), 77, np.uint8)
RED, BLUE, GREEN = (200.0, 20.0, 30.0), (20.0, 30.0, 210.0), (20.0, 200.0, 40.0)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    return np.tile([x, y, radius], (4, 1)).astype(float)


def bar(a: tuple, b: tuple, radius: float) -> np.ndarray:
    return np.array([(*a, radius), (*a, radius), (*b, radius), (*b, radius)], float)


def pieces(discs: list, depths: list, relief: int = paint.FLAT) -> paint.Pieces:
    """Piece k belongs to person k + 1 and is made of fabric k."""
    count = len(discs)
    return paint.Pieces(
        discs=np.stack(discs),
        depth=np.array(depths, float),
        owner=np.arange(1, count + 1),
        fabric=np.arange(count),
        unit=np.full(count, 10.0),
        tone=np.ones(count),
        relief=np.full(count, relief),
        cap=np.tile(paint.NO_CAP, (count, 1)),
    )


def fabrics(*colors: tuple, pattern: tuple = (0, 0, 0)) -> paint.Fabrics:
    count = len(colors)
    return paint.Fabrics(
        color=np.array(colors),
        second=np.tile(GREEN, (count, 1)),
        pattern=np.tile(pattern, (count, 1)).astype(float),
        wave=np.full(count, 2.0),
        phase=np.zeros((count, 2)),
        duty=np.full(count, 0.5),
    )


def draw(scene: paint.Pieces, cloth: paint.Fabrics) -> tuple[np.ndarray, np.ndarray]:
    seen = paint.cover(paint.hulls(scene.discs), scene.depth, SIZE)
    return paint.paint(scene, cloth, seen, BACKDROP, LIGHT), paint.centre(seen)


# --- Shapes -----------------------------------------------------------------------


def test_hull_holds_its_discs_and_touches_their_farthest_points():
    rng = np.random.default_rng(0)
    discs = rng.uniform((0, 0, 1), (50, 50, 8), (30, 4, 3))
    corners = paint.hulls(discs)
    turns = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    way = np.stack([np.cos(turns), np.sin(turns)])
    support = (discs[..., :2] @ way + discs[..., 2:]).max(axis=1)
    np.testing.assert_allclose((corners @ way).max(axis=1), support, rtol=1e-9)


def test_hull_is_convex_and_in_order():
    discs = np.random.default_rng(1).uniform((0, 0, 1), (50, 50, 8), (30, 4, 3))
    corners = paint.hulls(discs)
    edge = np.roll(corners, -1, axis=1) - corners
    after = np.roll(edge, -1, axis=1)
    turn = edge[..., 0] * after[..., 1] - edge[..., 1] * after[..., 0]
    assert turn.min() > -1e-9


@pytest.mark.parametrize("center", [(20.0, 15.0), (20.5, 15.0), (31.25, 18.75)])
def test_disc_covers_the_pixels_whose_centres_it_holds(center):
    _, seen = draw(pieces([disc(*center, 8.0)], [0]), fabrics(RED))
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot(columns - center[0], rows - center[1])
    assert np.all(seen[distance < 7.0] == 1)
    assert np.all(seen[distance > 9.0] == 0)


def test_silhouettes_are_whole_and_separate():
    scene = pieces([disc(20, 20, 9), disc(24, 20, 9)], [1, 0])
    masks = paint.silhouettes(paint.hulls(scene.discs), scene.owner, 2, SIZE)
    _, seen = draw(scene, fabrics(RED, BLUE))
    assert masks.shape == (2, *SIZE)
    assert abs(int(masks[0].sum()) - int(masks[1].sum())) <= 2
    assert np.sum(seen == 1) < 0.6 * masks[0].sum()  # the first is half hidden
    assert np.sum(seen == 2) > 0.85 * masks[1].sum()


def test_things_have_no_silhouette():
    scene = pieces([disc(20, 20, 9), disc(24, 20, 9)], [1, 0])
    owner = np.array([-1, 1])
    masks = paint.silhouettes(paint.hulls(scene.discs), owner, 1, SIZE)
    _, seen = draw(scene, fabrics(RED, BLUE))
    assert masks[0][seen == 2].mean() > 0.97
    assert not masks[0][20, 12]


# --- Depth ------------------------------------------------------------------------


def test_nearer_piece_is_seen_in_whatever_order_they_come():
    near, far = disc(20, 20, 8), disc(26, 20, 8)
    image, _ = draw(pieces([near, far], [0, 1]), fabrics(RED, BLUE))
    swapped, _ = draw(pieces([far, near], [1, 0]), fabrics(BLUE, RED))
    np.testing.assert_array_equal(image, swapped)
    np.testing.assert_array_equal(image[20, 23], RED)


def test_piece_numbers_are_the_owners_of_the_colours():
    image, seen = draw(
        pieces([disc(15, 20, 6), disc(40, 20, 6)], [0, 1]), fabrics(RED, BLUE)
    )
    np.testing.assert_array_equal(image[20, 15], RED)
    np.testing.assert_array_equal(image[20, 40], BLUE)
    assert (seen[20, 15], seen[20, 40], seen[20, 27]) == (1, 2, 0)
    np.testing.assert_array_equal(image[20, 27], BACKDROP[20, 27])


@pytest.mark.parametrize("relief", [paint.FLAT, paint.CYLINDER, paint.BALL])
def test_hidden_piece_leaves_no_trace_in_what_covers_it(relief):
    wall = bar((30, 8), (30, 32), 12.0)
    limbs = [
        bar((25, 15), (33, 27), 2.0),
        bar((34, 12), (26, 22), 3.0),
        disc(28, 20, 4),
    ]
    results = []
    for limb, color in zip(limbs, (RED, GREEN, (255.0, 255.0, 0.0)), strict=True):
        scene = pieces([limb, wall], [5, 1], relief)
        results.append(draw(scene, fabrics(color, BLUE, pattern=(0.5, 0.5, 1)))[0])
    absent = pieces([disc(-50, -50, 2), wall], [5, 1], relief)
    expected, _ = draw(absent, fabrics(RED, BLUE, pattern=(0.5, 0.5, 1)))
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_partly_hidden_piece_leaves_no_trace_inside_what_covers_it():
    wall = bar((30, 8), (30, 32), 10.0)
    images = []
    for end in ((55, 20), (55, 34), (5, 6)):
        scene = pieces([bar((30, 20), end, 3.0), wall], [5, 1], paint.CYLINDER)
        images.append(draw(scene, fabrics(RED, BLUE))[0])
    _, seen = draw(pieces([wall], [1]), fabrics(BLUE))
    # Pixels on the outline mix with what stands beside, as in any photograph.
    inner = np.zeros(SIZE, bool)
    inner[2:-2, 2:-2] = np.all(
        [np.roll(seen, (i, j), (0, 1)) == 1 for i in (-1, 0, 1) for j in (-1, 0, 1)], 0
    )[2:-2, 2:-2]
    assert inner.sum() > 300
    for image in images[1:]:
        np.testing.assert_array_equal(image[inner], images[0][inner])
    assert np.any(images[0] != images[1])


# --- Colours ----------------------------------------------------------------------


def test_outline_pixels_mix_both_sides():
    image, _ = draw(
        pieces([disc(30.3, 20.2, 9.4)], [0]), fabrics((255.0, 255.0, 255.0))
    )
    values = np.unique(image)
    assert set(values) <= {77, 122, 121, 166, 210, 211, 255}
    assert len(values) >= 4


def test_cylinder_is_brightest_towards_the_light():
    scene = pieces([bar((30, 10), (30, 30), 8.0)], [0], paint.CYLINDER)
    image, _ = draw(scene, fabrics((150.0, 150.0, 150.0)))
    left, right = image[20, 24, 0], image[20, 36, 0]
    assert right > left  # LIGHT comes from the right
    assert image[20, 32, 0] > left


@pytest.mark.parametrize("pattern", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.5, 0)])
def test_pattern_shows_both_colours(pattern):
    scene = pieces([bar((30, 6), (30, 34), 10.0)], [0])
    image, seen = draw(scene, fabrics(RED, pattern=pattern))
    shown = image[seen == 1].astype(float)
    assert np.sum(np.all(shown == RED, axis=1)) > 50
    assert np.sum(np.all(shown == GREEN, axis=1)) > 20


def test_hoops_run_across_and_stripes_along():
    across, along = (
        draw(pieces([bar((30, 6), (30, 34), 10.0)], [0]), fabrics(RED, pattern=p))[0]
        for p in ((1, 0, 0), (0, 1, 0))
    )
    assert len(np.unique(across[10:30, 30], axis=0)) == 2
    assert len(np.unique(across[20, 25:35], axis=0)) == 1
    assert len(np.unique(along[10:30, 30], axis=0)) == 1
    assert len(np.unique(along[20, 22:38], axis=0)) == 2


def test_cap_colours_the_side_of_a_ball_it_points_to():
    scene = pieces([bar((30, 22), (30, 20), 12.0)], [0], paint.BALL)
    up = scene._replace(cap=np.array([[0.0, -1.0, 0.0, 0.3]]))
    image, _ = draw(up, fabrics(RED))
    assert image[11, 30, 1] > image[11, 30, 0]  # green above
    assert image[29, 30, 0] > image[29, 30, 1]  # red below
    behind = scene._replace(cap=np.array([[0.0, 0.0, 1.0, 0.3]]))
    image, _ = draw(behind, fabrics(RED))
    assert image[20, 30, 0] > image[20, 30, 1]  # the back of the head is not seen


# --- Palette, scenery, boxes ------------------------------------------------------


def test_hsv_agrees_with_the_standard_library():
    import colorsys

    hsv = np.random.default_rng(0).uniform(size=(50, 3))
    found = palette.from_hsv(*hsv.T)
    wanted = [[255 * c for c in colorsys.hsv_to_rgb(*row)] for row in hsv]
    np.testing.assert_allclose(found, wanted, atol=1e-9)


def test_fabrics_are_colours_and_cover_every_piece():
    rows = palette.fabrics(np.random.default_rng(0), people=3, things=2, others=5)
    assert len({len(field) for field in rows}) == 1
    for colors in (rows.color, rows.second):
        assert colors.min() >= 0
        assert colors.max() <= 255


def test_leaves_are_green():
    rows = palette.fabrics(np.random.default_rng(0), people=0, things=20, others=0)
    leaves = rows.color[1::2]
    assert np.all(leaves[:, 1] >= leaves.max(axis=1) - 1e-9)


def test_each_thing_has_its_own_owner_and_lies_at_its_depth():
    rng = np.random.default_rng(3)
    spots = np.tile([30.0, 38.0, 30.0], (12, 1))
    depths = np.linspace(-4, 7, 12)
    things = scenery.things(rng, spots, depths)
    assert set(things.owner.tolist()) == set(range(-12, 0))
    for number, depth in enumerate(depths):
        mine = things.depth[things.owner == -1 - number]
        assert np.all(np.abs(mine - depth) < 0.1)


def test_no_thing_is_no_pieces():
    none = scenery.things(np.random.default_rng(0), np.zeros((0, 3)), np.zeros(0))
    assert all(len(field) == 0 for field in none)


def test_clutter_lies_behind_everything_and_belongs_to_nobody():
    clutter = scenery.clutter(np.random.default_rng(0), SIZE)
    assert clutter.depth.min() > 1e5
    assert not clutter.owner.any()
    assert sorted(clutter.fabric.tolist()) == list(range(len(clutter.depth)))


def test_backdrop_has_the_size_of_the_image():
    image = scenery.backdrop(*(np.random.default_rng(i) for i in (0, 1)), SIZE)
    assert image.shape == (*SIZE, 3)
    assert image.dtype == np.uint8


def test_box_iou_of_known_boxes():
    a = np.array([0.0, 0.0, 4.0, 4.0])
    others = np.array([(0, 0, 4, 4), (2, 0, 6, 4), (4, 4, 8, 8), (9, 9, 9, 9)], float)
    np.testing.assert_allclose(staging.box_iou(a, others), [1, 1 / 3, 0, 0])
    np.testing.assert_array_equal(
        staging.clip_boxes(np.array([-9.0, 3.0, 99.0, 99.0]), (10, 20)),
        [-0.5, 3.0, 19.5, 9.5],
    )
