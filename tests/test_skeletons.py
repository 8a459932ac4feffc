import pytest

from occjax import skeletons

ALL = list(skeletons.BY_NAME.values())
NAMES = [skeleton.name for skeleton in ALL]


@pytest.mark.parametrize("skeleton", ALL, ids=NAMES)
def test_everything_has_one_entry_for_each_joint(skeleton):
    joints = set(range(skeleton.num_joints))
    assert len(set(skeleton.joints)) == skeleton.num_joints
    assert len(skeleton.sigmas) == skeleton.num_joints
    assert all(0 < sigma < 0.2 for sigma in skeleton.sigmas)
    assert set(sum(skeleton.parts["center"], ())) == joints
    for groups in skeleton.parts.values():
        assert set(sum(groups, ())) <= joints


@pytest.mark.parametrize("skeleton", ALL, ids=NAMES)
def test_mirroring_swaps_left_and_right_by_name(skeleton):
    def mirrored(name):
        side, _, rest = name.partition("_")
        other = {"left": "right", "right": "left"}
        return f"{other[side]}_{rest}" if side in other else name

    names = [skeleton.joints[joint] for joint in skeleton.flip]
    assert names == [mirrored(name) for name in skeleton.joints]
    # The same joint of either side weighs the same.
    assert [skeleton.sigmas[joint] for joint in skeleton.flip] == list(skeleton.sigmas)


@pytest.mark.parametrize("skeleton", ALL, ids=NAMES)
def test_bones_hold_the_limbs_together_on_one_side_at_a_time(skeleton):
    linked = {frozenset(bone) for bone in skeleton.bones}
    assert len(linked) == len(skeleton.bones)
    at = {name: index for index, name in enumerate(skeleton.joints)}
    chains = (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"))
    for upper, lower in (*chains, ("knee", "ankle")):
        for side in ("left", "right"):
            bone = (at[f"{side}_{upper}"], at[f"{side}_{lower}"])
            assert frozenset(bone) in linked
    # Mirroring the image leaves the graph as it is.
    flip = skeleton.flip
    assert {frozenset(flip[joint] for joint in bone) for bone in linked} == linked


def test_sigmas_of_a_joint_are_the_same_in_every_scheme_that_has_it():
    known: dict[str, float] = {}
    for skeleton in ALL:
        for name, sigma in zip(skeleton.joints, skeleton.sigmas, strict=True):
            assert known.setdefault(name, sigma) == sigma


def test_ocpose_is_found_in_the_order_of_the_files_of_others():
    """The indices that the spec of OPEC-Net lists (sections 7.1 and 7.3)."""
    order = {
        skeletons.MPII: [13, 12, 14, 11, 15, 10, 3, 2, 4, 1, 5, 0],
        skeletons.OCHUMAN: [3, 0, 4, 1, 5, 2, 9, 6, 10, 7, 11, 8],
        skeletons.COCO: list(range(5, 17)),
        skeletons.CROWDPOSE: list(range(12)),
    }
    for skeleton, expected in order.items():
        found = [skeleton.joints.index(name) for name in skeletons.OCPOSE.joints]
        assert found == expected
