"""Whether OAKS ranks poses better than heatmaps do (Zhao et al. 2020, Tables 2 to 9).

    python -m studies.scores --photographs DIR [--seeds 0,1,2]
        [--workdir runs/study-scores] [--output docs/scores.md]

DIR has coco/, lsp_extended_crops/ and eval_reference/. Trains OA-HPE, HRNet and a
KS-net on each with each seed (configs/study_scores.py), ranks the poses of unseen
people by heatmaps, by OAKS and by the true OKS, and writes the page: mean and range of
the seeds, and every seed as it came out. Those whose figures are kept beside the page,
and finished runs, are not repeated, so the command goes on where it was stopped.
"""

import functools
import json
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from configs import study_scores as systems
from data_prep import coco as coco_prep
from occjax import files, skeletons
from occjax.data import sources
from occjax.runtime import cli
from studies import albums, boxes, command, crops, kept, known, reliability, runs

FLAGS = flags.FLAGS
NAMES = {"oahpe": "OA-HPE", "hrnet": "HRNet"}
SCORES = {
    "heatmap": "heatmaps",
    "oaks": "OAKS",
    "labels": "OAKS with true labels",
    "similarities": "OAKS with true similarities",
    "oracle": "true OKS",
}
SPLITS = {"train": "train2017", "val": "val2017"}  # of COCO's photographs
DETECTIONS = "coco_images_mediapipe.detections.json"  # of a public network, with boxes

INTRODUCTION = """# OAKS beside heatmap scores

Made by `python -m studies.scores --photographs DIR`. OA-HPE (a narrow CPN with the
visibility subnet) and a narrow HRNet are trained with each seed for {steps} steps of 32
crops, then a KS-net on the frozen heatmaps of each for {ks_steps} steps; HRNet takes
its labels from OA-HPE. Only the order of the poses differs between scores. Per cent:
mean and, in brackets, lowest and highest of the seeds {seeds}; `n joints`: AP of people
with so many labelled joints; error: how far a score is from the OKS it stands for
(expected calibration error). OAKS is also given one of the two things it predicts:
which of the joints are labelled, or how similar the labelled ones are to the truth
(studies/known.py). What is left to the true OKS is the other's.

![Reliability of scores, labels and similarities]({stem}.png)
"""
TITLES = {
    "crowd": """## The built-in crowd

{test} unseen scenes of two or three people, mean box IoU 0.4, up to two things before
them; hidden joints have no labels. People by labelled joints: {people}.
""",
    "longer": """## A KS-net that learns longer

The same OA-HPE, and a KS-net that is trained for {ks_steps} steps on its heatmaps.
""",
    "coco": """## Photographs of COCO

The crowd's networks, trained on with the {train} photographs of train2017 that are at
hand for {steps} steps, a KS-net for {ks_steps}; ranked on {val} photographs of val2017,
with annotated boxes and with boxes around the poses of a public network. People by
labelled joints: {people}.
""",
    "lsp": """## Photographs of LSP Extended

3,200 crops to train on, from scratch as on the crowd; {people} people by labelled
joints in 600 others, one each. All that a score can change is whose pose comes first.
""",
}


def define_flags() -> None:
    """Declares the command's flags."""
    command.define_flags("scores", photographs="all albums: coco/, lsp_extended_crops/")


def main(argv: Sequence[str]) -> None:
    """Trains what is missing and writes the page."""
    del argv
    folder, workdir = command.photographs(), pathlib.Path(FLAGS.workdir)
    datasets = workdir / "datasets"
    runs.render(datasets, "unlabelled", systems.CROWD, systems.SCENES)
    crops.prepare(folder / "lsp_extended_crops", datasets)
    photographs(folder, datasets)
    figures = kept.Figures(FLAGS.output)
    around = str(detected(folder, datasets))
    found: dict[str, list[dict]] = {}
    for seed in FLAGS.seeds:  # whole comparisons first, should the study be stopped
        for name, bases in systems.BASES.items():
            for base in bases:
                measure = functools.partial(measured, name, base, int(seed), around)
                for place, figure in figures.of(
                    f"{name}-{base}-{seed}", configs_of(name), measure
                ).items():
                    found.setdefault(place, []).append(figure)
    output = pathlib.Path(FLAGS.output)
    picture = output.with_suffix(".png")
    files.write_bytes(picture, reliability.plot(found["crowd/oahpe"]))
    output.write_text(page(found, output.stem), encoding="utf-8")
    print(f"written: {output}, {picture}")


def configs_of(name: str) -> ConfigDict:
    """All that the figures of a set hang on."""
    sets = {"crowd", name} if name in ("coco", "longer") else {name}
    return ConfigDict(
        {
            f"{one}_{system}": systems.get_config(f"{one}_{system}")
            for one in sorted(sets)
            for system in systems.SYSTEMS
        }
    )


def measured(name: str, base: str, seed: int, around: str) -> dict[str, dict]:
    """Figures of a base of a set by place, trained if that is not done yet.

    Args:
        name: of the set.
        base: whose poses are ranked.
        seed: of the trainings.
        around: file of a detector's boxes on COCO's photographs.
    """
    run, place = train(name, base, seed), f"{name}/{base}"
    found = {place: ranked(run, run / "ranked")}
    if name == "coco":
        found[f"{place}/detected"] = ranked(run, run / "detected", boxes=around)
    return found


def photographs(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Prepares COCO's photographs as the splits they come from, if not done already."""
    file, skeleton = albums.ALBUMS["coco"]
    content, _ = coco_prep.read_json(folder / "coco" / "annotations" / file)
    for split, source in SPLITS.items():
        if runs.prepared(out, "coco", split):
            continue
        images = [i for i in content["images"] if i["coco_split"] == source]
        ids = {image["id"] for image in images}
        people = [a for a in content["annotations"] if a["image_id"] in ids]
        chosen = out / f"coco-{split}.json"
        text = json.dumps({**content, "images": images, "annotations": people})
        chosen.write_text(text, encoding="utf-8")
        images_of = folder / "coco" / "images"
        coco_prep.prepare(out, "coco", split, images_of, chosen, skeletons.COCO)


def detected(folder: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """Boxes around a public network's poses."""
    text = (folder / "eval_reference" / DETECTIONS).read_text(encoding="utf-8")
    return boxes.around(json.loads(text), out / "boxes.json")


def train(name: str, base: str, seed: int) -> pathlib.Path:
    """Trains a base, those it needs and its KS-net, if that is not done yet."""
    workdir = pathlib.Path(FLAGS.workdir)
    teller = network(name, "oahpe", seed)
    read = teller if base == "oahpe" else network(name, base, seed)
    settings = {"seed": seed, "base": str(read)}
    if base != "oahpe":
        settings["labels"] = str(teller)
    config = f"configs/study_scores.py:{name}_ksnet_{base}"
    return runs.train(config, workdir / f"{name}-ksnet-{base}-{seed}", **settings)


def network(name: str, system: str, seed: int) -> pathlib.Path:
    """Trains a network that reads heatmaps, if that is not done yet."""
    name = "crowd" if name == "longer" else name
    workdir = pathlib.Path(FLAGS.workdir)
    settings: dict[str, Any] = {"seed": seed, "data__dir": workdir / "datasets"}
    if name == "coco":
        settings["init_from"] = str(network("crowd", system, seed))
    config = f"configs/study_scores.py:{name}_{system}"
    return runs.train(config, workdir / f"{name}-{system}-{seed}", **settings)


def ranked(run: pathlib.Path, output: pathlib.Path, **more: str) -> dict[str, Any]:
    """What the page wants to know of a run whose poses are ranked by every score.

    `joint_peaks` is the reliability of heatmap peaks, all else as in metrics.json.
    """
    runs.evaluate(run, output, score=",".join(["oaks", "heatmap", "oracle"]), **more)
    peaks = runs.evaluate(
        run, output.with_name(f"{output.name}-peaks"), score="heatmap", **more
    )
    found, other = (
        json.loads((path / "metrics.json").read_text(encoding="utf-8"))
        for path in (output, peaks)
    )
    view, scores = found["occlusion"], found["scores"] | known.ranked(run, output)
    for row in scores.values():
        del row["curves"]  # which are long
    return {
        "scores": scores,
        "occlusion": {
            "calibration": view["calibration"],
            "bins": {"joint_count": view["bins"]["joint_count"]},
        },
        "joint_peaks": other["occlusion"]["calibration"]["joints"],
    }


def page(found: Mapping[str, Sequence[dict]], stem: str) -> str:
    """The study as a Markdown page."""
    lines = [
        INTRODUCTION.format(
            steps=systems.STEPS["crowd"],
            ks_steps=systems.KS_STEPS["crowd"],
            seeds=", ".join(FLAGS.seeds),
            stem=stem,
        )
    ]
    for name, title in TITLES.items():
        first = found[f"{name}/oahpe"][0]
        counts = (
            f"{row['low']}-{row['high']}: {row['persons']}"
            for row in first["occlusion"]["bins"]["joint_count"]
        )
        facts = {"people": ", ".join(counts), "test": systems.SCENES["test"]}
        facts |= {"steps": systems.STEPS[name], "ks_steps": systems.KS_STEPS[name]}
        lines.append(title.format(**facts, **_photographs()))
        places = [place for place in found if place.startswith(name)]
        lines += ranks({place: found[place] for place in places})
        lines += ["", *predictions({place: found[place] for place in places}), ""]
    lines += by_joint(found["crowd/oahpe"], found["longer/oahpe"])
    return "\n".join(lines) + "\n"


def _photographs() -> dict[str, int]:
    """How many photographs of COCO there are of each split."""
    datasets = pathlib.Path(FLAGS.workdir) / "datasets"
    data = {"dir": str(datasets), "dataset": "coco"}
    return {split: len(sources.load(data, split)) for split in SPLITS}


def ranks(found: Mapping[str, Sequence[dict]]) -> list[str]:
    """Tables of what each score makes of the poses."""
    bins = next(iter(found.values()))[0]["scores"]["oaks"]["joint_count"]
    columns: dict[str, Callable[[dict], float]] = {
        key: lambda row, key=key: row[key] for key in ("AP", "AP50", "AP75", "AR")
    }
    for at, row in enumerate(bins):
        if not row["persons"]:
            continue
        head = f"{row['low']}-{row['high']} joints"
        columns[head] = lambda row, at=at: row["joint_count"][at]["AP"]
    columns["error"] = lambda row: row["calibration"]["expected_calibration_error"]
    shares = {
        f"{label(place)}, {words}": [
            [figure(one["scores"][score]) for figure in columns.values()]
            for one in scored
        ]
        for place, scored in found.items()
        for score, words in SCORES.items()
    }
    return runs.tables(tuple(columns), shares, FLAGS.seeds)


def label(place: str) -> str:
    """A base, and whose boxes it saw, in words."""
    _, base, *boxes = place.split("/")
    return NAMES[base] + (", detected boxes" if boxes else "")


def predictions(found: Mapping[str, Sequence[dict]]) -> list[str]:
    """A table of how good the predicted labels and similarities are."""
    lines = [
        "Labels: share of joints rightly predicted, area under the ROC curve,",
        "calibration error. Similarity: Pearson correlation of KS-net's prediction",
        "and of the heatmap's peak with the true one, and their calibration errors.",
        "",
        "| base | labels | AUC | error | KS-net | peak | KS-net error | peak error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for place, scored in found.items():
        rows = [_predictions(one) for one in scored]
        cells = " | ".join(map(_range, zip(*rows, strict=True)))
        lines.append(f"| {label(place)} | {cells} |")
    return lines


def _predictions(one: Mapping[str, Any]) -> list[float]:
    told = one["occlusion"]["calibration"]
    error = "expected_calibration_error"
    labels = [told["labels"][key] for key in ("accuracy", "auc", error)]
    both = (told["joints"], one["joint_peaks"])
    return labels + [x[key] for key in ("correlation", error) for x in both]


def _range(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.3f} ({min(values):.3f}-{max(values):.3f})"


def by_joint(
    scored: Sequence[Mapping[str, Any]], longer: Sequence[Mapping[str, Any]]
) -> list[str]:
    """A table of OA-HPE's labels and similarities on the crowd, joint by joint."""
    lines = [
        "## Joint by joint",
        "",
        "OA-HPE on the crowd, means of the seeds: labels rightly predicted, and the",
        "correlation with the true similarity of KS-net's prediction, of that of the",
        "KS-net that learns longer, and of the peak.",
        "",
        "| joint | labels right | KS-net | longer | peak |",
        "|---|---|---|---|---|",
    ]
    for joint in skeletons.COCO.joints:
        means = [
            statistics.mean(read(one)["by_joint"][joint] for one in seeds)
            for seeds, read in (
                (scored, lambda one: one["occlusion"]["calibration"]["labels"]),
                (scored, lambda one: one["occlusion"]["calibration"]["joints"]),
                (longer, lambda one: one["occlusion"]["calibration"]["joints"]),
                (scored, lambda one: one["joint_peaks"]),
            )
        ]
        cells = " | ".join(f"{mean:.3f}" for mean in means)
        lines.append(f"| {joint.replace('_', ' ')} | {cells} |")
    return lines


if __name__ == "__main__":
    define_flags()
    cli.run(main)
