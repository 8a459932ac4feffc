import itertools

import numpy as np
import pytest

from occjax import skeletons
from occjax.data import convert


def test_conversion_moves_joints_by_name_and_leaves_the_rest_unlabelled():
    joints = np.random.default_rng(0).uniform(1, 9, (5, 17, 3)).astype(np.float32)
    coco, wanted = skeletons.COCO.joints, skeletons.CROWDPOSE.joints
    result = convert.reorder(joints, coco, wanted)
    assert result.shape == (5, 14, 3)
    assert result.dtype == np.float32
    for index, name in enumerate(wanted):
        if name in ("head", "neck"):
            assert not result[:, index].any()
        else:
            np.testing.assert_array_equal(result[:, index], joints[:, coco.index(name)])
    back = convert.reorder(result, wanted, coco)
    np.testing.assert_array_equal(back[:, 5:], joints[:, 5:])
    assert not back[:, :5].any()


def test_conversion_refuses_joints_of_another_scheme():
    with pytest.raises(ValueError, match=r"\[\.\.\., 17, 3\]; got \(2, 14, 3\)"):
        convert.reorder(
            np.zeros((2, 14, 3)), skeletons.COCO.joints, skeletons.OCPOSE.joints
        )


def test_lsp_becomes_mpii_with_means_for_pelvis_and_thorax():
    lsp, mpii = skeletons.LSP.joints, skeletons.MPII.joints
    joints = np.random.default_rng(0).uniform(1, 9, (4, 14, 3))
    joints[..., 2] = 2
    joints[1, lsp.index("left_hip")] = (3, 4, 0)
    joints[2, lsp.index("left_hip"), 2] = 1
    result = convert.reorder(joints, lsp, mpii)
    hips = joints[:, [lsp.index("left_hip"), lsp.index("right_hip")], :2]
    pelvis = result[:, mpii.index("pelvis")]
    np.testing.assert_allclose(pelvis[[0, 2, 3], :2], hips.mean(axis=1)[[0, 2, 3]])
    np.testing.assert_array_equal(pelvis[1], 0)  # a missing hip gives no mean
    np.testing.assert_array_equal(pelvis[:, 2], [2, 0, 1, 2])
    for ours, theirs in (("upper_neck", "neck"), ("head_top", "head_top")):
        found = result[:, mpii.index(ours)]
        np.testing.assert_array_equal(found, joints[:, lsp.index(theirs)])
    np.testing.assert_array_equal(
        convert.reorder(result, mpii, lsp)[[0, 2, 3]], joints[[0, 2, 3]]
    )


@pytest.mark.parametrize(
    ("source", "target"), list(itertools.permutations(skeletons.BY_NAME.values(), 2))
)
def test_nothing_gets_a_label_without_a_counterpart(source, target):
    joints = np.full((1, source.num_joints, 3), 2.0)
    result = convert.reorder(joints, source.joints, target.joints)[0]
    known = [bool(places) for places in convert.mapping(source.joints, target.joints)]
    np.testing.assert_array_equal(result[:, 2] == 2, known)
    assert not result[~np.array(known)].any()
    shared = set(source.joints) & set(target.joints)
    assert {name for name in target.joints if name in shared} <= {
        name for name, there in zip(target.joints, known, strict=True) if there
    }
    assert sum(known) >= 12  # every scheme has the limbs
