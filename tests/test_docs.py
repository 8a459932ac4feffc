"""Documents are true; what says so finds what is not."""

import importlib.util
import re
import sys

import cv2
import documents
import jax
import numpy as np
import pytest
import runs
import tiny_method
import walk

from occjax import export, skeletons
from occjax.types import Poses

CHECKS = [
    documents.wrong_commands,
    documents.wrong_settings,
    documents.wrong_paths,
    documents.wrong_targets,
    documents.wrong_errors,
]


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(documents.ROOT)
    monkeypatch.syspath_prepend(".")


@pytest.mark.parametrize("path", documents.PAGES, ids=lambda path: path.name)
def test_links_of_a_page_lead_somewhere(path):
    assert not list(documents.wrong_links(path, path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", documents.PAGES, ids=lambda path: path.name)
def test_what_a_page_says_to_type_exists(path, check):
    assert not list(check(path.read_text(encoding="utf-8")))


def test_every_page_is_in_the_menu():
    menu = (documents.ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = re.findall(r": ([\w-]+\.md)$", menu, re.M)
    assert sorted(named) == sorted(p.name for p in documents.ROOT.glob("docs/*.md"))


@pytest.mark.parametrize(
    "path", sorted(documents.ROOT.glob("configs/*.py")), ids=lambda path: path.stem
)
def test_settings_in_the_words_of_a_config_are_its_own(path):
    words = path.read_text(encoding="utf-8").split('"""')[1]
    own = documents.variants(f"configs/{path.name}")
    assert not list(documents.wrong_settings(words, own))


def test_every_command_is_documented():
    guide = "".join(page.read_text(encoding="utf-8") for page in documents.PAGES)
    missing = [
        name for name in documents.flags_of() if f"python -m {name}" not in guide
    ]
    assert not [name for name in missing if not name.startswith("studies.")]


def test_every_command_of_the_pages_has_been_typed_and_ended_well():
    log = (documents.ROOT / "docs" / walk.LOG).read_text(encoding="utf-8")
    missing = [
        line
        for lines in walk.all_commands().values()
        for line in lines
        if f"- `{line}`: " not in log
    ]
    assert not missing, "type them: tests/walk.py"
    assert "FAILED" not in log


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "    python -m occjax.trian --config configs/pinet.py",
            "no command occjax.tr",
        ),
        ("    python -m occjax.train --conf configs/pinet.py", "no flag --conf"),
        ("    python -m occjax.train --config configs/pinett.py", "no file configs/"),
        (
            "    python -m occjax.train --config configs/pinet.py:coc",
            "no variant 'coc'",
        ),
        ("    python -m data_prep.mpii --part valid", "--part takes"),
        ("```\npython -m occjax.train \\\n  --confg X\n```", "no flag --confg"),
        ("see `python -m studies.partz`", "no command studies.partz"),
        ("    launch/local.sh 2 4 -- occjax.train --wrkdir X", "no flag --wrkdir"),
        (
            "    python -m occjax.train --config configs/dag.py "
            '"--config.occlusion[1].pool=X"',
            "no key occlusion[1].pool",
        ),
        (
            "    python -m occjax.train --config configs/spm.py --config.model.fus=1",
            "no key model.fus",
        ),
        (
            '    python -m occjax.train --config "configs/pinet.py',
            "No closing quotation",
        ),
        ("with `--config.model.refin=static`", "model.refin: no config"),
        ("    sbatch launch/slurm.sh", "launch/slurm.sh: no such file"),
        ("of `configs/pinet.py:paper`", "no variant 'paper'"),
        ("`make doc`", "make doc: no such target"),
        ("    make trian    # all", "make trian: no such target"),
        ("    error: the moon is not there; wait for the night.", "nothing says so"),
        ("    error: the moon is not ...", "nothing says so"),
    ],
)
def test_a_wrong_page_is_found_out(text, found):
    said = [why for check in CHECKS for why in check(f"# Page\n\n{text}\n")]
    assert any(found in why for why in said), said


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[a](missing.md)", "no such file"),
        ("[a](../README.md#no-such-part)", "no such heading"),
        ("[a](#nowhere)", "no such heading"),
        ("![a](missing.png)", "no such file"),
    ],
)
def test_a_wrong_link_is_found_out(text, found):
    page = documents.ROOT / "docs" / "made_up.md"
    assert found in "".join(documents.wrong_links(page, f"# Page\n\n{text}\n"))


def test_what_is_right_is_not_complained_about():
    text = """# A page: with, punctuation

[this](#a-page-with-punctuation), [that](../README.md#two-commands), [web](https://a.b)

    make train    # a comment
    python -m occjax.evaluate --workdir runs/pinet --noflip --scales 1,2   # made up
    python -m occjax.train --config configs/NAME.py[:VARIANT] [--config.KEY=VALUE ...]
    python -m occjax.train --config configs/pinet.py --config.optim.lr=1e-3
    python -m data_prep.mpii --part PART --split val
    error: config.trainable: 'x' matches no parameter; they start with a, b.
    error: config.init_from: runs/x: 31 variables do not fit: ...
"""
    page = documents.ROOT / "docs" / "made_up.md"
    said = [why for check in CHECKS for why in check(text)]
    assert [*said, *documents.wrong_links(page, text)] == []


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The method that docs/new_method.md makes up."""
    page = (documents.ROOT / "docs/new_method.md").read_text(encoding="utf-8")
    path = tmp_path / f"{documents.EXAMPLE}.py"
    path.write_text(re.findall(r"```python\n(.*?)```", page, re.S)[0])
    spec = importlib.util.spec_from_file_location(documents.EXAMPLE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, documents.EXAMPLE, module)
    spec.loader.exec_module(module)
    return module


def test_the_method_of_the_guide_keeps_the_contract(example):
    batch = tiny_method.batch(np.random.default_rng(0), size=2)
    model = example.Model(skeletons.COCO, features=8)
    variables = model.init(jax.random.key(0), batch.inputs, train=False)
    outputs = model.apply(variables, batch.inputs, train=True)
    terms = example.loss_terms(model, outputs, batch.labels)
    poses = example.decode(model, outputs, batch.inputs)

    assert set(terms) == {"joints", "score"}
    for values, weights in terms.values():
        assert values.shape == weights.shape == (2, 17)
        assert np.all(np.isfinite(values))
    assert isinstance(poses, Poses)
    assert poses.joints.shape == (2, 1, 17, 2)
    np.testing.assert_allclose(poses.joints[:, 0], outputs.joints, rtol=1e-6)


def test_what_the_page_of_prediction_does_in_python_works(
    tmp_path, monkeypatch, capsys
):
    runs.make(tmp_path / "runs/pinet")
    image = np.random.default_rng(0).integers(0, 256, (80, 60, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "photo.jpg"), image)
    export.write(str(tmp_path / "runs/pinet"), str(tmp_path / "pinet.zip"), ("cpu",))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(documents.ROOT / "occjax"))
    page = (documents.ROOT / "docs/predicting.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(examples) == 2
    for example in examples:
        exec(example, {})
    poses, found = capsys.readouterr().out.splitlines()[-2:]
    assert "]" in poses
    assert re.fullmatch(r"\(4, \d+\) \(4, \d+, 17, 2\)", found)
