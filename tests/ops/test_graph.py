"""The skeleton's normalised adjacency."""

import equivalence
import numpy as np
import pytest

from occjax.ops.graph import normalized_adjacency
from occjax.skeletons import COCO, CROWDPOSE


@pytest.mark.parametrize(
    ("folder", "model", "skeleton", "nonzero", "total"),
    [
        ("pinet_coco", "PINet (COCO)", COCO, 51, 16.810968),
        ("pinet_crowdpose", "PINet (CrowdPose)", CROWDPOSE, 44, 13.832777),
    ],
)
def test_adjacency_is_the_published_start(
    golden, folder, model, skeleton, nonzero, total
):
    got = normalized_adjacency(skeleton.bones, skeleton.num_joints)
    wanted = np.load(golden / folder / "pr.npz")["adj_official_init"]
    link = "forward: first adjacency"
    equivalence.check(model, link, got, wanted, 1e-7, "absolute")
    assert np.count_nonzero(got) == nonzero
    np.testing.assert_allclose(got.sum(), total, rtol=1e-7)


def test_repeated_bones_count_once_and_stray_joints_are_refused():
    once = normalized_adjacency(((0, 1),), 2)
    np.testing.assert_allclose(once, np.full((2, 2), 0.5))
    np.testing.assert_array_equal(normalized_adjacency(((0, 1), (1, 0)), 2), once)
    with pytest.raises(ValueError, match=r"0\.\.1, got \(0, 2\)"):
        normalized_adjacency(((0, 2),), 2)
