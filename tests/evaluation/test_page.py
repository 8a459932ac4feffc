import html.parser
import json
import re

import figures
import numpy as np
import pytest

from occjax.evaluation import compare, page, report, view

EVIL = '<script>alert("x")</script>'


class Reader(html.parser.HTMLParser):
    """Checks that tags are closed; keeps texts, tags and what they point to."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.texts, self.targets = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.targets += [v for k, v in attrs if k in ("src", "href", "xlink:href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.targets += [v for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture
def scored():
    truth, found = figures.crowded(np.random.default_rng(1))
    protocol = report.PROTOCOLS["coco"]
    return report.score(truth, found, protocol, whole=True)


def test_page_shows_everything_and_fetches_nothing(scored):
    stamp = report.stamp(scored, "coco", detections=EVIL)
    shown = scored.metrics["occlusion"]["worst"][0]["image"]
    text = page.page(stamp, scored.metrics, {shown: b"\xff\xd8jpeg"})
    reader = read(text)
    assert reader.tags.count("svg") == 5
    assert reader.tags.count("img") == 1
    assert "script" not in reader.tags
    assert EVIL in reader.texts  # as words
    # Pictures and clip paths lie in the page itself.
    assert all(t.startswith(("#", "data:image/jpeg;base64,")) for t in reader.targets)
    assert not re.search(r"url\((?!#)|@import", text)
    words = " ".join(reader.texts)
    for title in ("Average precision", "recall", "Errors", "Worst images", "Protocol"):
        assert title in words
    assert f"{100 * scored.metrics['AP']:.1f}" in words
    assert stamp["ground_truth_sha256"] in words
    assert view.text(scored.metrics["occlusion"]) in words
    for kind in ("given", "oracle", "unique", "ceiling", "Inv75", "matched"):
        assert kind in words


def test_the_same_figures_make_the_same_page(scored):
    stamp = report.stamp(scored, "coco")
    once, again = (page.page(stamp, scored.metrics, {}) for _ in range(2))
    assert once == again
    back = json.loads(json.dumps(scored.metrics))
    assert page.page(stamp, back, {}) == once


def test_comparison_is_shown_where_there_is_one(scored):
    pairs = figures.gathered((scored.truth, scored.found))
    rows = compare.compare(pairs, pairs, scored.truth, resamples=5)
    facts = {"with": EVIL, "resamples": 5, "seed": 0, "told": ["flip: True, others no"]}
    metrics = scored.metrics | {"comparison": {**facts, "figures": rows}}
    words = read(page.page(report.stamp(scored, "coco"), metrics, {})).texts
    assert any(EVIL in text for text in words)
    assert "flip: True, others no" in words
    assert "+0.0 to +0.0" in words


@pytest.mark.parametrize("people", [0, 1])
def test_page_of_nothing_is_a_page(people):
    joints = figures.body(np.random.default_rng(0))
    persons = [figures.person(1, 1, joints)][:people]
    truth = figures.truth_of(persons, [1])
    protocol = report.PROTOCOLS["coco"]
    scored = report.score(truth, [], protocol, whole=True)
    assert scored.metrics["AP"] == people - 1
    assert "not defined" in page.page(report.stamp(scored, "coco"), scored.metrics, {})
