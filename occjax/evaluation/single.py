"""PCK of files: people whose place in the image is known, and a pose for each.

A file is .npz, .mat or .json (an object of arrays, or for poses the array alone). N
people, J joints in the dataset's order.

People: `joints` [N, J, 3], x, y in pixels and visibility 0 (no label), 1 (occluded), 2
(visible); MPII's besides `head` [N], pixels, the diagonal of the head box, 0 unknown.
Or gt_valid.mat of HRNet and its kin: `pos_gt_src`, `jnt_missing`, `headboxes_src`; it
does not tell occluded joints from visible ones. Or joints.mat of Leeds Sports Pose,
[3, 14, N], whose third row marks occluded joints.

Poses: `preds`, or `preds_xy` or `joints`, [N, J, 2 or more].
"""

import hashlib
import io
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from occjax.errors import UserError
from occjax.evaluation import checks, pck
from occjax.evaluation.screen import percent
from occjax.types import OCCLUDED, UNLABELLED, VISIBLE

_POSES = ("preds", "preds_xy", "joints")


class People(NamedTuple):
    """Labels of single people."""

    joints: np.ndarray  # [N, J, 3]
    unit: np.ndarray  # [N] pixels; 0 where a person cannot be judged


def score(
    protocol: pck.Protocol, annotations: str, predictions: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures of `pck.evaluate`, and facts for their stamp.

    Raises:
        UserError: a file cannot be read, or the two do not fit together.
    """
    people = read_people(protocol, annotations)
    count, joints = people.joints.shape[:2]
    found = _poses(predictions)
    if found.ndim != 3 or found.shape[:2] != (count, joints) or found.shape[2] < 2:
        raise UserError(
            f"{predictions}: expected poses [{count}, {joints}, 2] for the people of "
            f"{annotations}, got {list(found.shape)}."
        )
    _check_finite(found[..., :2], predictions)
    figures = pck.evaluate(
        protocol,
        people.joints[..., :2],
        people.joints[..., 2],
        found[..., :2],
        people.unit,
    )
    labels = np.ascontiguousarray(people.joints).tobytes() + people.unit.tobytes()
    facts = {
        "ground_truth_sha256": hashlib.sha256(labels).hexdigest(),
        "persons": count,
        "annotations": epath.Path(annotations).name,
        "detections": epath.Path(predictions).name,
    }
    return figures, facts


def read_people(protocol: pck.Protocol, path: str) -> People:
    """Labels and units of the people of a file.

    Raises:
        UserError: the file cannot be read or lacks something.
    """
    content = _arrays(path)
    if "pos_gt_src" in content:
        content = _from_hrnet(content, path)
    joints = _array(content, ("joints",), path)
    if joints.ndim == 3 and joints.shape[:2] == (3, protocol.skeleton.num_joints):
        joints = joints.transpose(2, 1, 0).copy()
        joints[..., 2] = np.where(joints[..., 2] > 0, OCCLUDED, VISIBLE)
    expected = (protocol.skeleton.num_joints, 3)
    if joints.ndim != 3 or joints.shape[1:] != expected:
        raise UserError(
            f"{path}: expected joints [N, {expected[0]}, 3] of {protocol.name}, got "
            f"{list(joints.shape)}."
        )
    if not np.isin(joints[..., 2], (UNLABELLED, OCCLUDED, VISIBLE)).all():
        raise UserError(f"{path}: expected visibility 0, 1 or 2 as joints' third.")
    joints = np.where(joints[..., 2:] > UNLABELLED, joints, 0.0)
    _check_finite(joints, path)
    diagonal = np.zeros(len(joints))
    if protocol.measure == "PCKh":
        diagonal = _array(content, ("head",), path)
        if diagonal.shape != (len(joints),) or not np.all(diagonal >= 0):
            raise UserError(
                f"{path}: expected head [{len(joints)}], diagonals of head boxes of 0 "
                f"or more pixels, got {list(diagonal.shape)}."
            )
    return People(joints, protocol.unit_of(joints, diagonal))


def _from_hrnet(content: dict[str, Any], path: str) -> dict[str, Any]:
    """`joints` and `head` of what HRNet's code evaluates with; numbers as they are."""
    names = ("pos_gt_src", "jnt_missing", "headboxes_src")
    places, missing, boxes = (_array(content, (name,), path) for name in names)
    try:
        marks = np.where(missing.T > 0, UNLABELLED, VISIBLE)[..., None]
        joints = np.concatenate([places.transpose(2, 0, 1), marks], axis=-1)
        head = np.linalg.norm(boxes[1] - boxes[0], axis=0)
    except (ValueError, IndexError) as error:
        raise UserError(
            f"{path}: expected pos_gt_src [16, 2, N], jnt_missing [16, N] and "
            "headboxes_src [2, 2, N]."
        ) from error
    return {"joints": joints, "head": head}


def _poses(path: str) -> np.ndarray:
    content = _arrays(path)
    return _array(content, _POSES, path)


def _array(content: dict[str, Any], names: tuple[str, ...], path: str) -> np.ndarray:
    """The first array of these names."""
    for name in names:
        if name in content:
            try:
                return np.asarray(content[name], float)
            except (TypeError, ValueError) as error:
                raise UserError(f"{path}: {name} is no array of numbers.") from error
    found = ", ".join(key for key in content if not key.startswith("__")) or "nothing"
    raise UserError(f"{path}: expected {' or '.join(names)}, found {found}.")


def _arrays(path: str) -> dict[str, Any]:
    """What a file holds, by name."""
    kind = epath.Path(path).suffix
    if kind not in (".npz", ".mat"):
        content = checks.read_json(path)
        if isinstance(content, list):
            return {"joints": content}
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected an array or an object of arrays.")
        return content
    try:
        content = io.BytesIO(epath.Path(path).read_bytes())
        if kind == ".npz":
            with np.load(content) as arrays:
                return dict(arrays)
        import scipy.io

        return scipy.io.loadmat(content)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read: {reason}.") from error
    except Exception as error:  # noqa: BLE001  damage makes NumPy, SciPy raise anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{path}: is no {kind} file: {reason[0]}.") from error


def _check_finite(values: np.ndarray, path: str) -> None:
    bad = ~np.isfinite(values).all(axis=(1, 2))
    if bad.any():
        raise UserError(
            f"{path}: person {int(np.argmax(bad))}: expected finite numbers."
        )


def table(figures: dict[str, Any]) -> str:
    """Shares in per cent: all labelled joints, the occluded and the visible ones."""
    names = ("head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "mean")
    lines = [f"{'joints':>10}{'count':>8}" + "".join(f"{n:>10}" for n in names)]
    rows = {"labelled": figures, **{n: figures[n] for n in ("occluded", "visible")}}
    for kind, row in rows.items():
        cells = "".join(f"{percent(row[name]):>10}" for name in names)
        lines.append(f"{kind:>10}{row['count']:>8}{cells}")
    return "\n".join(lines)
