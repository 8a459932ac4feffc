"""How well invisible and visible joints are found (OPEC-Net, Table 5).

Its paper defines the figures by a sentence and no code was published; the rule here is
our reading. The twelve limb joints alone are judged, so that datasets compare. In the
order of the annotations, each person takes the free detection of highest OKS, 0.3 or
more. Inv75 is the share of occluded joints whose similarity is 0.75 or more, V90 that
of visible joints with 0.9 or more, and so on.
"""

import numpy as np

from occjax.evaluation import coco
from occjax.evaluation.pairs import Pairs
from occjax.evaluation.screen import percent
from occjax.skeletons import OCPOSE
from occjax.types import OCCLUDED, VISIBLE

TAKEN = 0.3  # least OKS at which a person takes a detection
LEVELS = {"75": 0.75, "90": 0.9}
FLAGLESS = 0.1  # share of images without a visible joint that casts doubt on the rest


def accuracy(pairs: Pairs) -> dict:
    """Inv and V by three ways to count.

    Returns:
        `matched`: joints of people with a detection; `all`: of everybody, where those
        of people without one are wrong; `usable`: as `matched`, in the images in
        which at least one joint is marked as visible. Each holds `people`,
        `occluded` and `visible` (how many joints), `Inv75`, `Inv90`, `V75`, `V90`, as
        fractions, -1 where there are no such joints. `flags` is from `flags`.
    """
    people, limbs = pairs.people, _limbs(pairs)
    visibility = people.joints[:, limbs, 2]
    judged = people.counts & (visibility > 0).any(axis=1)
    similarity = _similarity_taken(pairs, limbs, judged)
    matched = judged & ~np.isnan(similarity).any(axis=1)
    usable = usable_images(pairs)[people.image]
    chosen = {"matched": matched, "all": judged, "usable": matched & usable}
    return {
        name: _shares(np.nan_to_num(similarity[rows]), visibility[rows])
        for name, rows in chosen.items()
    } | {"flags": flags(pairs)}


def usable_images(pairs: Pairs) -> np.ndarray:
    """[N] bool, images in which at least one joint is marked as visible.

    CrowdPose marks every labelled joint of half of its images as occluded.
    """
    usable = np.zeros(len(pairs.images), bool)
    seen = (pairs.people.joints[..., 2] == VISIBLE).any(axis=1)
    usable[pairs.people.image[seen]] = True
    return usable


def flags(pairs: Pairs) -> dict:
    """Which ways to count the visibility flags of a dataset bear.

    Returns:
        `images`: with labelled joints; `usable`: those with a visible one; `supports`:
        names of the counts of `accuracy` that mean something. None if no joint is
        visible or none occluded; `usable` alone if more than a tenth of the images
        have no visible joint, as then nobody marked them there; else all three.
    """
    people = pairs.people
    images = len(np.unique(people.image[people.labelled.any(axis=1)]))
    usable = int(usable_images(pairs).sum())
    supports = ["matched", "all", "usable"]
    if images - usable > FLAGLESS * images:
        supports = ["usable"]
    if not usable or not np.any(people.joints[..., 2] == OCCLUDED):
        supports = []
    return {"images": images, "usable": usable, "supports": supports}


def _limbs(pairs: Pairs) -> np.ndarray:
    """Places of the limb joints in the skeleton."""
    names = pairs.skeleton.joints
    return np.array([at for at, name in enumerate(names) if name in OCPOSE.joints])


def _similarity_taken(
    pairs: Pairs, limbs: np.ndarray, judged: np.ndarray
) -> np.ndarray:
    """Similarity [G, limbs] to the detection that a person takes, NaN if none."""
    rows = np.flatnonzero(judged[pairs.person])
    person, detection = pairs.person[rows], pairs.detection[rows]
    similarity = pairs.similarity[rows][:, limbs]
    labelled = pairs.people.labelled[person][:, limbs]
    oks = np.sum(similarity, axis=1, where=labelled) / labelled.sum(axis=1)
    result = np.full((len(judged), len(limbs)), np.nan)
    free = np.ones(len(pairs.found.score), bool)
    slot = pairs.people.slot[person]
    # One turn for the first person of every image, one for the second, and so on.
    for turn in np.unique(slot):
        near = np.flatnonzero((slot == turn) & (oks >= TAKEN) & free[detection])
        near = near[np.lexsort((detection[near], -oks[near], person[near]))]
        taken = near[np.unique(person[near], return_index=True)[1]]
        result[person[taken]] = similarity[taken]
        free[detection[taken]] = False
    return result


def _shares(similarity: np.ndarray, visibility: np.ndarray) -> dict:
    occluded, visible = visibility == OCCLUDED, visibility == VISIBLE
    counts = {"occluded": int(occluded.sum()), "visible": int(visible.sum())}
    shares = {
        f"{kind}{name}": float(np.mean(similarity[chosen] >= level))
        if chosen.any()
        else coco.UNDEFINED
        for kind, chosen in (("Inv", occluded), ("V", visible))
        for name, level in LEVELS.items()
    }
    return {"people": len(visibility)} | counts | shares


def table(accuracy: dict) -> str:
    """Inv and V in per cent for the screen; brackets where the flags do not bear it."""
    names = ("Inv75", "Inv90", "V75", "V90")
    lines = [f"{'joints of':>12}{'people':>8}" + "".join(f"{n:>9}" for n in names)]
    for kind in ("matched", "all", "usable"):
        row = accuracy[kind]
        cells = [percent(row[name]) for name in names]
        if kind not in accuracy["flags"]["supports"]:
            cells = [f"({cell})" for cell in cells]
        cells = "".join(f"{cell:>9}" for cell in cells)
        lines.append(f"{kind:>12}{row['people']:>8}{cells}")
    return "\n".join(lines)
