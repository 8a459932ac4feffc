"""What scoring costs at the size of COCO's validation set, beside pycocotools alone.

Each run is a fresh process that reads two json files and makes the table of AP, so its
time and its memory are those of a user's command.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from occjax import files
from occjax.skeletons import COCO

IMAGES, PERSONS, DETECTIONS = 5000, 6352, 20  # of val2017; detections an image

_COSTS = ("seconds", "cpu_seconds", "peak_bytes")

_OURS = """
from occjax.evaluation import checks, coco, protocols
protocol = protocols.BY_NAME["coco"]
names = tuple(sys.argv[1:3])
truth, found = (checks.read_json(name) for name in names)
truth, found, matches = protocol.match(truth, found, names, backend=sys.argv[3])
metrics = protocol.metrics(truth, matches)
ap = metrics["AP"]
print(coco.table(metrics))
"""
_ALONE = """
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
truth = COCO(sys.argv[1])
scorer = COCOeval(truth, truth.loadRes(sys.argv[2]), "keypoints")
scorer.evaluate()
scorer.accumulate()
scorer.summarize()
ap = scorer.stats[0]
"""
_MAKE = """
from occjax.evaluation import speed
speed.write_example(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
"""
_PEAK = """
import json, resource
used = resource.getrusage(resource.RUSAGE_SELF)
peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
cpu = used.ru_utime + used.ru_stime
print(json.dumps({"AP": float(ap), "peak_bytes": peak, "cpu_seconds": cpu}))
"""
KINDS = {
    "pycocotools alone": (_ALONE, ()),
    "occjax, pycocotools": (_OURS, ("pycocotools",)),
    "occjax, faster-coco-eval": (_OURS, ("faster-coco-eval",)),
}


def survey(trials: int, images: int = IMAGES, seed: int = 0) -> dict[str, Any]:
    """Time and memory of each of `KINDS` on the same files, made up from a seed.

    The kinds take turns, as the machine's other work changes with time.

    Args:
        trials: how often.
        images: how many, with people in proportion.
        seed: of the files.

    Returns:
        `images`, `persons`, `detections`, and for each of `kinds`, from the start of
        its process to the end: `seconds`, `cpu_seconds`, which other work on the
        machine disturbs less, `peak_bytes`, all medians; `AP`; `ratio`: these figures
        beside those of pycocotools alone.
    """
    persons = max(1, PERSONS * images // IMAGES)
    runs: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{name}.json" for name in ("truth", "found")]
        # In a process of its own: a process counts the peak of the one that started it
        # as its own, so that one had better stay small.
        _python(_MAKE, *paths, images, persons, seed)
        for _ in range(trials):
            for kind, (code, arguments) in KINDS.items():
                runs[kind].append(_timed(code + _PEAK, *paths, *arguments))
    figures = {kind: _summary(rows) for kind, rows in runs.items()}
    alone = figures["pycocotools alone"]
    for row in figures.values():
        row["ratio"] = {name: row[name] / alone[name] for name in _COSTS}
    sizes = {"images": images, "persons": persons, "detections": images * DETECTIONS}
    return {**sizes, "kinds": figures}


def write_example(
    truth: str, found: str, images: int, persons: int, seed: int = 0
) -> None:
    """Writes made-up ground truth and detections, `DETECTIONS` an image, as COCO json.

    Half of the images have people, as in val2017. Everybody is found with an error of
    his own; all other detections are false.
    """
    rng = np.random.default_rng(seed)
    crowded = max(1, images // 2)
    # At least one on each of the crowded images, as far as they go.
    where = np.concatenate([np.arange(crowded), rng.integers(0, crowded, persons)])
    where = where[:persons]
    size = rng.uniform(30, 400, (persons, 1, 1)) * [[[0.5, 1.0]]]  # [P, 1, 2]
    low = rng.uniform(0, 300, (persons, 1, 2))
    joints = np.round(low + size * rng.uniform(size=(persons, COCO.num_joints, 2)))
    noise = rng.normal(size=joints.shape) * size * rng.uniform(0, 0.1, (persons, 1, 1))
    flags = rng.choice(3, (persons, COCO.num_joints, 1), p=(0.3, 0.1, 0.6))
    people = np.concatenate([joints * (flags > 0), flags], axis=-1).astype(int)
    boxes = np.concatenate([low, np.broadcast_to(size, low.shape)], axis=-1)[:, 0]
    annotations = [
        {
            **{"id": i + 1, "image_id": int(where[i]) + 1, "category_id": 1},
            **{"iscrowd": 0, "num_keypoints": int(np.sum(people[i, :, 2] > 0))},
            **{"bbox": boxes[i].round(2).tolist()},
            **{"area": float(0.53 * boxes[i, 2] * boxes[i, 3])},
            "keypoints": people[i].reshape(-1).tolist(),
        }
        for i in range(persons)
    ]
    poses = rng.uniform(0, 600, (images, DETECTIONS, COCO.num_joints, 2))
    rank = np.zeros(images, int)
    for person, image in enumerate(where):
        if rank[image] < DETECTIONS:
            poses[image, rank[image]] = joints[person] + noise[person]
        rank[image] += 1
    files.write_json(found, _results(poses, rank, rng))
    category = {"id": 1, "name": "person", "keypoints": list(COCO.joints)}
    kept = [{"id": i + 1, "height": 640, "width": 640} for i in range(images)]
    files.write_json(
        truth, {"images": kept, "annotations": annotations, "categories": [category]}
    )


def _results(poses: np.ndarray, true: np.ndarray, rng: np.random.Generator) -> list:
    """COCO result list of poses [N, D, J, 2]; an image's first `true` [N] are true."""
    sure = rng.uniform(size=(*poses.shape[:3], 1))
    rows = np.concatenate([poses, sure], axis=-1).round(3)
    score = rng.uniform(size=poses.shape[:2])
    score += np.arange(DETECTIONS) < true[:, None]  # so that AP is not next to nothing
    return [
        {
            **{"image_id": image + 1, "category_id": 1},
            "keypoints": rows[image, place].reshape(-1).tolist(),
            "score": float(score[image, place]),
        }
        for image in range(len(rows))
        for place in range(DETECTIONS)
    ]


def table(figures: dict[str, Any]) -> str:
    """The figures for the screen."""
    counts = ", ".join(
        f"{figures[name]:,} {name}" for name in ("images", "persons", "detections")
    )
    heads = [f"{name:>9} ratio" for name in ("seconds", "CPU s", "MiB")]
    lines = [counts, "".join([f"{'':<26}", *heads, "      AP"])]
    for kind, row in figures["kinds"].items():
        units = dict(zip(_COSTS, (1, 1, 2**20), strict=True))
        cells = [f"{row[n] / u:>9.1f}{row['ratio'][n]:>6.2f}" for n, u in units.items()]
        lines.append("".join([f"{kind:<26}", *cells, f"{100 * row['AP']:>8.2f}"]))
    return "\n".join(lines)


def _summary(rows: list[dict]) -> dict[str, Any]:
    costs = {name: statistics.median(row[name] for row in rows) for name in _COSTS}
    return {**costs, "AP": rows[0]["AP"]}


def _timed(code: str, *arguments: Any) -> dict[str, float]:
    start = time.perf_counter()
    last = _python(code, *arguments).splitlines()[-1]
    return {"seconds": time.perf_counter() - start, **json.loads(last)}


def _python(code: str, *arguments: Any) -> str:
    """What a fresh Python prints that runs some code."""
    root = str(pathlib.Path(__file__).resolve().parents[2])
    code = f"import sys; sys.path.insert(0, {root!r})\n{code}"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout
