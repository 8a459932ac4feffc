"""Whether labels, warps, masks, decoding and back-projection agree on photographs.

    python -m studies.photographs --photographs DIR [--workdir runs/study-photographs]
        [--output docs/photographs.md]

Oracle: PINet's targets, made from the labels of every photograph in DIR with two
labelled persons or more, are read as if the network had given them, and scored. What
the method cannot represent is counted by reason. Learned: the laptop's PINet learns
sixteen of the photographs by heart and is scored on them; its OPEC-Net and then its
CoupleGraph do so with OCHuman's couples. DIR has coco/, crowdpose/ and ochuman/, see
studies/albums.py. A finished training is not repeated.
"""

import collections
import pathlib
from collections.abc import Sequence

from absl import flags

from configs import pinet as settings
from occjax.methods import pinet
from occjax.runtime import cli
from studies import albums, command, oracle, overfit

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Declares the command's flags."""
    held = "the albums: coco/, crowdpose/ ..."
    command.define_flags("photographs", photographs=held, seeds=False)


def main(argv: Sequence[str]) -> None:
    """Reads the labels, trains, and writes the page."""
    del argv
    cli.start_jax()
    folder, workdir = command.photographs(), pathlib.Path(FLAGS.workdir)
    results = {name: read(folder, name, workdir) for name in albums.ALBUMS}
    lines = oracle_lines(results)
    print("\n".join(lines), flush=True)
    lost = {fate.image_id for fate in results["coco"].fates if fate.reason}
    datasets = workdir / "chosen"
    overfit.prepare(folder, datasets, lost)
    learned = {"PINet": overfit.train(datasets, workdir / "overfit")}
    learned |= overfit.couples(workdir / "crowded", workdir)
    text = "\n".join([*lines, *overfit_lines(learned)])
    pathlib.Path(FLAGS.output).write_text(text + "\n", encoding="utf-8")
    print(f"written: {FLAGS.output}")


def read(folder: pathlib.Path, name: str, workdir: pathlib.Path) -> oracle.Result:
    """The oracle of one album, with the published settings of its dataset."""
    source = albums.prepare(folder, name, workdir / "crowded", albums.crowded)
    config = settings.get_config(name)
    model = pinet.Model(skeleton=source.skeleton, **config.model.to_dict())
    return oracle.run(model, source, config.data.size)


def oracle_lines(results: dict[str, oracle.Result]) -> list[str]:
    """The oracle's part of the page."""
    lines = [
        "# Photographs: the labels' way through PINet, and learning by heart",
        "",
        "Made by `python -m studies.photographs --photographs DIR`.",
        "",
        "## Oracle",
        "",
        "Targets made from the labels take the place of the network's maps (512",
        "pixels, the paper's settings for each dataset), with flip test, peaks,",
        "grouping, fusion and back-projection. All photographs with two labelled",
        "persons or more. A joint without a label, of which targets say nothing, lies",
        "in the middle of the person's labelled ones. The first AP counts everyone;",
        "the other figures ignore the persons in the second table, whom targets or",
        "decoding cannot hold by design.",
        "",
        "| album | images | persons | AP | representable | AP of these | AP50 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        whole = sum(not fate.reason for fate in result.fates)
        lines.append(
            f"| {name} | {result.images} | {len(result.fates)} | "
            f"{result.everyone['AP']:.3f} | {whole} | {result.whole['AP']:.3f} | "
            f"{result.whole['AP50']:.3f} |"
        )
    counts = {
        name: collections.Counter(fate.reason for fate in result.fates)
        for name, result in results.items()
    }
    lines += [
        "",
        f"| lost persons, first reason that applies | {' | '.join(results)} |",
        f"|---|{'---|' * len(results)}",
    ]
    for reason in oracle.REASONS:
        cells = " | ".join(str(count[reason]) for count in counts.values())
        lines.append(f"| {reason} | {cells} |")
    return lines


def overfit_lines(learned: dict[str, dict]) -> list[str]:
    """The learned part of the page, from the figures of each method."""
    lines = [
        "",
        "## Learned by heart",
        "",
        "The laptop's networks, from scratch on a few photographs and scored on the",
        "same ones (`configs/study_photographs.py`). All of OPEC-Net's limbs are those",
        "of its graph; CoupleGraph comes after it, with all before it frozen.",
        "",
        "| method | photographs | steps | AP | AP50 | AP75 |",
        "|---|---|---|---|---|---|",
    ]
    for name, metrics in learned.items():
        of = metrics["protocol"]
        cells = (f"{metrics[figure]:.3f}" for figure in ("AP", "AP50", "AP75"))
        lines.append(
            f"| {name} | {of['images']} of {of['dataset']} | {of['step']} | "
            f"{' | '.join(cells)} |"
        )
    return lines


if __name__ == "__main__":
    define_flags()
    cli.run(main)
