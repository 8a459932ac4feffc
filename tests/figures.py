"""Small COCO ground truth and detections for the tests of the occlusion view."""

import numpy as np

from occjax.evaluation import pairs
from occjax.skeletons import COCO


def person(number, image, joints, **more):
    """An annotation of joints [J, 3] with the box and the area of 100 x 100 pixels."""
    joints = np.asarray(joints, float)
    return {
        **{"id": number, "image_id": image, "category_id": 1, "iscrowd": 0},
        **{"num_keypoints": int((joints[:, 2] > 0).sum()), "area": 1e4},
        "bbox": [*joints[:, :2].min(axis=0).tolist(), 100, 100],
        "keypoints": joints.reshape(-1).tolist(),
    } | more


def detection(image, joints, score=0.5, **more):
    """A result of joints [J, 2 or 3]; a third column is left out."""
    joints = np.asarray(joints, float)[:, :2]
    points = np.pad(joints, ((0, 0), (0, 1)), constant_values=1.0)
    item = {"image_id": image, "category_id": 1, "score": float(score)}
    return item | {"keypoints": points.reshape(-1).tolist()} | more


def truth_of(annotations, images=None):
    """Ground truth of some annotations, and of images without any."""
    ids = {item["image_id"] for item in annotations} | set(images or ())
    return {
        "images": [{"id": image} for image in sorted(ids)],
        "categories": [{"id": 1}],
        "annotations": annotations,
    }


def body(rng, skeleton=COCO, at=(0, 0), hidden=0.3):
    """Joints [J, 3] of somebody within 100 pixels of a place, some without a label."""
    count = skeleton.num_joints
    joints = np.concatenate(
        [rng.uniform(0, 100, (count, 2)) + at, rng.integers(1, 3, (count, 1))], axis=1
    )
    joints[rng.random(count) < hidden, 2] = 0
    joints[0, 2] = 2
    return joints


def moved(rng, joints, noise):
    """Joints [J, 2] with noise in pixels."""
    return joints[:, :2] + rng.normal(0, noise, joints[:, :2].shape)


def crowded(rng, skeleton=COCO, images=12, most=4, detections=6):
    """Overlapping people, some ignored, and detections of every kind, some equal."""
    people, found = [], []
    for image in range(1, images + 1):
        bodies = [
            body(rng, skeleton, rng.uniform(0, 40, 2))
            for _ in range(rng.integers(0, most + 1))
        ]
        for joints in bodies:
            more = {"area": float(rng.choice([500.0, 5000.0, 20000.0]))}
            kind = rng.random()
            if kind < 0.1:
                more |= {"iscrowd": 1}
            elif kind < 0.2:
                more |= {"num_keypoints": 0}
            elif kind < 0.3:
                joints[:, 2] = 0
            people.append(person(len(people) + 1, image, joints, **more))
        for _ in range(rng.integers(0, detections + 1)):
            joints = bodies[rng.integers(len(bodies))] if bodies else body(rng)
            if rng.random() < 0.2 or len(joints) != skeleton.num_joints:
                joints = body(rng, skeleton, rng.uniform(0, 500, 2))
            if rng.random() < 0.2:
                joints = joints[list(skeleton.flip)]
            places = moved(rng, joints, rng.choice([1, 5, 20]))
            found.append(detection(image, places, round(rng.random(), 1)))
    return truth_of(people, range(1, images + 1)), found


def apart(rng, skeleton=COCO, images=6):
    """People far from one another, each detected at most once, and false detections."""
    people, found = [], []
    for image in range(1, images + 1):
        for place in range(rng.integers(1, 4)):
            joints = body(rng, skeleton, (5000 * place, 0), hidden=0.2)
            people.append(person(len(people) + 1, image, joints))
            if rng.random() < 0.8:
                places = moved(rng, joints, rng.choice([1, 5, 15]))
                lost = rng.random(len(places)) < 0.3
                places[lost] = places[list(skeleton.flip)][lost]
                found.append(detection(image, places, rng.random()))
        for place in range(rng.integers(0, 3)):
            joints = body(rng, skeleton, (5000 * place, 90000))
            found.append(detection(image, joints, rng.random()))
    return truth_of(people), found


def gathered(scene, skeleton=COCO):
    """Pairs of a scene (ground truth, detections)."""
    return pairs.gather(*scene, skeleton)
