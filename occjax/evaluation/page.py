"""One HTML file of an evaluation that needs no other file and no network."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from occjax.evaluation import plots, ranking, report, single, view
from occjax.evaluation.screen import percent

_STYLE = """
body { font: 15px/1.5 sans-serif; color: #222; background: #fff; max-width: 1060px;
  margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.25em; margin-top: 2em; }
table { border-collapse: collapse; margin: 0.8em 0; }
th, td { padding: 0.2em 0.8em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
table.facts td { text-align: left; overflow-wrap: anywhere; }
svg, img { max-width: 100%; height: auto; display: block; }
figure { margin: 1em 0; } figcaption, p { max-width: 50em; }
pre { font-size: 12px; line-height: 1.3; overflow-x: auto; }
"""


def page(
    stamp: Mapping[str, Any],
    metrics: Mapping[str, Any],
    drawings: Mapping[int, bytes],
) -> str:
    """The page of detections scored by OKS.

    Args:
        stamp: from `report.stamp`.
        metrics: of `report.Scored`, with the whole view; `comparison` and `scores`
            are told if they are there.
        drawings: image id -> JPEG file of each of the worst images that is at hand.
    """
    found = metrics["occlusion"]
    parts = [
        _section("Average precision", _metrics(metrics)),
        _pck(metrics.get("pck")),
        _comparison(metrics.get("comparison")),
        _section(
            "By how much is hidden",
            "<p>Images are parted by box IoU and crowd index. People are parted by "
            "labelled joints and by how many others overlap them (IoU above 0.1); "
            "everybody else is then ignored.</p>" + plots.bins(found),
        ),
        _section("Precision and recall at OKS .75", _curves(found["curves"])),
        _ranking(metrics.get("scores")),
        _section("Invisible and visible joints", _joints(found["joints"])),
        _section("Errors", _errors(found["errors"])),
        _section("What scores are worth", _scores(found)),
        _section("Worst images", _worst(found["worst"], drawings)),
        _section("All tables", f"<pre>{html.escape(view.text(dict(found)))}</pre>"),
    ]
    return document(stamp, parts)


def page_of_pck(stamp: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The page of predictions scored by PCK."""
    return document(stamp, [_pck({"protocol": stamp, **metrics})])


def document(stamp: Mapping[str, Any], parts: Iterable[str]) -> str:
    """A whole page: title, the parts, and last the protocol in full."""
    title = html.escape(f"{stamp['dataset']}: {stamp['measure']}")
    line = html.escape(report.headline(dict(stamp)))
    facts = [(key, "not known" if v is None else v) for key, v in stamp.items()]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>{title}</h1>\n<p>{line}</p>\n{''.join(parts)}"
        f"{_section('Protocol', table((), facts, 'facts'))}</body></html>\n"
    )


def table(heads: Sequence, rows: Iterable[Sequence], kind: str = "") -> str:
    """An HTML table; every cell is escaped."""

    def line(cells: Iterable, tag: str) -> str:
        inner = "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells)
        return f"<tr>{inner}</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    head = line(heads, "th") if heads else ""
    return f'<table class="{kind}">{head}\n{body}</table>\n'


def _section(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n{body}\n"


def _metrics(metrics: Mapping[str, Any]) -> str:
    names = [name for name in metrics if name.startswith("AP")]
    rows = [
        [kind, *(percent(metrics[name.replace("AP", kind)]) for name in names)]
        for kind in ("AP", "AR")
    ]
    heads = [name.removeprefix("AP").strip("_").replace("_", " ") for name in names]
    return table(["%", *(head or "all" for head in heads)], rows)


def _pck(figures: Mapping[str, Any] | None) -> str:
    if not figures:
        return ""
    protocol = figures["protocol"]
    told = f"<pre>{html.escape(single.table(dict(figures)))}</pre>"
    return _section(protocol["measure"], told + plots.pck(figures, protocol["unit"]))


def _comparison(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    rows = []
    for name, metrics in found["figures"].items():
        for metric, row in metrics.items():
            low, high = (percent_signed(value) for value in row["interval"])
            rows.append(
                [
                    *(name, metric, percent(row["first"]), percent(row["second"])),
                    *(percent_signed(row["difference"]), f"{low} to {high}"),
                ]
            )
    heads = ("images", "%", "these", "others", "these - others", "95 % interval")
    told = "".join(f"<p>{html.escape(line)}</p>" for line in found["told"])
    words = (
        f"<p>Others: {html.escape(found['with'])}. Intervals by {found['resamples']} "
        "resamples of the images, the same for both.</p>"
    )
    return _section("Comparison", words + told + table(heads, rows))


def _ranking(scores: Mapping[str, dict] | None) -> str:
    if not scores:
        return ""
    words = (
        "The same poses, ranked by each score: precision over recall at OKS .75, for "
        "everybody and by a person's labelled joints. The oracle is the true OKS."
    )
    told = f"<pre>{html.escape(ranking.table(scores))}</pre>"
    picture = _figure(plots.ranking(scores), words)
    return _section("Scores side by side", told + picture)


def _curves(curves: dict) -> str:
    words = "Precision stays at its highest value to the right, as COCO has it."
    return _figure(plots.precision_recall(curves), words)


def _joints(joints: dict) -> str:
    names = ("Inv75", "Inv90", "V75", "V90")
    rows = [
        [kind, row["people"], row["occluded"], row["visible"]]
        + [percent(row[name]) for name in names]
        for kind, row in joints.items()
        if kind != "flags"
    ]
    flags = joints["flags"]
    bears = ", ".join(flags["supports"]) or "none of these rows"
    words = (
        "<p>Share of the occluded (Inv) and visible (V) limb joints with a similarity "
        "of 0.75 or 0.9, in per cent: of people with a detection (matched), of "
        "everybody (all), in images where a joint is marked visible (usable). "
        f"The visibility labels bear: {bears} ({flags['usable']} of "
        f"{flags['images']} images have a joint marked visible).</p>"
    )
    heads = ("joints of", "people", "occluded", "visible", *names)
    return words + table(heads, rows)


def _errors(found: dict) -> str:
    types = found["types"]
    words = (
        f"{types['found']} of {types['people']} people were found at OKS 0.1 or more. "
        "Jitter: near its place. Inversion: at the same person's mirrored joint. Swap: "
        "at somebody else's joint. Miss: nowhere near."
    )
    steps = (
        "What each kind costs: joints are put nearer to their place, then poses get "
        "the best score, false ones are left out, and missed people no longer count."
    )
    return _figure(plots.error_types(types), words) + _figure(
        plots.progression(found["steps"]), steps
    )


def _scores(found: dict) -> str:
    words = (
        "Is a score an estimate of OKS, and a visibility a probability? On the dashed "
        "line it is. Detections of nobody, and second ones of somebody, have OKS 0."
    )
    names = ("AP", "AP50", "AP75", "AR")
    rows = [
        [kind, *(percent(row[name]) for name in names)]
        for kind, row in found["oracle"].items()
    ]
    note = (
        "<p>With the scores given; with the true OKS as the score (oracle); the same "
        "without duplicates (unique); and what no score can surpass (ceiling).</p>"
    )
    scores = note + table(("score", *names), rows)
    return _figure(plots.reliability(found), words) + scores


def _worst(rows: list[dict], drawings: Mapping[int, bytes]) -> str:
    words = (
        "By the mean, over the people of an image, of the highest OKS that a detection "
        "has with each."
    )
    if not any(row["image"] in drawings for row in rows):
        heads = ("image", "persons", "mean best OKS")
        cells = [(r["image"], r["persons"], f"{r['OKS']:.3f}") for r in rows]
        return f"<p>{words}</p>{table(heads, cells)}"
    words = (
        f"<p>{words} On the left the detections of at least the confident score, on "
        f"the right the labels. Joints are solid where visible, hollow where occluded, "
        f"missing where not labelled.</p>"
    )
    return words + "".join(
        _figure(
            _image(drawings[row["image"]]),
            f"Image {row['image']}: {row['persons']} persons, "
            f"mean best OKS {row['OKS']:.3f}",
        )
        for row in rows
        if row["image"] in drawings
    )


def _figure(picture: str, caption: str) -> str:
    words = html.escape(caption)
    return f"<figure>{picture}<figcaption>{words}</figcaption></figure>\n"


def _image(data: bytes) -> str:
    text = base64.b64encode(data).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{text}">'


def percent_signed(value: float | None) -> str:
    """A difference of fractions in per cent with its sign; - where undefined."""
    return "-" if value is None else f"{100 * value:+.1f}"
