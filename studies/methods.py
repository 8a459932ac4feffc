"""README's table of methods: what each is, how large, how fast on this machine.

    python -m studies.methods [--only pinet,hrnet] [--repeats 10]
        [--readme README.md] [--output docs/methods.md]

A method is a file of configs/ with a `smoke` variant. Its experiment for two CPU cores
is timed as `python -m occjax.benchmark` does it, in the batches of its config. Of its
paper-size variant, COCO's or else the first on a named dataset, only shapes are traced,
so nothing of it runs and no dataset is needed. Runs that a method is built on stand
untrained.

The table goes between the markers of the README, its further figures to the page of
--output. With --only the rows of the methods named are printed and nothing is written.
"""

import ast
import functools
import math
import pathlib
import platform
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from absl import flags
from ml_collections import ConfigDict

from occjax import benchmark, files
from occjax.data import sources
from occjax.errors import UserError
from occjax.runtime import cli, staged, step
from occjax.runtime import config as configs
from occjax.runtime import speed as device
from occjax.runtime.mesh import Layout

FLAGS = flags.FLAGS
START = "<!-- methods: made by python -m studies.methods -->"
END = "<!-- /methods -->"


class Size(NamedTuple):
    """What a test of a config takes, without the mirrored image."""

    variant: str  # empty: the one that needs no name
    parameters: int
    flop: float  # of one image, or crop of a person


class Row(NamedTuple):
    """A method in the table."""

    config: str  # path
    variants: list[str]  # but the one that needs no name
    what: str  # first line of the config's docstring
    laptop: Size
    paper: Size | None  # None: no variant has a named dataset
    train: dict[str, Any]  # figures of `benchmark.training`
    test: dict[str, float]  # figures of `benchmark.inference`


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_list("only", [], "Names of configs; empty: all methods.")
    flags.DEFINE_integer("repeats", 10, "Timed runs of each kind.", lower_bound=1)
    flags.DEFINE_string("readme", "README.md", "File with the table's markers.")
    flags.DEFINE_string("output", "docs/methods.md", "Page of further figures.")


def main(argv: Sequence[str]) -> None:
    """Measures; writes, or prints what --only asks for."""
    del argv
    cli.start_jax()
    readme = pathlib.Path(FLAGS.readme)
    text = readme.read_text(encoding="utf-8")
    rewritten(text, "")  # a file without markers is refused before hours of measuring
    rows = []
    for path in chosen(FLAGS.only):
        print(f"measuring {path}", flush=True)
        rows.append(measured(path, FLAGS.repeats))
    if FLAGS.only:
        print(f"\n{table(rows)}\n\n{further(rows)}")
        return
    files.write_bytes(readme, rewritten(text, section(rows)).encode())
    files.write_bytes(FLAGS.output, page(rows).encode())
    print(f"written: {readme}, {FLAGS.output}")


def chosen(names: Sequence[str]) -> list[str]:
    """Paths of the methods' configs, or of those named.

    Raises:
        UserError: a name is no method's.
    """
    paths = [path.as_posix() for path in sorted(pathlib.Path("configs").glob("*.py"))]
    found = {pathlib.Path(p).stem: p for p in paths if "smoke" in variants(p)}
    unknown = set(names) - set(found)
    if unknown:
        raise UserError(
            f"--only: expected some of {', '.join(found)}, got {', '.join(unknown)}."
        )
    return [found[name] for name in names or found]


def variants(path: str) -> list[str]:
    """Names of a config's variants, which it tells when asked for one it lacks."""
    try:
        configs.load(f"{path}:?")
    except UserError as error:
        return str(error).partition("there are ")[2].split(", ")
    return []


def measured(path: str, repeats: int, variant: str = "") -> Row:
    """The row of a config.

    Args:
        path: of the config.
        repeats: timed runs of training and test.
        variant: what is timed.

    Raises:
        UserError: the config is at fault.
    """
    known = variants(path)
    layout = Layout.create()
    config = standing(path, variant)
    task = benchmark.ready(config, layout)
    test = benchmark.inference(task, layout, repeats)
    train = benchmark.training(config, task, layout, repeats)
    paper = paper_size(path, known)
    return Row(
        path,
        known,
        purpose(path),
        size(path, variant, layout),
        None if paper is None else size(path, paper, layout),
        train,
        test,
    )


def purpose(path: str) -> str:
    """The first line of a config's docstring, without its full stop."""
    module = ast.parse(pathlib.Path(path).read_text(encoding="utf-8"))
    return (ast.get_docstring(module) or "").partition("\n")[0].removesuffix(".")


def paper_size(path: str, known: Sequence[str]) -> str | None:
    """COCO's variant, or else the first on a named dataset."""
    if "coco" in known:
        return "coco"
    named = (v for v in known if standing(path, v).data.dataset != "crowd")
    return next(named, None)


def standing(path: str, variant: str) -> ConfigDict:
    """A config without flip test, with the models of the runs it is built on.

    `staged.resolve` reads those of trained runs. Here the name of a run tells which
    config makes it, NAME or NAME-VARIANT, as `occjax.train` names runs.

    Raises:
        UserError: there is no such config.
    """
    config: Any = configs.load(f"{path}:{variant}").unlock()
    for key in staged.RUNS:
        if not config.get(key):
            continue
        name, _, of_base = pathlib.Path(config[key]).name.partition("-")
        base: Any = configs.load(f"configs/{name}.py:{of_base}")
        config.model[key] = ConfigDict({"method": base.method, **base.model})
        if key == "base":
            config.data = ConfigDict(base.data.to_dict() | config.data.to_dict())
    config.model.flip_test = False
    return config.lock()


def size(path: str, variant: str, layout: Layout) -> Size:
    """What a test of a config takes, found by tracing alone.

    Raises:
        UserError: the config is at fault.
    """
    config: Any = standing(path, variant)
    with config.unlocked():
        config.batch_size = layout.mesh.size
    skeleton = sources.skeleton_of(configs.data_settings(config))
    method, model = step.build_model(config, skeleton)
    batch = benchmark.example(config, skeleton.num_joints)
    # What training alone needs, such as a critic, is not made with train=False.
    init = functools.partial(model.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), batch.inputs)
    variables = {"params": shapes["params"], "batch_stats": {}}
    variables |= {key: shapes[key] for key in shapes if key == "batch_stats"}
    predict: Any = step.make_predict_step(method, model, layout)
    # As traced: in compiled programs for CPUs some operations hide in calls.
    cost = predict.lower(variables, batch.inputs).cost_analysis() or {}
    return Size(
        variant,
        sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"])),
        cost.get("flops", math.nan) / device.images_of(batch),
    )


def rewritten(text: str, body: str) -> str:
    """A text with something else between the markers.

    Raises:
        UserError: the markers are not there, once each and in order.
    """
    head, start, rest = text.partition(START)
    _, end, tail = rest.partition(END)
    if not start or not end or START in rest or END in tail:
        raise UserError(f"--readme: expected one {START} and one {END} after it.")
    return f"{head}{START}\n{body}\n{END}{tail}"


def section(rows: Sequence[Row]) -> str:
    """What stands between the README's markers."""
    return f"""{table(rows)}

Parameters in millions and GFLOPs (a multiply-add is two, padding is not counted) of a
test on one image, or crop of a person, without its mirror image: of the variant for two
CPU cores, then of the paper's size. images/s: training and test of the former, in its
batches, on {machine()}. Made by `python -m studies.methods`;
[further figures](docs/methods.md)."""


def table(rows: Sequence[Row]) -> str:
    """The methods, with size and speed."""
    lines = [
        "| config | variants | what | parameters, M | GFLOPs | training, images/s "
        "| test, images/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        names = ", ".join(("none", *(f"`{name}`" for name in row.variants)))
        sizes = [row.laptop] if row.paper is None else [row.laptop, row.paper]
        cells = [
            f"`{row.config}`",
            names,
            row.what,
            "; ".join(_sized(one, one.parameters / 1e6) for one in sizes),
            "; ".join(_sized(one, one.flop / 1e9) for one in sizes),
            _figure(row.train["images_per_s"]),
            _figure(row.test["images_per_s"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(rows: Sequence[Row]) -> str:
    """The page of further figures."""
    return f"""# Speed of all methods

Made by `python -m studies.methods`, with the table of the [README](../README.md), on
{machine()}. Each is the variant of its config that needs
no name, on noise with made-up people, without flip test; medians of {FLAGS.repeats}.
Memory is what the compiler has laid out for a train step.

{further(rows)}
"""


def further(rows: Sequence[Row]) -> str:
    """What the README leaves out."""
    lines = [
        "| config | batch | trace and compile a train step, s | train step, ms "
        "| memory, MiB | test without decoding, images/s | decoding adds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        train, test = row.train, row.test
        memory = train["planned_bytes"]
        cells = [
            f"`{row.config}`",
            str(train["batch_size"]),
            _figure(train["trace_s"] + train["compile_cold_s"]),
            _figure(1e3 * train["step_s"]),
            "unknown" if memory is None else _figure(memory / 2**20),
            _figure(test["network_images_per_s"]),
            f"{test['decode_share_of_network']:.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def machine() -> str:
    """Processor, cores, accelerators if there are any, and jax."""
    found = cli.environment()
    parts = [f"{_processor()}, {found['cpu_count']} cores"]
    if found["backend"] != "cpu":
        parts.append(f"{len(found['devices'])} x {found['devices'][0]}")
    return ", ".join((*parts, f"jax {found['packages']['jax']}"))


def _processor() -> str:
    """Model of the CPU; Linux alone tells it by name."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return next(names, "").strip() or platform.processor() or platform.machine()


def _sized(size: Size, value: float) -> str:
    """A figure, with its variant if that has a name."""
    return _figure(value) + (f" (`{size.variant}`)" if size.variant else "")


def _figure(value: float) -> str:
    """Three digits; large figures whole."""
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"


if __name__ == "__main__":
    define_flags()
    cli.run(main)
