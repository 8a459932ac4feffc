"""Trains a pose estimator, and scores it.

    python -m occjax.train --config configs/pinet.py[:VARIANT] [--workdir DIR]
        [--config.KEY=VALUE ...]

With the default config: the built-in crowd and a model for a laptop, no downloads.
If DIR holds a run, the run goes on from its last checkpoint, bit for bit as if it had
never stopped. In DIR (by default runs/NAME[-VARIANT]) it leaves

    config.json, environment.json     what ran, on what
    metrics.jsonl, events.out.*       figures of training; the latter for TensorBoard,
                                      where DIR is no bucket (gs://...)
    checkpoints/STEP/                 state, place in the data, config
    metrics.json, detections.json     the final evaluation
    samples/*.png                     poses found (left) beside the truth (right)

SIGTERM or Ctrl-C saves a checkpoint and ends with status 143; the same command then
goes on. Several machines: TPU pods and Slurm are detected; elsewhere start the command
on each with --coordinator, --num_processes and --process_id.
"""

import dataclasses
import types
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags
from etils import epath
from flax import linen as nn
from ml_collections import ConfigDict

from occjax import files, scoring
from occjax.data import pipeline, sources
from occjax.errors import UserError
from occjax.evaluation import report
from occjax.runtime import (
    checkpoint,
    cli,
    inference,
    objective,
    processes,
    progress,
    staged,
    step,
    transfer,
)
from occjax.runtime import config as configs
from occjax.runtime.mesh import Layout
from occjax.runtime.prefetch import Prefetch
from occjax.types import Poses

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Task:
    """What a run trains and scores, and where."""

    config: ConfigDict
    workdir: epath.Path
    layout: Layout
    train_source: sources.Source
    test_source: sources.Source
    method: types.ModuleType
    model: nn.Module
    predict_step: step.PredictStep
    suppress_step: step.SuppressStep | None

    @property
    def data(self) -> dict[str, Any]:
        """`config.data` and `config.occlusion` as the pipeline wants them."""
        return configs.data_settings(self.config)


def define_flags() -> None:
    """Declares the command's flags."""
    configs.define_flag()
    flags.DEFINE_string(
        "workdir", None, "Folder of the run; by default runs/NAME[-VARIANT]."
    )
    cli.define_distributed_flags()


def main(argv: Sequence[str]) -> None:
    """Trains what the flags name."""
    del argv
    if FLAGS.config is None:
        raise UserError("--config is missing; try --config configs/pinet.py.")
    cli.start_jax()
    train(FLAGS.config, epath.Path(FLAGS.workdir or f"runs/{configs.run_name()}"))


def prepare(config: ConfigDict, workdir: epath.Path) -> Task:
    """Opens data and builds the model; the config's mistakes show here.

    Raises:
        UserError: data, model or batch size are not what they must be.
    """
    layout = Layout.create(configs.computing(config, "state_shards"))
    objective.check_batch(config, layout)
    data = config.data.to_dict()
    train_source = sources.load(data, data["split"])
    test_source = sources.load_test(data)
    method, model = step.build_model(config, train_source.skeleton)
    predict_step = step.make_predict_step(method, model, layout)
    return Task(
        config,
        workdir,
        layout,
        train_source,
        test_source,
        method,
        model,
        predict_step,
        step.make_suppress_step(method, model),
    )


def train(config: ConfigDict, workdir: epath.Path) -> None:
    """Runs `config.steps` steps, from the last checkpoint if there is one, and scores.

    Raises:
        UserError: for all that a user can put right.
        SystemExit: with status 143, when the job was asked to stop.
    """
    config = staged.resolve(config)
    task = prepare(config, workdir)
    shape = configs.input_shape(config)
    state = step.init_state(config, task.model, shape, task.layout)
    train_step = step.make_train_step(
        config, task.method, task.model, state, task.layout
    )
    with checkpoint.Checkpoints(workdir) as checkpoints:
        state, position = checkpoint.resume(checkpoints, state, config)
        if position is None:
            tables = transfer.tables_of(task.method, task.model)
            state = transfer.start_from(state, config.init_from, task.layout, tables)
            state = staged.fill(state, config, task.layout)
            state = task.layout.arrange_state(state)
        start = int(state.step)
        describe(task, state)
        with (
            progress.Writer(workdir, start) as writer,
            progress.Progress(writer, start, config, checkpoints.last_good) as shown,
            Prefetch(training_batches(task, position), task.layout) as feed,
            checkpoint.Preemption() as preemption,
        ):
            for n in range(start, config.steps):
                stopping = preemption.asked(n)
                evaluating = n > start and n % config.eval_every == 0
                saving = n > start and n % config.checkpoint_every == 0
                if stopping or evaluating or saving:
                    shown.flush()  # a step that went wrong must not be saved
                    checkpoints.save(n, state, position, config)
                if stopping:
                    shown.say(f"asked to stop: saved step {n}")
                    raise SystemExit(checkpoint.STOPPED)
                if evaluating:
                    evaluate(task, state, writer)
                    shown.restart_clock()
                batch, position = next(feed)
                with jax.transfer_guard("disallow"):
                    state, measured = train_step(state, batch)
                shown.add(n + 1, measured, feed.waited)
            shown.flush()
            checkpoints.save(config.steps, state, position, config)
            evaluate(task, state, writer, final=True)


def training_batches(task: Task, position: Any) -> Any:
    """Endless batches of the training split, from a saved position or the start."""
    batches = pipeline.train_batches(
        task.train_source,
        task.data,
        task.config.batch_size,
        task.config.seed,
        **processes.share(),
    )
    if position is not None:
        batches.set_state(position)
    return batches


def describe(task: Task, state: step.TrainState) -> None:
    """Says what is about to run, and leaves config.json and environment.json."""
    if not processes.first():
        return
    count = sum(x.size for x in jax.tree.leaves(state.params))
    configs.write(task.config, task.workdir / "config.json")
    files.write_json(task.workdir / "environment.json", cli.environment(), 2)
    print(
        f"{task.workdir}: {task.config.method} with {count / 1e6:.2f} M parameters, "
        f"{len(task.train_source)} images of {task.train_source.name}, "
        f"step {int(state.step)} of {task.config.steps}, "
        f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        flush=True,
    )


def evaluate(
    task: Task,
    state: step.TrainState,
    writer: progress.Writer,
    final: bool = False,
) -> None:
    """Scores the evaluation split; `final` leaves files and prints the table."""
    batches = pipeline.test_batches(
        task.test_source,
        task.data,
        task.config.batch_size,
        **processes.share(),
    )
    source, config = task.test_source, task.config
    total = min(config.data.eval_images or len(source), len(source))
    poses, image_ids = inference.predict_dataset(
        task.predict_step,
        task.layout.gather(state.variables),
        progress.watched(batches, total),
        task.layout,
        task.suppress_step,
    )
    if processes.first():
        save_scores(task, int(state.step), total, poses, image_ids, writer, final)
    processes.wait()


def save_scores(
    task: Task,
    steps: int,
    total: int,
    poses: Poses,
    image_ids: Any,
    writer: progress.Writer,
    final: bool,
) -> None:
    """Scores the poses [N, P, ...] of `total` images; see `evaluate`."""
    source, config = task.test_source, task.config
    scored = scoring.score(
        source, config.data.to_dict(), total, poses, image_ids.tolist()
    )
    figures = report.headline_figures(scored.metrics)
    writer.write(steps, {f"test/{k}": v for k, v in figures.items()})
    if final:
        split = config.data.eval_split
        stamp = report.stamp_of_run(scored, config.to_dict(), split, steps)
        print(scoring.save(task.workdir, source, scored, stamp))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
