"""PINet with maps made from the labels: what labels, warps and decoding lose by design.

The targets that the loss compares with are put in place of the network's maps and read
as in a test: peaks, gathered offsets, grouping, fusion, back to source pixels. Labels
say nothing about joints without a label, where a network is free to say anything. Here
all parts of a person say the same: such a joint is in the middle of the labelled ones.
"""

import collections
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from occjax.data import pipeline, records, sources
from occjax.evaluation import coco
from occjax.methods import pinet
from occjax.ops import flip_test, grouping, heatmap
from occjax.ops.part_poses import Maps, candidates
from occjax.types import Array, Batch, Labels, Poses

# Why the targets cannot tell of a person, the first that applies.
REASONS = (
    "no labelled joint in any part",
    "box below the size limit",
    "every part centre off the input",
    "every peak shared with another person",
    "pose alike another person's",
)


class Reading(NamedTuple):
    """What the maps of a batch were read as."""

    poses: Poses
    lost: Array  # [B, P, reasons] bool, of each labelled person


class Result(NamedTuple):
    """How well the labels of a dataset survive."""

    images: int
    persons: int  # that count: labelled, no crowd region
    lost: dict[str, int]  # persons of each reason
    everyone: dict[str, float]  # metrics over all persons
    others: dict[str, float]  # metrics with the lost persons ignored
    distance: np.ndarray  # [others] farthest joint from its label, source pixels
    detections: int  # most in one image; the protocol reads 20


def run(model: pinet.Model, source: sources.Source, size: int, batch: int = 4) -> Result:
    """Reads the labels of a dataset as `model` would read its maps.

    Args:
        model: of the source's skeleton; backbone and refinement play no part.
        source: photographs with labels.
        size: input's short side, pixels.
        batch: images at a time.
    """
    data = {"size": size, "threads": 0, "max_persons": source.max_persons}
    step = jax.jit(functools.partial(read, model))
    found, lost = [], {}
    for views in pipeline.test_batches(source, data, batch, labels=True):
        reading = jax.device_get(step(views))
        ids = np.asarray(views.image_id).tolist()
        found += coco.detections(reading.poses, ids, source.skeleton)
        lost |= dict(zip(ids, reading.lost, strict=True))
    return _result(source, found, lost)


def read(model: pinet.Model, batch: Batch, *, complete: bool = True) -> Reading:
    """Puts targets in place of maps and decodes them.

    Args:
        model: for its settings.
        batch: inputs and labels.
        complete: joints without a label as the module says; False leaves the zeros
            that the loss does not look at.
    """
    assert batch.labels is not None
    views = [batch.labels]
    if model.flip_test:
        views.append(mirrored(batch.labels, model))
    labels = jax.tree.map(lambda *x: jnp.stack(x, axis=1), *views)  # [B, O, ...]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), labels)
    maps = targets(model, flat, complete=complete)
    maps = Maps(*(x.reshape(-1, len(views), *x.shape[1:]) for x in maps))
    poses = candidates(
        maps,
        joint_order=model.skeleton.flip,
        part_order=_part_order(model),
        peaks=model.peaks,
        threshold=model.threshold,
    )
    upright = Maps(*(x[:, 0] for x in maps))
    outputs = pinet.Outputs(upright, candidates=(poses,))
    return Reading(
        poses=pinet.decode(model, outputs, batch.inputs),
        lost=_lost(model, flat, maps.parts),
    )


def mirrored(labels: Labels, model: pinet.Model) -> Labels:
    """The labels of the mirrored view of a flip test."""
    order = jnp.asarray(model.skeleton.flip)
    # the mirrored input is shifted so that map pixels mirror onto map pixels
    last = pinet.STRIDE * (labels.ignore.shape[2] - 1)
    joints = labels.joints.at[..., 0].set(last - labels.joints[..., 0])
    return labels._replace(
        joints=joints[:, :, order],
        visibility=labels.visibility[:, :, order],
        ignore=labels.ignore[:, :, ::-1],
    )


def targets(model: pinet.Model, labels: Labels, *, complete: bool) -> Maps:
    """The maps [B, h, w, ...] that would make the losses zero."""
    size = labels.ignore.shape[1:3]
    people = _people(model, labels)
    pixels, _ = heatmap.offset_windows(people, model.offset_radius)
    radius = model.offset_radius
    wanted = heatmap.offset_targets(people, pixels, size, radius)
    offset = wanted.offset
    if complete:
        free = heatmap.offset_targets(_completed(people), pixels, size, radius)
        offset = jnp.where((wanted.owner >= 0)[..., None], offset, free.offset)
    return Maps(
        heatmap=heatmap.gaussians(people.joints, people.labelled, size, model.sigma),
        parts=heatmap.gaussians(people.centres, people.present, size, model.part_sigma),
        offset=_dense(offset, pixels, size),
    )


def _dense(offset: Array, pixels: Array, size: tuple[int, int]) -> Array:
    """Puts offsets [B, K, Q, J, 2] at their pixels [B, K, Q, 2] of maps, 0 elsewhere.

    A pixel that is named twice is given the same offset twice.
    """
    parts, joints = offset.shape[1], offset.shape[3]
    channel = jnp.arange(parts).reshape(parts, 1)
    empty = jnp.zeros((*size, parts, joints, 2), offset.dtype)
    # no index below 0, which would count from the end
    at = jnp.where(heatmap.inside(pixels, size)[..., None], pixels, max(size))

    def put(offset: Array, at: Array) -> Array:
        return empty.at[at[..., 1], at[..., 0], channel].set(offset, mode="drop")

    return jax.vmap(put)(offset, at)


def _people(model: pinet.Model, labels: Labels, small_area: float | None = None) -> Any:
    small_area = model.small_area if small_area is None else small_area
    parts = pinet.part_joints(model)
    return heatmap.people_on_map(labels, parts, pinet.STRIDE, small_area)


def _completed(people: heatmap.People) -> heatmap.People:
    """Joints without a label in the middle of the person's labelled ones."""
    everything = tuple(range(people.joints.shape[2]))
    middle, known = heatmap.part_centres(people.joints, people.labelled, (everything,))
    return people._replace(
        joints=jnp.where(people.labelled[..., None], people.joints, middle),
        labelled=jnp.broadcast_to(known, people.labelled.shape),
    )


def _part_order(model: pinet.Model) -> tuple[int, ...]:
    return flip_test.part_order(pinet.part_joints(model), model.skeleton.flip)


def _lost(model: pinet.Model, labels: Labels, part_maps: Array) -> Array:
    """Which REASONS apply to each person: [B, P, reasons] bool.

    Args:
        model: for its settings.
        labels: of all orientations, [B O, ...].
        part_maps: [B, O, h, w, K].
    """
    size, views = part_maps.shape[2:4], part_maps.shape[1]
    people, any_size = _people(model, labels), _people(model, labels, 0.0)
    centred = people.present & heatmap.inside(people.centres, size)
    whole = _whole(model, people, part_maps)
    oks = grouping.oks_matrix(_completed(people).joints, model.skeleton.sigmas)
    known = jnp.any(people.labelled, axis=-1)
    others = known[:, None] & ~jnp.eye(known.shape[1], dtype=bool)[None]
    alike = jnp.any((oks > model.nms) & others, axis=2)
    lost = (
        ~jnp.any(any_size.present, axis=2),
        ~jnp.any(people.present, axis=2),
        ~jnp.any(centred, axis=2),
        ~whole,
        alike,
    )
    lost = jnp.stack(lost, axis=-1) & known[..., None]
    return jnp.any(lost.reshape(-1, views, *lost.shape[1:]), axis=1)


def _whole(model: pinet.Model, people: heatmap.People, part_maps: Array) -> Array:
    """Whether a peak gives all labelled joints of a person: [B O, P] bool.

    People who stand close share pixels, which regress the smaller or later of them.
    """
    _, views, height, width, _ = part_maps.shape
    order, size = _part_order(model), (height, width)
    pixels, score = grouping.peaks(flip_test.average(part_maps, order), model.peaks)
    at = pixels[:, None]
    if views == 2:
        at = flip_test.pixels_in_each(pixels, order, width)
    at = at.reshape(-1, *at.shape[2:])  # [B O, K, n, 2]
    owner = heatmap.offset_targets(people, at, size, model.offset_radius).owner
    person = jnp.arange(people.joints.shape[1]).reshape(1, 1, 1, -1, 1)
    given = (owner[:, :, :, None] == person) | ~people.labelled[:, None, None]
    given = jnp.all(given, axis=-1)  # [B O, K, n, P]
    given = given & jnp.repeat(score > model.threshold, views, axis=0)[..., None]
    return jnp.any(given, axis=(1, 2))


def _result(source: sources.Source, found: list[dict], lost: dict) -> Result:
    """Scores detections with and without the lost persons."""
    truth = coco.ground_truth(source)
    reasons = _reasons(source, lost)
    kept = [
        person | ({"num_keypoints": 0} if reason else {})  # the protocol ignores those
        for person, reason in zip(truth["annotations"], reasons, strict=True)
    ]
    counts = collections.Counter(reasons)
    rest = truth | {"annotations": kept}
    return Result(
        images=len(source),
        persons=_count(truth),
        lost={reason: counts[reason] for reason in REASONS},
        everyone=coco.evaluate(truth, found, source.skeleton),
        others=coco.evaluate(rest, found, source.skeleton),
        distance=_distances(rest, found),
        detections=max(collections.Counter(x["image_id"] for x in found).values()),
    )


def _reasons(source: sources.Source, lost: dict[int, np.ndarray]) -> list[str]:
    """Why each person of the dataset is lost; "" for the others."""
    reasons = []
    for index in range(len(source)):
        record = source[index]
        rows = iter(lost[int(record["image_id"])])
        for is_labelled in records.trained_on(record["persons"], source.skeleton):
            row = next(rows) if is_labelled else np.zeros(len(REASONS), bool)
            reasons.append(REASONS[row.argmax()] if row.any() else "")
    return reasons


def _count(truth: dict) -> int:
    """How many persons count: labelled, no crowd region."""
    people = truth["annotations"]
    return sum(p["num_keypoints"] > 0 and not p["iscrowd"] for p in people)


def _distances(truth: dict, found: list[dict]) -> np.ndarray:
    """From the labels of each person that counts to the pose that fits best.

    Returns:
        [persons] distance of the farthest joint, source pixels; inf without a pose.
    """
    poses = collections.defaultdict(list)
    for item in found:
        poses[item["image_id"]].append(np.reshape(item["keypoints"], (-1, 3))[:, :2])
    farthest = []
    for person in truth["annotations"]:
        joints = np.reshape(person["keypoints"], (-1, 3))
        seen = joints[:, 2] > 0
        if person["num_keypoints"] and not person["iscrowd"]:
            near = [
                np.linalg.norm(pose[seen] - joints[seen, :2], axis=-1).max()
                for pose in poses[person["image_id"]]
            ]
            farthest.append(min(near, default=np.inf))
    return np.array(farthest)
