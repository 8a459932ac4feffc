import numpy as np
import pytest
import scenes

from occjax import skeletons
from occjax.data import augment, crop, occlude, pool, warp
from occjax.errors import UserError
from occjax.types import OCCLUDED, UNLABELLED, VISIBLE, Batch, Inputs, Labels

COCO = skeletons.COCO
SIZE = (256, 192)


def view(joints, seen=None, *, max_persons=None, cropped=True, size=SIZE) -> Batch:
    """A grey view with people [P, J, 2]; the first one's box is 100 x 140 pixels."""
    joints = np.asarray(joints, np.float32)
    count, rows = len(joints), max_persons or len(joints)
    places = np.zeros((rows, 17, 2), np.float32)
    places[:count] = joints
    visibility = np.zeros((rows, 17), np.uint8)
    visibility[:count] = VISIBLE if seen is None else seen
    area = np.zeros(rows, np.float32)
    area[:count] = 14000
    box = np.float32([40, 50, 100, 140]) if cropped else None
    return Batch(
        Inputs(
            np.full((*size, 3), 100, np.uint8),
            np.int32(size),
            np.eye(2, 3, dtype=np.float32),
            box=box,
            box_score=np.float32(1) if cropped else None,
        ),
        Labels(
            places,
            visibility,
            area,
            np.zeros((size[0] // 4, size[1] // 4), bool),
            np.zeros(rows, np.float32),
            oks_area=area / 2,
        ),
        np.int64(7),
    )


def spread(low=30, high=160) -> np.ndarray:
    """Joints [17, 2] all over the view."""
    rng = np.random.default_rng(3)
    return np.column_stack([rng.uniform(low, high, 17), rng.uniform(40, 210, 17)])


def changed(found: Batch) -> np.ndarray:
    """Where [H, W] the grey has gone."""
    return np.any(found.inputs.image != 100, axis=-1)


def person(size=(80, 40), whole=True) -> pool.Instance:
    """A white rectangle with joints along its middle, the last five unlabelled."""
    height, width = size
    joints = np.zeros((17, 3), np.float32)
    joints[:12] = np.column_stack(
        [np.full(12, width / 2), np.linspace(5, height - 6, 12), np.full(12, 2)]
    )
    joints[3, 2] = OCCLUDED
    image = np.full((height, width, 3), 255, np.uint8)
    return pool.Instance(image, np.full(size, 255, np.uint8), joints, whole)


def crowd_of(*people) -> pool.Pool:
    return pool.Pool.of(people, COCO, {})


def instance(**settings) -> occlude.PasteInstance:
    people = settings.pop("people", (person(),))
    return occlude.PasteInstance(crowd_of(*people), **{"probability": 1.0, **settings})


def consistent(before: Batch, after: Batch) -> None:
    """Nothing of the old labels has changed but visible joints became occluded."""
    rows = np.flatnonzero(before.labels.area)
    old, new = before.labels.visibility[rows], after.labels.visibility[rows]
    np.testing.assert_array_equal(after.labels.joints[rows], before.labels.joints[rows])
    np.testing.assert_array_equal(after.labels.area[rows], before.labels.area[rows])
    lost = old != new
    assert np.all(old[lost] == VISIBLE)
    assert np.all(new[lost] == OCCLUDED)


@pytest.mark.parametrize("cropped", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_masked_joints_are_exactly_those_under_black(seed, cropped):
    before = view([spread(), spread() + 7], cropped=cropped)
    mask = occlude.MaskJoints(probability=1.0)
    found = mask.random_map(before, np.random.default_rng(seed))
    black = changed(found)
    assert black.any()
    assert not found.inputs.image[black].any()
    at = np.rint(found.labels.joints).astype(int)
    under = black[at[..., 1], at[..., 0]]
    np.testing.assert_array_equal(found.labels.visibility == OCCLUDED, under)
    assert under[: 1 if cropped else 2].sum() >= 2


def test_masks_have_the_papers_sizes_and_follow_the_crops_height():
    joints = np.zeros((1, 17, 2))
    seen = np.zeros((1, 17), np.uint8)
    joints[0, 4], seen[0, 4] = (96, 128), VISIBLE
    for size, low, high in (((256, 192), 20, 38), ((384, 288), 30, 57)):
        sides = []
        for seed in range(200):
            before = view(joints, seen, size=size)
            mask = occlude.MaskJoints(probability=1.0)
            rows, columns = np.nonzero(
                changed(mask.random_map(before, np.random.default_rng(seed)))
            )
            sides += [np.ptp(rows) + 1, np.ptp(columns) + 1]
        assert min(sides) == low
        assert high - 1 <= max(sides) <= high + 1  # halves are rounded


def test_masks_are_cut_off_at_the_border_and_skip_unlabelled_joints():
    joints = np.zeros((1, 17, 2))
    seen = np.zeros((1, 17), np.uint8)
    joints[0, 0], seen[0, 0] = (2, 3), OCCLUDED
    joints[0, 1], seen[0, 1] = (500, 3), VISIBLE  # labelled, out of view
    found = occlude.MaskJoints(1.0).random_map(
        view(joints, seen), np.random.default_rng(0)
    )
    rows, columns = np.nonzero(changed(found))
    assert rows.min() == columns.min() == 0
    assert max(rows.max(), columns.max()) < 22
    np.testing.assert_array_equal(found.labels.visibility, seen)


def test_probability_is_kept():
    for kind in (occlude.MaskJoints(0.3), instance(probability=0.3)):
        hits = [
            changed(kind.random_map(view([spread()]), np.random.default_rng(s))).any()
            for s in range(400)
        ]
        assert np.mean(hits) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("cropped", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_pasted_person_hides_what_it_covers_and_is_labelled(seed, cropped):
    before = view([spread(), spread() - 5], max_persons=4, cropped=cropped)
    found = instance().random_map(before, np.random.default_rng(seed))
    consistent(before, found)
    image = found.inputs.image[..., 0]
    at = np.rint(before.labels.joints[:2]).astype(int)
    # The person is white on grey: half way is where it shows rather than the grey.
    under = image[at[..., 1], at[..., 0]] >= 178
    np.testing.assert_array_equal(found.labels.visibility[:2] == OCCLUDED, under)

    joints, seen = found.labels.joints[2], found.labels.visibility[2]
    np.testing.assert_array_equal(seen > 0, np.arange(17) < 12)
    assert seen[3] == OCCLUDED
    for x, y in np.rint(joints[:12]).astype(int):
        if 0 <= x < SIZE[1] and 0 <= y < SIZE[0]:
            assert image[y, x] == 255
    assert found.labels.area[2] > 0
    assert found.labels.area[3] == 0


def test_pasted_person_has_the_asked_size_and_turn():
    joints = spread()
    diagonal = np.hypot(100, 140)
    sizes, turns = {True: [], False: []}, []
    for seed in range(300):
        whole = bool(seed % 2)
        paste = instance(people=(person(whole=whole),), covered=1.0)
        before = view([joints], max_persons=2)
        found = paste.random_map(before, np.random.default_rng(seed))
        spine = found.labels.joints[1, 11] - found.labels.joints[1, 0]
        factor = np.hypot(*spine) / (80 - 11)
        sizes[whole].append(factor * np.hypot(80, 40) / diagonal)
        turns.append(np.degrees(np.arctan2(spine[0], spine[1])))
        np.testing.assert_allclose(found.labels.area[1], 3200 * factor**2, rtol=1e-3)
    for whole, usual in ((True, 0.9), (False, 0.5)):
        low, high = min(sizes[whole]) / usual, max(sizes[whole]) / usual
        assert 0.7 - 1e-3 <= low < 0.75
        assert 1.25 < high <= 1.3 + 1e-3
    assert -30.01 <= min(turns) < -27
    assert 27 < max(turns) <= 30.01


def test_paste_never_covers_more_of_the_target_than_allowed():
    near = np.random.default_rng(0).uniform(90, 100, (17, 2))  # all close together
    for seed in range(100):
        before = view([near])
        found = instance(covered=0.5).random_map(before, np.random.default_rng(seed))
        hidden = np.mean(found.labels.visibility[0] == OCCLUDED)
        assert hidden <= 0.55  # the soft edge is half a pixel off the mask
    # Nowhere else to go: covering nobody means that nobody is pasted.
    big = person((250, 190))
    everywhere = view([spread(2, 190)])
    never = instance(people=(big,), covered=0.0, scale=(1.2, 1.2))
    found = never.random_map(everywhere, np.random.default_rng(0))
    np.testing.assert_array_equal(found.labels.visibility, VISIBLE)


def test_nobody_is_pasted_where_they_could_not_be_labelled():
    full = view([spread(), spread()], cropped=False)
    found = instance().random_map(full, np.random.default_rng(0))
    assert not changed(found).any()
    alone = view([spread()])  # a crop whose labels are of its person only
    assert changed(instance().random_map(alone, np.random.default_rng(0))).any()


def test_edge_of_a_pasted_person_is_soft_and_nothing_else_changes():
    before = view([spread()], max_persons=2)
    found = instance(rotate=0.0).random_map(before, np.random.default_rng(1))
    image = found.inputs.image[..., 0].astype(int)
    x, y = np.rint(found.labels.joints[1, 5]).astype(int)
    row = image[y]
    soft = np.flatnonzero((row > 100) & (row < 255))
    assert 2 <= len(soft) <= 6  # a pixel or two on either side
    assert set(np.unique(row)) - set(row[soft]) == {100, 255}


@pytest.mark.parametrize("cropped", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_patches_keep_a_clean_twin_and_mark_what_they_hide(seed, cropped):
    rng = np.random.default_rng(100 + seed)
    seen = rng.integers(0, 3, (2, 17))
    before = view([spread(), spread() + 3], seen, max_persons=3, cropped=cropped)
    noise = rng.integers(0, 256, (*SIZE, 3), np.uint8)
    before.inputs.image[:] = noise
    found = occlude.PastePatches().random_map(before, rng)
    np.testing.assert_array_equal(found.inputs.clean, noise)
    np.testing.assert_array_equal(found.labels.clean_visibility[:2], seen)
    consistent(before, found)
    different = np.any(found.inputs.image != noise, axis=-1)
    at = np.rint(found.labels.joints[:2]).astype(int)
    touched = different[at[..., 1], at[..., 0]]
    lost = found.labels.visibility[:2] != seen
    # Noise under a patch may by chance stay what it was, but hardly twice.
    assert not np.any(lost & ~touched)
    kept = (seen == VISIBLE) & ~lost
    assert not np.any(kept & touched)


def test_patches_are_copies_of_the_view_of_the_asked_size():
    """Rows and columns numbered by colour tell where each pixel comes from."""
    rows, columns = np.indices(SIZE)
    image = np.stack([rows, columns, np.full(SIZE, 50)], axis=-1).astype(np.uint8)
    joints = spread()
    sides, offsets = [], []
    for seed in range(200):
        before = view([joints])
        before.inputs.image[:] = image
        one = occlude.PastePatches(patches=(1, 1))
        found = one.random_map(before, np.random.default_rng(seed)).inputs.image
        moved = np.any(found != image, axis=-1)
        if not moved.any():
            continue  # hardly more than the seam, or out of view
        ys, xs = np.nonzero(moved)
        inner = np.s_[ys.min() + 1 : ys.max(), xs.min() + 1 : xs.max()]
        shift = found[inner].astype(int) - image[inner]
        assert np.ptp(shift.reshape(-1, 3), axis=0).max() == 0  # one piece, moved
        sides.append(np.sqrt((np.ptp(ys) + 1) * (np.ptp(xs) + 1)))
        offsets.append(np.hypot(*shift[0, 0, :2]))
    assert len(sides) > 150
    assert max(sides) <= 0.25 * 256 + 2
    assert np.percentile(sides, 10) > 0.06 * 256 - 4
    assert min(offsets) >= 1


def test_moves_hide_and_confuse_as_named():
    joints = spread()
    joints[:, 1] = np.linspace(60, 190, 17)

    def run(moves, seed):
        before = view([joints])
        before.inputs.image[:] = np.random.default_rng(1).integers(
            0, 256, (*SIZE, 3), np.uint8
        )
        one = occlude.PastePatches(patches=(1, 1), moves=moves)
        return one.random_map(before, np.random.default_rng(seed))

    for moves, least in (((1, 0, 0), 0.8), ((0, 1, 0), 0.8)):
        hit = [np.any(run(moves, s).labels.visibility == OCCLUDED) for s in range(60)]
        assert np.mean(hit) > least
    # A second copy lies aside: far fewer joints are covered than by hiding.
    hidden = [
        np.sum([run(m, s).labels.visibility == OCCLUDED for s in range(60)])
        for m in ((1, 0, 0), (0, 0, 1))
    ]
    assert hidden[1] < 0.7 * hidden[0]


def test_views_without_a_joint_in_sight_stay_as_they_are():
    away = np.full((1, 17, 2), 900.0)
    for kind in (occlude.MaskJoints(1.0), instance(), occlude.PastePatches()):
        for cropped in (True, False):
            before = view(away, cropped=cropped, max_persons=2)
            found = kind.random_map(before, np.random.default_rng(0))
            assert not changed(found).any()
            assert found.labels.visibility[0].all()
    assert found.inputs.clean is not None  # or batches could not be stacked


def test_cover_by_hand():
    joints = np.zeros((1, 17, 2))
    seen = np.zeros((1, 17), np.uint8)
    joints[0, :4] = [(10, 10), (11.4, 10), (11.6, 10), (9, 12)]
    seen[0, :4] = (VISIBLE, VISIBLE, VISIBLE, OCCLUDED)
    alpha = np.uint8([[255, 255], [127, 128]])
    patch = np.full((2, 2, 3), 200, np.uint8)
    found = occlude.cover(view(joints, seen), patch, alpha, (10, 10))
    np.testing.assert_array_equal(
        found.inputs.image[10:12, 10:12, 0], [[200, 200], [150, 150]]
    )
    np.testing.assert_array_equal(found.labels.visibility[0, :4], [1, 1, 2, 1])
    again = view(joints, seen)
    again.labels.joints[0, :4] = [(10, 11), (11, 11), (0, 0), (-3, -3)]
    found = occlude.cover(again, patch, alpha, (10, 10))
    np.testing.assert_array_equal(found.labels.visibility[0, :4], [2, 1, 2, 1])
    outside = occlude.cover(view(joints, seen), patch, alpha, (-2, 300))
    assert not changed(outside).any()
    corner = occlude.cover(view(joints, seen), patch, alpha, (-1, -1))
    assert np.argwhere(changed(corner)).tolist() == [[0, 0]]


def test_unlabelled_joints_stay_unlabelled_whatever_covers_them():
    seen = np.full((1, 17), UNLABELLED, np.uint8)
    seen[0, 8] = VISIBLE
    for kind in (occlude.MaskJoints(1.0), instance(), occlude.PastePatches()):
        for seed in range(10):
            before = view([spread()], seen, max_persons=2)
            found = kind.random_map(before, np.random.default_rng(seed))
            np.testing.assert_array_equal(found.labels.visibility[0] > 0, seen[0] > 0)


def test_build_reads_a_config_in_its_order():
    chain = occlude.build(
        (
            {"name": "paste_patches", "patches": (2, 2)},
            {"name": "mask_joints", "joints": 4},
            {"name": "paste_instance"},
        ),
        COCO,
    )
    assert chain[0] == occlude.PastePatches(patches=(2, 2))
    assert chain[1] == occlude.MaskJoints(joints=4)
    assert isinstance(chain[2], occlude.PasteInstance)
    with pytest.raises(UserError, match="occlusion: expected a name of mask_joints"):
        occlude.build(({"probability": 1.0},), COCO)


def test_target_of_a_whole_image_is_as_in_a_crop_of_it():
    """A person whose box is 3:4 gets the height of the crop that is made of it."""
    box = (60.0, 80.0, 90.0, 120.0)
    joints = np.column_stack([np.linspace(70, 140, 17), np.linspace(90, 190, 17)])
    image = np.zeros((300, 300, 3), np.uint8)
    record = scenes.record(
        image, np.column_stack([joints, np.full(17, 2)])[None], bbox=np.float32([box])
    )
    cut = {**record, "row": 0, "box": np.array(box), "box_score": 1.0}
    small = crop.TestCrop(SIZE, COCO, max_persons=1).map(cut)
    matrix = warp.window_matrix((150, 150), 300.0, 0.0, 300, 300)
    whole = augment.TrainView(300, 3, COCO).view(augment.Placed(record, matrix, False))
    rng = np.random.default_rng(0)
    a, b = occlude.find_target(small, rng), occlude.find_target(whole, rng)
    assert a is not None
    assert b is not None
    factor = 256 / (1.25 * 120)  # of the crop
    assert a.height == 256
    assert b.height == pytest.approx(a.height / factor, rel=1e-4)
    assert b.diagonal == pytest.approx(a.diagonal / factor, rel=1e-4)
    assert np.all(b.low >= 0)
    np.testing.assert_allclose((b.high - b.low)[1] / b.height, 1, atol=1e-3)


def test_background_that_hides_comes_from_away_of_every_joint():
    rows, columns = np.indices(SIZE)
    image = np.stack([rows, columns, np.full(SIZE, 50)], axis=-1).astype(np.uint8)
    joints = np.random.default_rng(0).uniform((20, 20), (90, 236), (17, 2))
    one = occlude.PastePatches(patches=(1, 1), moves=(1, 0, 0), size=(0.1, 0.1))
    least = []
    for seed in range(100):
        before = view([joints])
        before.inputs.image[:] = image
        found = one.random_map(before, np.random.default_rng(seed)).inputs.image
        ys, xs = np.nonzero(np.any(found != image, axis=-1))
        # Without the seam, as what was half blended is no address.
        piece = found[ys.min() + 1 : ys.max(), xs.min() + 1 : xs.max()]
        middle = piece[..., 1::-1].reshape(-1, 2).astype(float).mean(axis=0)
        least.append(np.hypot(*(joints - middle).T).min())
    assert min(least) >= 0.1 * 256 - 2  # patches at the border lose a part
