import collections
import gzip
import json

import numpy as np
import pytest

from occjax.data.records import crowd_index


def test_crowd_index_counts_joints_of_others_in_the_own_box():
    joints = np.zeros((2, 4, 3))
    joints[0] = [(1, 1, 2), (2, 2, 1), (3, 3, 2), (4, 4, 0)]  # three labelled
    joints[1] = [(2, 1, 2), (9, 9, 2), (8, 8, 2), (9, 8, 1)]  # one in the first's box
    boxes = np.array([(0, 0, 5, 5), (2, 1, 7, 8)], float)
    # First: 1 of others, 3 own. Second: (2, 2) and (3, 3) of others, 4 own.
    assert crowd_index(joints, boxes) == pytest.approx((1 / 3 + 2 / 4) / 2)


def test_crowd_index_of_nobody_is_zero():
    assert crowd_index(np.zeros((0, 14, 3)), np.zeros((0, 4))) == 0.0


def test_crowd_index_is_the_one_that_crowdpose_stores(photographs):
    """On images of its own; those from COCO were labelled anew after the index."""
    folder = photographs / "crowdpose" / "annotations"
    content = json.loads(gzip.open(folder / "crowdpose_val_1.json.gz").read())
    from_coco = json.loads((folder / "crowdpose_val_to_coco_1.json").read_text())
    people = collections.defaultdict(list)
    for annotation in content["annotations"]:
        people[annotation["image_id"]].append(annotation)
    hits = []
    for image in content["images"]:
        mine = people[image["id"]]
        # Ids from 109051 on are the source without COCO's labels (spec of OPEC-Net).
        if image["id"] < 109051 or str(image["id"]) in from_coco:
            continue
        if all(annotation["num_keypoints"] > 0 for annotation in mine):
            joints = np.reshape([a["keypoints"] for a in mine], (-1, 14, 3))
            index = crowd_index(joints, np.array([a["bbox"] for a in mine]))
            hits.append(np.round(index, 2) == image["crowdIndex"])
    assert len(hits) == 820
    assert sum(hits) >= 819
