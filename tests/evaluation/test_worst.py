import figures
import numpy as np

from occjax.evaluation import worst


def test_images_come_by_the_mean_best_oks_of_their_people():
    rng = np.random.default_rng(0)
    joints = figures.body(rng, hidden=0)
    far = joints + [1e5, 0, 0]
    people = [
        figures.person(1, 4, joints),  # found
        figures.person(2, 5, joints),  # one of two is found
        figures.person(3, 5, far),
        figures.person(4, 6, joints),  # nobody is found
        figures.person(5, 7, joints),  # the same, and nobody else counts
        figures.person(6, 7, far, iscrowd=1),
        figures.person(7, 8, joints, num_keypoints=0),  # nobody counts
    ]
    found = [figures.detection(image, joints) for image in (4, 5, 5, 8)]
    found += [figures.detection(6, joints + [1e6, 0, 0]), figures.detection(7, far)]
    pairs = figures.gathered((figures.truth_of(people), found))
    rows = worst.images(pairs)
    assert rows == [
        {"image": 6, "persons": 1, "OKS": 0.0},
        {"image": 7, "persons": 1, "OKS": 0.0},
        {"image": 5, "persons": 2, "OKS": 0.5},
        {"image": 4, "persons": 1, "OKS": 1.0},
    ]
    assert worst.images(pairs, 2) == rows[:2]


def test_where_nobody_is_there_is_no_worst_image():
    assert worst.images(figures.gathered((figures.truth_of([], [1]), []))) == []
