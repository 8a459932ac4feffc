"""DAG's parts one by one, and five papers' parts in one model, where people overlap.

    python -m studies.combination --photographs DIR [--seeds 0,1,2]
        [--workdir runs/study-combination] [--output docs/study.md]

Trains what configs/study_combination.py lists with each seed, on the built-in crowd and
on the crops of LSP Extended, which DIR has (studies/crops.py), and writes the page and
a plot beside it. Tables whose figures are kept beside the page, and finished runs, are
not repeated, so the command goes on where it was stopped.
"""

import functools
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from configs import study_combination as systems
from occjax import files
from occjax.data import sources
from occjax.evaluation import coco, occlusion
from occjax.runtime import cli
from studies import boxes, command, covered, crops, kept, runs

FLAGS = flags.FLAGS
BOXES = 5  # of an image with two or three people
EDGES = (0.0, 0.3, 0.5, 1.0)  # of the largest box IoU in an image
TABLE = {
    "hrnet": "baseline",
    "augmentation": "+ augmentation",
    "attention": "+ attention (ADAM)",
    "graph": "+ graph (FGMH-GCN)",
    "dag": "all (DAG)",
}
REGRESSED = {"poseur": "Poseur", "poseur_dag": "Poseur + all of DAG"}
PARTS = {  # that a model is trained with
    "occluders": "DAG's occluders",
    "mimicry": "OASNet's mimicry",
    "graph": "DAG's graph",
    "attention": "DAG's attention",
}
SCORES, FUSION = "scores as OAKS", "PINet's fusion"
SYSTEMS = {  # the papers', and what reads whole images
    "pinet": "PINet",
    "opecnet": "OPEC-Net",
    "oasnet": "OASNet",
    "dag": "DAG",
    "ksnet": "OA-HPE + KS-net",
    "with_attention": "PINet, attention, scores",
    "with_graph": "PINet, graph, scores",
    "full": "all in one",
}
START = {  # weights of the base that all rows go on from
    "whole": "^(trunk|heatmap_head|part_head|offset_head)/",
    "crop": "^(trunk|head)/",
    "lsp": "^(trunk|head)/",
    "poseur": "^(trunk|neck|start|decoder|flows_coarse|flows_regress)/",
}

INTRODUCTION = """# DAG's parts, and the parts of five papers in one model

Made by `python -m studies.combination --photographs DIR`. Scenes of the built-in crowd,
two or three people, mean box IoU 0.4; AP of unseen ones by the largest box IoU of two
people, in per cent: mean and, in brackets, lowest and highest of the seeds {seeds}.
With each seed a base is trained from scratch, all rows go on from it with as many views
as each other: {whole} and {whole_more} steps of {whole_views} images, {crop} and
{crop_more} of {crop_views} crops; on photographs {lsp} and {lsp_more}.
"""
FINDINGS = """
## What the figures say

PINet with DAG's graph in the place of its own and with scores as OAKS, which is what
`configs/occjax.py` has, is above every paper's system with each seed and at each
overlap: AP 14.5, PINet 12.3, DAG 10.3. With each seed the scores bring PINet 1.0 points
or more and the graph 0.8 or more, and both bring something beside all other parts.
Fusion is worth 0.1 there. Attention, which helps on crops, costs 0.4 on whole images.

All parts in one are below PINet, and two of them hurt, beside all others nearly as much
as alone. OASNet's mimicry costs 2.4 points, because a step has half as many images
then, in two views each: half as many images without a second view cost as much. A
second view with patches changes nothing, and neither does it to mimic. DAG's occluders
cost 2.2 points, and 1.3 of 6.5 where joints are covered as well, so it is not that the
test lacks what they teach. Here every scene is seen two or three times, so there is
little to learn by heart and, we suppose, harder views only slow learning.

Of DAG's Table 2, on crops, attention brings 1.0 point and the graph 1.9; occluders take
2.4, and all together bring 0.1. On photographs, each of which is seen ten times, the
graph helps joints under patches, 11.6 after 10.6, with each seed, and blurs those that
are seen, 20.5 after 25.2; attention changes little.

Attention and graph start where they change nothing. With a last layer of the graph that
started like its others, as the published code has it, every pose was moved by half the
crop at first; with three seeds the graph then cost 2.6 points, and 7.8 on photographs,
in a row as short as these.

OASNet and OPEC-Net come with new layers too, and are low. Poseur hangs on the seed, AP
3.4 to 10.0, and gains nothing by DAG. No longer training was tried here.
"""
PARTS_TEXT = """
## The combination, part by part

Whole images. Each part is added to PINet, and taken from the model that has all.
"""
WORTH_TEXT = """
What each part brings in AP, mean and every seed:
"""
CONTROL_TEXT = """
## What the mimicry's row changes besides

With the mimicry a step has half as many images, each in two views, with patches and
without.
"""
COVERED_TEXT = """
## Where joints are covered

The same models on the same scenes, with two to four patches of the scene itself over
joints of people, as many times as there are people. Poses have the scores of their
heatmaps in every row.
"""
PAPERS_TEXT = """
## Beside the papers' systems

All but PINet and the combination see a person a crop, here in boxes around the {boxes}
best poses that the same seed's PINet has in an image. KS-net has its steps besides
those of OA-HPE.

![AP against overlap]({stem}.png)
"""
TABLE_TEXT = """
## DAG's Table 2

Crops of annotated boxes. Poseur regresses poses without heatmaps; it has a base of its
own, whose backbone goes on from that of the others.
"""
PHOTOGRAPHS_TEXT = """
## DAG's Table 2 on photographs

PCK@0.2 of 600 crops of LSP Extended, as they are and with two to four patches of the
same photograph over joints.
"""


def define_flags() -> None:
    """Declares the command's flags."""
    command.define_flags(
        "combination",
        output="docs/study.md",
        photographs="the crops: images/, annotations/",
    )


def main(argv: Sequence[str]) -> None:
    """Trains what is missing, and writes the page and the plot."""
    del argv
    datasets = pathlib.Path(FLAGS.workdir) / "datasets"
    folder, output = command.photographs(), pathlib.Path(FLAGS.output)
    runs.render(datasets, "crowded", systems.CROWD, systems.SCENES)
    crops.prepare(folder, datasets)
    covered.prepare(folder, datasets)
    covered.prepare_scenes(datasets, "crowded")
    figures = kept.Figures(output)
    found: dict[str, dict[str, list]] = {}
    for seed in FLAGS.seeds:  # whole comparisons first, should the study be stopped
        for name, (measure, kinds) in TABLES.items():
            rows = figures.of(
                f"{name}-{seed}",
                configs_of(kinds),
                functools.partial(measure, int(seed)),
            )
            for row, shares in rows.items():
                found.setdefault(name, {}).setdefault(row, []).append(shares)
    files.write_bytes(output.with_suffix(".png"), plot(found["papers"]))
    output.write_text(page(found, output.stem), encoding="utf-8")
    print(f"written: {output}, {output.with_suffix('.png')}")


def configs_of(kinds: Sequence[str]) -> ConfigDict:
    """All that the figures of runs of these kinds hang on."""
    return ConfigDict(
        {
            f"{kind}_{row}": systems.get_config(f"{kind}_{row}")
            for kind in kinds
            for row in systems.ROWS[kind]
        }
    )


def table(seed: int) -> dict[str, list[float]]:
    """AP of the rows of DAG's Table 2, and of Poseur with and without DAG."""
    rows = TABLE | REGRESSED
    return {words: by_overlap(train("crop", row, seed)) for row, words in rows.items()}


def photographs(seed: int) -> dict[str, list[float]]:
    """PCK of the same on photographs."""
    rows = {}
    for row, words in TABLE.items():
        pck = covered.pck(train("lsp", row, seed))
        rows[words] = [read(pck) for read in covered.COLUMNS.values()]
    return rows


def parts(seed: int) -> dict[str, list[float]]:
    """AP of PINet with each part, of all in one, and of that without each."""
    whole, full = train("whole", "pinet", seed), train("whole", "full", seed)
    rows = {"PINet": scored(whole, score="heatmap")}
    for part, words in PARTS.items():
        run = train("whole", f"with_{part}", seed)
        rows[f"+ {words}"] = scored(run, score="heatmap")
    rows[f"+ {SCORES}"] = scored(whole, score="oaks")
    rows["all in one"] = by_overlap(full)
    for part, words in PARTS.items():
        rows[f"all but {words}"] = by_overlap(train("whole", f"without_{part}", seed))
    rows[f"all but {SCORES}"] = scored(full, score="heatmap")
    rows[f"all but {FUSION}"] = scored(full, set="model.fuse=False")
    return rows


def control(seed: int) -> dict[str, list[float]]:
    """AP of PINet, on half as many images, on both views of them, and with mimicry."""
    rows = {
        "PINet": ("whole", "pinet"),
        "half as many images": ("control", "half"),
        "+ patches in a second view": ("control", "patches"),
        "+ " + PARTS["mimicry"]: ("whole", "with_mimicry"),
    }
    return {
        words: scored(train(kind, row, seed), score="heatmap")
        for words, (kind, row) in rows.items()
    }


def hidden(seed: int) -> dict[str, list[float]]:
    """AP of PINet, with each part, and with all, where joints are covered."""
    rows = {"pinet": "PINet"}
    rows |= {f"with_{part}": f"+ {words}" for part, words in PARTS.items()}
    rows["full"] = "all in one"
    return {
        words: scored(train("whole", row, seed), covered.SPLIT, score="heatmap")
        for row, words in rows.items()
    }


def papers(seed: int) -> dict[str, list[float]]:
    """AP of each paper's system, those of crops on boxes around PINet's poses."""
    whole = train("whole", "pinet", seed)
    own = runs.evaluate(whole, whole / "score=heatmap", score="heatmap")
    poses = json.loads((own / "detections.json").read_text(encoding="utf-8"))
    around = str(boxes.around(poses, whole / "boxes.json", BOXES))
    rows = {}
    for row, words in SYSTEMS.items():
        if row == "pinet":
            rows[words] = by_overlap(own)
        elif row in systems.ROWS["whole"]:
            rows[words] = by_overlap(train("whole", row, seed))
        else:
            rows[words] = scored(train("crop", row, seed), boxes=around)
    return rows


TABLES = {  # what measures each with a seed, and of which kinds its runs are
    "parts": (parts, ("whole",)),
    "control": (control, ("whole", "control")),
    "covered": (hidden, ("whole",)),
    "papers": (papers, ("whole", "crop")),
    "table": (table, ("crop",)),
    "photographs": (photographs, ("lsp",)),
}


def train(kind: str, row: str, seed: int) -> pathlib.Path:
    """Trains a row and the base that it goes on from, if that is not done yet."""
    workdir = pathlib.Path(FLAGS.workdir)
    settings: dict[str, Any] = {"seed": seed}
    if row == "ksnet":
        settings["base"] = str(train(kind, "oahpe", seed))
    else:
        settings["data__dir"] = workdir / "datasets"
        start = start_of(kind, row)
        if start is not None:
            origin, base, pattern = start
            settings["init_from"] = f"{train(origin, base, seed)}:{pattern}"
    config = f"configs/study_combination.py:{kind}_{row}"
    return runs.train(config, workdir / f"{kind}-{row}-{seed}", **settings)


def start_of(kind: str, row: str) -> tuple[str, str, str] | None:
    """Kind and row of the run that a row goes on from, and which of its weights."""
    if row == "base":
        return None
    if row == "poseur_base":
        return kind, "base", "^trunk/"
    if row in REGRESSED:
        return kind, "poseur_base", START["poseur"]
    origin = "whole" if kind == "control" else kind
    return origin, "base", START[origin]


def scored(run: pathlib.Path, split: str = "test", **how: str) -> list[float]:
    """`by_overlap` of a run that is scored otherwise than when it was trained."""
    how = {"split": split, **how} if split != "test" else how
    name = "_".join(f"{key}={pathlib.Path(value).name}" for key, value in how.items())
    return by_overlap(runs.evaluate(run, run / name, **how), split)


def by_overlap(folder: pathlib.Path, split: str = "test") -> list[float]:
    """AP of the detections in a folder: of all scenes of a split, and by overlap."""
    source = sources.load(
        {"dir": f"{FLAGS.workdir}/datasets", "dataset": "crowded"}, split
    )
    truth = coco.ground_truth(source)
    found = json.loads((folder / "detections.json").read_text(encoding="utf-8"))
    matches = coco.Matches(truth, found, source.skeleton)
    bins = occlusion.by_overlap(truth, matches, EDGES)
    return [matches.metrics()["AP"], *(row["AP"] for row in bins)]


def plot(rows: Mapping[str, Sequence[Sequence[float]]]) -> bytes:
    """AP of the papers' systems against overlap, mean and range, as a PNG file."""
    figure = Figure((7.5, 3.6), layout="constrained")
    axes = figure.subplots()
    middles = [
        (low + high) / 2 for low, high in zip(EDGES[:-1], EDGES[1:], strict=True)
    ]
    for name, seeds in rows.items():
        columns = [[100 * x for x in c] for c in zip(*seeds, strict=True)][1:]
        means = [statistics.mean(column) for column in columns]
        (line,) = axes.plot(middles, means, marker="o", ms=3, lw=1.5, label=name)
        low, high = ([f(column) for column in columns] for f in (min, max))
        axes.fill_between(middles, low, high, alpha=0.15, color=line.get_color())
    axes.set(xlabel="largest box IoU of two people", ylabel="AP", ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside right center")
    return runs.png(figure)


def worth(parts: Mapping[str, Sequence[Sequence[float]]]) -> list[str]:
    """A table in Markdown of the AP that each part brings where it is added or left."""
    lines = ["| part | brings PINet | brings all others |", "|---|---|---|"]
    for words in (*PARTS.values(), SCORES):
        pairs = ((f"+ {words}", "PINet"), ("all in one", f"all but {words}"))
        cells = []
        for with_it, without in pairs:
            seeds = zip(parts[with_it], parts[without], strict=True)
            brought = [100 * (one[0] - other[0]) for one, other in seeds]
            each = ", ".join(f"{points:+.1f}" for points in brought)
            cells.append(f"{statistics.mean(brought):+.1f} ({each})")
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return lines


def page(found: Mapping[str, Mapping[str, Sequence]], stem: str) -> str:
    """The study as a Markdown page."""
    steps = {}
    for kind, (base, more) in systems.STEPS.items():
        views = systems.VIEWS[kind]
        steps |= {kind: base, f"{kind}_more": more, f"{kind}_views": views}
    overlaps = [
        f"IoU {low:.1f}-{high:.1f}"
        for low, high in zip(EDGES[:-1], EDGES[1:], strict=True)
    ]
    columns = ("AP", *overlaps)
    texts = {
        "parts": PARTS_TEXT,
        "control": CONTROL_TEXT,
        "covered": COVERED_TEXT,
        "papers": PAPERS_TEXT.format(stem=stem, boxes=BOXES),
        "table": TABLE_TEXT,
        "photographs": PHOTOGRAPHS_TEXT,
    }
    seeds = ", ".join(FLAGS.seeds)
    lines = [INTRODUCTION.format(seeds=seeds, **steps) + FINDINGS.rstrip()]
    for name, text in texts.items():
        heads = tuple(covered.COLUMNS) if name == "photographs" else columns
        lines += [text, *runs.tables(heads, found[name], FLAGS.seeds)]
        if name == "parts":
            lines += [WORTH_TEXT, *worth(found[name])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    define_flags()
    cli.run(main)
