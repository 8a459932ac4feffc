"""README's table of methods: sane rows, written in place between two markers."""

import math
import pathlib
import re

import jax
import pytest

from configs import ksnet, oahpe
from occjax.errors import UserError
from occjax.runtime import config as configs
from occjax.runtime import step
from occjax.runtime.mesh import Layout
from occjax.skeletons import COCO
from studies import methods

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch):
    monkeypatch.chdir(README.parent)
    monkeypatch.syspath_prepend(".")


@pytest.fixture
def page_flags(monkeypatch):
    monkeypatch.setattr(methods, "FLAGS", type("Flags", (), {"repeats": 3}))


def made_up(speed, paper=True):
    """A row whose figures all follow from one."""
    train = dict(batch_size=8, trace_s=speed, compile_cold_s=speed, step_s=1 / speed)
    train |= dict(images_per_s=8 * speed, planned_bytes=None)
    test = dict(images_per_s=9 * speed, network_images_per_s=10 * speed)
    test |= dict(decode_share_of_network=0.1)
    laptop, large = (
        methods.Size(name, int(speed * 1e6), speed * 1e9) for name in ("", "coco")
    )
    return methods.Row(
        *("configs/a.py", ["smoke", "coco"], "A (B, 2020): c", laptop),
        *(large if paper else None, train, test),
    )


def test_sizes_are_those_of_the_network():
    layout, path = Layout.create(), "configs/simple_baseline.py"
    smoke = methods.size(path, "smoke", layout)
    assert 0 < smoke.parameters < 1e6
    assert 0 < smoke.flop < 1e9
    paper = methods.size(path, "coco", layout)
    assert paper.variant == "coco"
    assert paper.parameters == pytest.approx(34.0e6, rel=0.01)  # as published
    resnet = 4.09e9 * (256 * 192) / 224**2  # multiply-adds, without classes
    ups = [(2048, 16 * 12), (256, 32 * 24), (256, 64 * 48)]  # channels, pixels made
    deconvolutions = sum(4 * 256 * channels * pixels for channels, pixels in ups)
    # XLA leaves the padding of convolutions out
    assert paper.flop == pytest.approx(2 * (resnet + deconvolutions), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simple_baseline", "oasnet"])  # one or two views
def test_row_of_a_smoke_variant_has_sane_figures(name):
    cache = jax.config.values["jax_compilation_cache_dir"]
    with jax.numpy_dtype_promotion("standard"):  # as a user has it, for optax
        row = methods.measured(f"configs/{name}.py", 2, "smoke")
    assert jax.config.values["jax_compilation_cache_dir"] == cache
    assert row.variants == methods.variants(row.config)
    assert row.paper is not None
    assert row.paper.parameters > row.laptop.parameters > 0
    assert row.paper.flop > row.laptop.flop > 0
    assert min(row.train["images_per_s"], row.test["images_per_s"]) > 0
    assert f"`{row.config}`" in methods.table([row])


def test_what_training_alone_needs_is_not_counted():
    found = methods.size("configs/oasnet.py", "smoke", Layout.create())
    config = configs.load("configs/oasnet.py:smoke")
    _, model = step.build_model(config, COCO)
    shapes = step.variable_shapes(model, configs.input_shape(config))
    whole = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes["params"]))
    assert found.parameters < whole  # by the critic


def test_a_method_on_a_run_stands_on_the_config_of_that_run():
    config = methods.standing("configs/ksnet.py", "coco")
    base, own = oahpe.coco(), ksnet.coco()
    assert config.model.base.method == "oahpe"
    assert config.model.base.backbone.to_dict() == base.model.backbone.to_dict()
    assert (config.data.dataset, config.data.size) == ("coco", base.data.size)
    assert config.data.augment.to_dict() == own.data.augment.to_dict()
    assert not config.model.flip_test


def test_every_config_with_a_smoke_variant_is_a_method():
    named = [
        path.as_posix()
        for path in sorted(pathlib.Path("configs").glob("*.py"))
        if "smoke" in path.read_text(encoding="utf-8")
    ]
    assert methods.chosen([]) == named
    assert methods.chosen(["pinet"]) == ["configs/pinet.py"]
    with pytest.raises(UserError, match="got pinett"):
        methods.chosen(["pinett"])


def test_every_method_says_what_it_is_and_has_a_paper_size():
    for path in methods.chosen([]):
        assert methods.purpose(path)[-1] not in ".,"
        paper = methods.paper_size(path, methods.variants(path))
        assert paper == "coco" or "coco" not in methods.variants(path)
        assert paper is not None


@pytest.mark.usefixtures("page_flags")
def test_writing_again_changes_nothing_but_figures():
    text = README.read_text(encoding="utf-8")
    first = methods.rewritten(text, methods.section([made_up(1.25)]))
    head, tail = text.split(methods.START)[0], text.split(methods.END)[1]
    assert first.startswith(head)
    assert first.endswith(tail)
    assert methods.rewritten(first, methods.section([made_up(1.25)])) == first
    second = methods.rewritten(first, methods.section([made_up(2.5)]))
    assert second != first
    figure = r"\d+(\.\d+)?"
    assert re.sub(figure, "#", second) == re.sub(figure, "#", first)
    assert methods.further([made_up(2.5)]) in methods.page([made_up(2.5)])


def test_sizes_of_both_variants_stand_in_the_table():
    with_paper, without = (
        methods.table([made_up(1.25, paper)]).splitlines()[-1]
        for paper in (True, False)
    )
    start = "| `configs/a.py` | none, `smoke`, `coco` | A (B, 2020): c |"
    figures = "1.25; 1.25 (`coco`) | 1.25; 1.25 (`coco`) | 10.0 | 11.2 |"
    assert with_paper == f"{start} {figures}"
    assert without == f"{start} 1.25 | 1.25 | 10.0 | 11.2 |"


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        methods.START,
        f"{methods.END}{methods.START}",
        f"{methods.START}{methods.END}{methods.END}",
    ],
)
def test_a_file_without_both_markers_is_refused(text):
    with pytest.raises(UserError, match="--readme: expected one"):
        methods.rewritten(text, "")
