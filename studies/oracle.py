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

BATCH = 4  # images at a time

# Why targets or decoding cannot tell of a person, the first that applies.
REASONS = (
    "no labelled joint in any part",
    "box below the size limit",
    "a joint off the map, upright or mirrored",
    "pose alike another person's",
    "every peak shared with another person",
    "a part centre shared with another person",
)


class Reading(NamedTuple):
    """What the maps of a batch were read as."""

    poses: Poses
    lost: Array  # [B, P, reasons] bool, of each labelled person


class Fate(NamedTuple):
    """What became of a person that counts."""

    image_id: int
    reason: str  # one of REASONS; "" if the targets hold the whole person
    distance: float  # farthest joint of the best pose from its label, source pixels


class Result(NamedTuple):
    """How well the labels of a dataset survive."""

    images: int
    fates: list[Fate]
    everyone: dict[str, float]  # metrics over all persons
    whole: dict[str, float]  # metrics with the persons of REASONS ignored
    detections: int  # most in one image; the protocol reads 20


def run(
    model: pinet.Model, source: sources.Source, size: int, *, complete: bool = True
) -> Result:
    """Reads the labels of a dataset as `model` would read its maps.

    Args:
        model: of the source's skeleton; backbone and refinement play no part.
        source: photographs with labels.
        size: short side of the input, pixels.
        complete: see `read`.
    """
    data = {"size": size, "threads": 0, "max_persons": source.max_persons}
    step = jax.jit(functools.partial(read, model, complete=complete))
    found, lost = [], {}
    for views in pipeline.test_batches(source, data, BATCH, labels=True):
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
    known = jnp.any(people.labelled, axis=-1)
    joints = _completed(people).joints
    area = grouping.extent_area(joints)
    oks = grouping.oks_matrix(joints, model.skeleton.sigmas, area)
    others = known[:, None] & ~jnp.eye(known.shape[1], dtype=bool)[None]
    on_map = heatmap.inside(people.joints, size)
    lost = (
        ~jnp.any(any_size.present, axis=2),
        ~jnp.any(people.present, axis=2),
        jnp.any(people.labelled & ~on_map, axis=2),
        jnp.any((oks > model.nms) & others, axis=2),
        ~_has_own_peak(model, people, part_maps),
        _shares_a_centre(model, people, size),
    )
    lost = jnp.stack(lost, axis=-1) & known[..., None]
    return jnp.any(lost.reshape(-1, views, *lost.shape[1:]), axis=1)


def _has_own_peak(
    model: pinet.Model, people: heatmap.People, part_maps: Array
) -> Array:
    """Whether a peak gives all labelled joints of a person: [B O, P] bool.

    People who stand close share pixels, which regress the smaller or later of them.
    """
    _, views, height, width, _ = part_maps.shape
    order = _part_order(model)
    pixels, score = grouping.peaks(flip_test.average(part_maps, order), model.peaks)
    at = pixels[:, None]
    if views == 2:
        at = flip_test.pixels_in_each(pixels, order, width)
    own = _owned(model, people, at.reshape(-1, *at.shape[2:]), (height, width))
    real = jnp.repeat(score > model.threshold, views, axis=0)
    return jnp.any(own & real[..., None], axis=(1, 2))


def _shares_a_centre(
    model: pinet.Model, people: heatmap.People, size: tuple[int, int]
) -> Array:
    """Whether another person owns joints at the pixel of a part centre: [B O, P]."""
    last = jnp.asarray((size[1] - 1, size[0] - 1)).reshape(1, 1, 1, 2)
    at = jnp.clip(jnp.round(people.centres).astype(jnp.int32), 0, last)
    own = _owned(model, people, jnp.moveaxis(at, 1, 2), size)  # [B O, K, P, P]
    own = jnp.diagonal(own, axis1=2, axis2=3)  # each person at the own centre
    return jnp.any(people.present & ~jnp.moveaxis(own, 1, 2), axis=2)


def _owned(
    model: pinet.Model, people: heatmap.People, pixels: Array, size: tuple[int, int]
) -> Array:
    """Whether pixels [B, K, Q, 2] regress all labelled joints of P: [B, K, Q, P]."""
    owner = heatmap.offset_targets(people, pixels, size, model.offset_radius).owner
    person = jnp.arange(people.joints.shape[1]).reshape(1, 1, 1, -1, 1)
    asked = (people.labelled & heatmap.inside(people.joints, size))[:, None, None]
    return jnp.all((owner[:, :, :, None] == person) | ~asked, axis=-1)


def _result(source: sources.Source, found: list[dict], lost: dict) -> Result:
    """Scores detections with and without the persons of REASONS."""
    truth = coco.ground_truth(source)
    reasons = _reasons(source, lost)
    distances = _distances(truth, found)
    people = list(zip(truth["annotations"], reasons, distances, strict=True))
    whole = [
        person | ({"num_keypoints": 0} if reason else {})  # the protocol ignores those
        for person, reason, _ in people
    ]
    return Result(
        images=len(source),
        fates=[
            Fate(person["image_id"], reason, distance)
            for person, reason, distance in people
            if person["num_keypoints"] and not person["iscrowd"]
        ],
        everyone=coco.evaluate(truth, found, source.skeleton),
        whole=coco.evaluate(truth | {"annotations": whole}, found, source.skeleton),
        detections=max(collections.Counter(x["image_id"] for x in found).values()),
    )


def _reasons(source: sources.Source, lost: dict[int, np.ndarray]) -> list[str]:
    """Why each annotated person is lost; "" for the others."""
    reasons = []
    for index in range(len(source)):
        record = source[index]
        rows = iter(lost[int(record["image_id"])])
        for is_labelled in records.trained_on(record["persons"], source.skeleton):
            row = next(rows) if is_labelled else np.zeros(len(REASONS), bool)
            reasons.append(REASONS[row.argmax()] if row.any() else "")
    return reasons


def _distances(truth: dict, found: list[dict]) -> list[float]:
    """How far the best pose is from each annotated person, by its farthest joint."""
    poses = collections.defaultdict(list)
    for item in found:
        poses[item["image_id"]].append(np.reshape(item["keypoints"], (-1, 3))[:, :2])
    farthest = []
    for person in truth["annotations"]:
        joints = np.reshape(person["keypoints"], (-1, 3))
        seen = joints[:, 2] > 0
        away = [
            np.linalg.norm(pose[seen] - joints[seen, :2], axis=-1).max(initial=0)
            for pose in poses[person["image_id"]]
        ]
        farthest.append(float(min(away, default=np.inf)))
    return farthest
