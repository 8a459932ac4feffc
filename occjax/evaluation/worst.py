"""The images in which people are found worst."""

import numpy as np

from occjax.evaluation.pairs import Pairs

SHOWN = 12


def images(pairs: Pairs, most: int = SHOWN) -> list[dict]:
    """The images with the lowest mean best OKS, worst first.

    Each person that counts has the highest OKS of the image's detections with it, 0 if
    there is none, and the image the mean of these. False detections do not matter.

    Returns:
        For each image that has somebody to be found: its id `image`, how many such
        `persons` and the mean `OKS`; of equal ones the lower id first.
    """
    people = pairs.people
    best = np.zeros(len(people.area))  # [G]
    np.maximum.at(best, pairs.person, pairs.oks)
    wanted = np.bincount(people.image[people.counts], minlength=len(pairs.images))
    total = np.bincount(
        people.image[people.counts], best[people.counts], len(pairs.images)
    )
    rows = np.flatnonzero(wanted)
    mean = total[rows] / wanted[rows]
    order = np.argsort(mean, kind="stable")[:most]
    return [
        {
            "image": int(pairs.images[rows[at]]),
            "persons": int(wanted[rows[at]]),
            "OKS": float(mean[at]),
        }
        for at in order
    ]
