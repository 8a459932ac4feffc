"""Measures what training and inference of a config cost on this machine.

    python -m occjax.benchmark --config configs/pinet.py[:VARIANT] [--output FILE.json]

prints, with machine, devices and versions, and writes to --output as json:

    model        seconds to create parameters and optimiser state
    train step   seconds to compile, cold and from the cache, images/s, FLOP/s beside
                 the matmul rate of the device as measured in the same run, memory
    inference    images/s of the network alone and with decoding, which is one jitted
                 call, and what decoding adds to the time
    input        training images/s beside a plain loop that only decodes and warps, in
                 as many threads; left out where the dataset is not there

Images are those that the network sees: each crop of a person is one.

    python -m occjax.benchmark --config configs/opecnet.py:frozen
        --against configs/opecnet.py:base [--output FILE.json]

measures what inference costs beside that of another config: both see as many images and
take turns, so that other work on the machine hits both. The other's keys change by
--against.KEY=VALUE.

    python -m occjax.benchmark --data [--config configs/NAME.py] [--output FILE.json]

measures reading alone, without jax: whole images at 512, person crops at 256x192, crops
with pasted people, whatever the config's view is, on its dataset, or on scenes of the
built-in crowd as JPEG files in a temporary folder.

    python -m occjax.benchmark --evaluation [--output FILE.json]

measures scoring alone, without jax: time and memory of the table of AP at the size of
COCO's validation set, with either evaluator, beside pycocotools alone.

Rates are medians over --repeats. Steps run on noise with made-up people, so any variant
can be measured without its data. Anything of the config can be changed, for instance
--config.batch_size=8 --config.dtype=bfloat16.
"""

import functools
import math
import tempfile
import time
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from occjax import files
from occjax.data import sources, speed, views
from occjax.data.crowd import Crowd
from occjax.errors import UserError
from occjax.evaluation import speed as scoring_speed
from occjax.runtime import cli
from occjax.runtime import config as configs
from occjax.types import UNLABELLED, VISIBLE, Batch, Inputs, Labels

FLAGS = flags.FLAGS
_SCENES = 96  # of the built-in crowd that reading is measured on
_PEOPLE = 4  # on a made-up whole image, or max_persons if that is less


class Task(NamedTuple):
    """What a config asks for, ready to run."""

    method: Any
    model: Any
    state: Any
    create_s: float  # seconds that the state took
    batch: Batch


def define_flags() -> None:
    """Declares the command's flags."""
    configs.define_flag()
    configs.define_flag("against", "Experiment to measure inference against")
    flags.DEFINE_string("output", None, "Json file for the figures.")
    flags.DEFINE_integer("repeats", 10, "Timed runs of each kind.", lower_bound=1)
    flags.DEFINE_bool("data", False, "Measure reading alone.")
    flags.DEFINE_bool("evaluation", False, "Measure scoring alone.")


def main(argv: Any) -> None:
    """Measures, prints and writes."""
    del argv
    if FLAGS.data:
        figures = survey(FLAGS.config, min(FLAGS.repeats, 5))
        print(speed.table(figures["data"]))
    elif FLAGS.evaluation:
        figures = {"evaluation": scoring_speed.survey(min(FLAGS.repeats, 3))}
        print(scoring_speed.table(figures["evaluation"]))
    else:
        figures = everything()
        print(table(figures))
    if FLAGS.output:
        files.write_json(FLAGS.output, figures, 2)


def everything() -> dict[str, Any]:
    """All figures of the config that the flag names, or those beside --against.

    Raises:
        UserError: there is none, or it is at fault.
    """
    if FLAGS.config is None:
        raise UserError("--config is missing; try --config configs/pinet.py.")
    cli.start_jax()
    from occjax.runtime import staged

    config = staged.resolve(FLAGS.config)
    figures = {"environment": cli.environment(), "config": configs.as_json(config)}
    if FLAGS.against is None:
        return figures | measure(config, FLAGS.repeats)
    against = staged.resolve(FLAGS.against)
    figures["against"] = configs.as_json(against)
    figures["cost"] = cost(config, against, FLAGS.repeats)
    return figures


def survey(config: Any, trials: int) -> dict[str, Any]:
    """Figures of reading a config's dataset; without one, of the built-in crowd.

    The crowd is read from files, as rendering would outweigh all else.

    Raises:
        UserError: the dataset is not there.
    """
    if config is not None and config.data.dataset != "crowd":
        data = config.data.to_dict() | {"cache": False}
        source = sources.load(data, data["split"])
        return {"data": speed.survey(source, data, trials)}
    scenes = Crowd(num_scenes=_SCENES, size=(480, 640), people=(2, 5))
    with tempfile.TemporaryDirectory() as folder:
        source = speed.Files(scenes, folder)
        return {"data": speed.survey(source, {}, trials)}


def measure(config: Any, repeats: int) -> dict[str, Any]:
    """All figures of a config: seconds, rates per second, bytes.

    Raises:
        UserError: the config is at fault.
    """
    from occjax.runtime import speed as device
    from occjax.runtime.mesh import Layout

    layout = Layout.create(configs.computing(config, "state_shards"))
    task = ready(config, layout)
    figures: dict[str, Any] = {"model": {"create_s": task.create_s}}
    figures["matmul"] = {
        "dtype": config.dtype,
        "flop_per_s": device.matmul_rate(config.dtype, repeats),
    }
    figures["inference"] = inference(task, layout, repeats)
    figures["train"] = training(config, task, layout, repeats)
    figures["input"] = reading(config, configs.data_settings(config), repeats)
    return figures


def cost(config: Any, other: Any, repeats: int) -> dict[str, Any]:
    """What inference costs beside that of another config, as times per image.

    The other's batch is as large as the config's.

    Raises:
        UserError: a config is at fault.
    """
    from occjax.runtime import speed as device
    from occjax.runtime import step
    from occjax.runtime.mesh import Layout

    layout = Layout.create()
    task = ready(config, layout)
    crops = math.prod(configs.input_shape(other)[:-3])
    other.batch_size = -(-device.images_of(task.batch) // crops)
    tasks = (task, ready(other, layout))
    runs = []
    for method, model, state, _, batch in tasks:
        whole = step.make_predict_step(method, model, layout)
        arguments = state.variables, layout.shard_batch(batch.inputs)
        runs.append(functools.partial(whole, *arguments))
    images = [device.images_of(task.batch) for task in tasks]
    per_image = device.in_turns(runs, repeats) / np.array(images)
    low, middle, high = np.quantile(
        per_image[:, 0] / per_image[:, 1], (0.25, 0.5, 0.75)
    )
    return {
        "batch_sizes": images,
        "images_per_s": (1 / np.median(per_image, axis=0)).tolist(),
        "time_ratio": float(middle),
        "time_ratio_quartiles": [float(low), float(high)],
    }


def ready(config: Any, layout: Any) -> Task:
    """The model of a config with a fresh state, and a batch for it.

    Raises:
        UserError: the config is at fault.
    """
    from occjax.runtime import objective, step

    objective.check_batch(config, layout)
    skeleton = sources.skeleton_of(configs.data_settings(config))
    method, model = step.build_model(config, skeleton)
    start = time.perf_counter()
    state = step.init_state(config, model, configs.input_shape(config), layout)
    taken = time.perf_counter() - start
    return Task(method, model, state, taken, example(config, skeleton.num_joints))


def example(config: Any, joints: int) -> Batch:
    """A batch of noise with made-up people, the same every time.

    In their source, inputs lie a quarter of their width apart, so that the boxes of
    people who are cropped of one image overlap.
    """
    rng = np.random.default_rng(0)
    *crops, height, width, _ = configs.input_shape(config)
    rows = (config.batch_size, *crops)
    persons = int(config.data.max_persons)
    people = persons if crops else min(persons, _PEOPLE)
    to_source = np.tile(np.eye(2, 3, dtype=np.float32), (*rows, 1, 1))
    to_source[..., 0, 2] = np.arange(rows[-1]) * width / 4
    inputs = Inputs(
        image=rng.integers(0, 256, (*rows, height, width, 3), dtype=np.uint8),
        valid=np.tile(np.array([height, width], np.int32), (*rows, 1)),
        to_source=to_source,
    )
    if views.of_people(config.data):
        sides = np.broadcast_to(np.array([width, height], np.float32), (*rows, 2))
        inputs = inputs._replace(
            box=np.concatenate((to_source[..., 2], sides), axis=-1),
            box_score=np.ones(rows, np.float32),
        )
    shape = (config.batch_size, persons)
    area = np.zeros(shape, np.float32)
    area[:, :people] = height * width / 4
    visible = np.where(area > 0, VISIBLE, UNLABELLED).astype(np.uint8)
    labels = Labels(
        joints=rng.uniform(0, (width, height), (*shape, joints, 2)).astype(np.float32),
        visibility=visible[..., None].repeat(joints, axis=-1),
        area=area,
        ignore=np.zeros((*rows, height // 4, width // 4), bool),
        head_size=np.zeros(shape, np.float32),
        oks_area=area / 2,
    )
    if any(one["name"] == "paste_patches" for one in config.get("occlusion", ())):
        inputs = inputs._replace(clean=inputs.image)
        labels = labels._replace(clean_visibility=labels.visibility)
    return Batch(inputs, labels, np.arange(config.batch_size, dtype=np.int64))


def inference(task: Task, layout: Any, repeats: int) -> dict[str, float]:
    """Images/s of the network, and of the network with decoding."""
    import jax

    from occjax.runtime import speed as device
    from occjax.runtime import step

    def network(variables: Any, inputs: Inputs) -> Any:
        return task.model.apply(variables, inputs, train=False)

    variables = layout.gather(task.state.variables)
    arguments = variables, layout.shard_batch(task.batch.inputs)
    forward = jax.jit(network, compiler_options=step.compiler_options())
    whole = step.make_predict_step(task.method, task.model, layout)
    runs = [functools.partial(run, *arguments) for run in (forward, whole)]
    times = np.median(device.in_turns(runs, repeats), axis=0).tolist()
    images = device.images_of(task.batch)
    return {
        "batch_size": images,
        "network_images_per_s": images / times[0],
        "images_per_s": images / times[1],
        "decode_share_of_network": times[1] / times[0] - 1,
    }


def training(config: Any, task: Task, layout: Any, repeats: int) -> dict[str, Any]:
    """Compile time and rate of the train step; the task's state is used up."""
    from occjax.runtime import speed as device
    from occjax.runtime import step

    run = step.make_train_step(config, task.method, task.model, task.state, layout)
    batch = layout.shard_batch(task.batch)
    return device.training(run, task.state, batch, repeats)


def reading(config: Any, data: dict, repeats: int) -> dict[str, Any] | None:
    """Images/s of the input pipeline and of the plain loop, None without the data."""
    data = data | {"cache": False}
    try:
        source = sources.load(data, data["split"])
    except UserError:
        return None
    found = speed.compare(source, data, config.batch_size, max(1, min(repeats, 3)))
    return {"threads": int(data["threads"]), **found}


def table(figures: dict[str, Any]) -> str:
    """The figures for the screen."""
    machine = figures["environment"]
    devices, packages = machine["devices"], machine["packages"]
    named = ", ".join(f"{name} {packages[name]}" for name in ("jax", "flax", "numpy"))
    rows = [
        ("machine", f"{machine['platform']}, {machine['cpu_count']} CPU cores"),
        ("devices", f"{len(devices)} x {devices[0]}"),
        (
            "versions",
            f"occjax {machine['occjax']}, python {machine['python']}, {named}",
        ),
        *(_cost_rows(figures) if "cost" in figures else _rows(figures)),
    ]
    return "\n".join(f"{name:<11}{text}" for name, text in rows)


def _cost_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    found = figures["cost"]
    rates = [
        f"{rate:.1f} images/s, batch {batch}"
        for rate, batch in zip(found["images_per_s"], found["batch_sizes"], strict=True)
    ]
    low, high = found["time_ratio_quartiles"]
    return [
        ("inference", rates[0]),
        ("against", rates[1]),
        (
            "cost",
            f"{found['time_ratio']:.3f} times the other's time per image, "
            f"in half of the turns {low:.3f} to {high:.3f}",
        ),
    ]


def _rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    train, infer, feed = (figures[key] for key in ("train", "inference", "input"))
    rate = figures["matmul"]["flop_per_s"]
    return [
        ("model", f"created in {figures['model']['create_s']:.1f} s"),
        (
            "compile",
            f"trace {train['trace_s']:.1f} s, compile {train['compile_cold_s']:.1f} s; "
            f"both from the cache {train['trace_and_compile_cached_s']:.1f} s",
        ),
        (
            "train step",
            f"{train['images_per_s']:.1f} images/s, batch {train['batch_size']}, "
            f"{1000 * train['step_s']:.0f} ms",
        ),
        (
            "compute",
            f"{_in(1e9, train['flop_per_s'])} GFLOP/s per device; its matmul rate is "
            f"{_in(1e9, rate)} ({figures['matmul']['dtype']})",
        ),
        (
            "memory",
            f"planned for a step {_in(2**20, train['planned_bytes'])} MiB, "
            f"peak {_in(2**20, train['peak_bytes'])} MiB",
        ),
        (
            "inference",
            f"{infer['images_per_s']:.1f} images/s, without decoding "
            f"{infer['network_images_per_s']:.1f}; decoding adds "
            f"{infer['decode_share_of_network']:.1%}",
        ),
        ("input", _input_row(feed)),
    ]


def _input_row(feed: dict[str, Any] | None) -> str:
    if feed is None:
        return "not measured, the dataset is not there"
    return (
        f"{feed['pipeline']:.1f} images/s in {feed['threads']} threads; plain loop "
        f"{feed['plain']:.1f}, ratio {feed['ratio']:.2f}"
    )


def _in(unit: float, value: float | None) -> str:
    return "unknown" if value is None else f"{value / unit:,.1f}"


if __name__ == "__main__":
    define_flags()
    cli.run(main)
