"""The occlusion view: the same figures for every method and every dataset."""

from occjax.evaluation import (
    calibration,
    coco,
    corrections,
    curves,
    errors,
    joints,
    occlusion,
    oracle,
    worst,
)
from occjax.evaluation import pairs as pairing
from occjax.skeletons import Skeleton


def occlusion_view(
    truth: dict,
    found: list[dict],
    skeleton: Skeleton,
    matches: coco.Matches,
    names: tuple[str, str] = ("ground truth", "detections"),
    coco_analyze_compat: bool = False,
) -> dict:
    """All that is asked beside AP, as a plain dictionary.

    Args:
        truth: COCO ground truth; `area` and `num_keypoints` follow the protocol.
        found: COCO result list.
        skeleton: the joints of both.
        matches: of the two.
        names: what error messages call the two, such as their paths.
        coco_analyze_compat: see `corrections.progression`.

    Returns:
        `bins`: `box_iou` and `crowd_index` of images, `joint_count` and `crowding` of
        people (see `occlusion`); `joints` (`joints.accuracy`); `curves`
        (`curves.precision_recall`); `errors`: `types` (`errors.types`) and `steps`
        (`corrections.progression`); `calibration`: `score`, `visibility`, `labels` and
        `joints` (see `calibration`); `oracle` (`oracle.scores`); `worst`
        (`worst.images`).

    Raises:
        UserError: as `pairs.gather`.
    """
    pairs = pairing.gather(truth, found, skeleton, names)
    diagnosis = errors.diagnose(pairs)
    return {
        "bins": {
            "box_iou": occlusion.by_overlap(truth, matches),
            "crowd_index": occlusion.by_crowd_index(truth, matches),
            "joint_count": occlusion.by_joint_count(pairs),
            "crowding": occlusion.by_crowding(pairs),
        },
        "joints": joints.accuracy(pairs),
        "curves": curves.precision_recall(pairs),
        "errors": {
            "types": errors.types(pairs, diagnosis),
            "steps": corrections.progression(pairs, diagnosis, coco_analyze_compat),
        },
        "calibration": {
            "score": calibration.of_scores(pairs),
            "visibility": calibration.of_visibility(pairs),
            "labels": calibration.of_labels(pairs),
            "joints": calibration.of_joint_scores(pairs),
        },
        "oracle": oracle.scores(pairs),
        "worst": worst.images(pairs),
    }


def text(view: dict) -> str:
    """The view for the screen: a small table for each question, in per cent."""
    bins, score = view["bins"], view["calibration"]["score"]
    kinds, steps = view["errors"]["types"], view["errors"]["steps"]
    tables = {
        "AP by the largest box IoU in an image": occlusion.table(bins["box_iou"]),
        "AP by the crowd index of an image": occlusion.table(
            bins["crowd_index"], "crowded"
        ),
        "AP by a person's labelled joints": occlusion.table(
            bins["joint_count"], "joints"
        ),
        "AP by how many others overlap a person": occlusion.table(
            bins["crowding"], "others"
        ),
        "Occluded (Inv) and visible (V) joints found": joints.table(view["joints"]),
        "Kinds of error": errors.table(kinds),
        "AP with one kind of error corrected after the other": corrections.table(steps),
        "Scores and true OKS": calibration.table(score),
    }
    told = {
        "visibility": "Predicted and labelled visibility",
        "labels": "Predicted and given labels",
        "joints": "Scores of joints and their similarity with the truth",
    }
    for name, title in told.items():
        if view["calibration"][name]:
            tables[title] = calibration.table(view["calibration"][name])
    tables["AP if detections were scored otherwise"] = oracle.table(view["oracle"])
    return "\n\n".join(f"{title}\n{rows}" for title, rows in tables.items())
