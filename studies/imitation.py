"""Whether features of an occluded crop really come to be like those of its clean twin.

Unseen crops are looked at by a trained OASNet as in training: each beside its own twin,
and beside the twin of another crop.
"""

import itertools
import json
import pathlib
import statistics
from typing import Any

import jax
import jax.numpy as jnp

from occjax.data import pipeline, sources
from occjax.runtime import config as configs
from occjax.runtime import step, trained
from occjax.runtime.metrics import weighted_mean
from occjax.types import Batch

BATCHES = 20


def measure(run: pathlib.Path) -> dict[str, float]:
    """Mimicry of a run: at the `start` and `end` of training, `own` and `other` twin.

    Args:
        run: folder of a finished training with mimicry.
    """
    number, config = trained.last(run)
    data = configs.data_settings(config)
    source = sources.load(data, config.data.eval_split)
    method, model = step.build_model(config, source.skeleton)
    variables = trained.load(run, number, config, source.skeleton).variables

    @jax.jit
    def mimicry(batch: Batch) -> jax.Array:
        outputs, _ = model.apply(
            variables, batch.inputs, train=True, mutable=["batch_stats"]
        )
        return weighted_mean(*method.loss_terms(model, outputs, batch.labels)["mimic"])

    batches = pipeline.train_batches(source, data, config.batch_size, seed=0)
    own, other = [], []
    for batch in itertools.islice(batches, BATCHES):
        own.append(float(mimicry(batch)))
        other.append(float(mimicry(_turned(batch))))
    losses = _losses(run)
    tenth = max(1, len(losses) // 10)
    return {
        "start": statistics.mean(losses[:tenth]),
        "end": statistics.mean(losses[-tenth:]),
        "own": statistics.mean(own),
        "other": statistics.mean(other),
    }


def _turned(batch: Batch) -> Batch:
    """The batch with the twin of the crop before in place of each crop's own."""
    inputs: Any = batch.inputs
    return batch._replace(
        inputs=inputs._replace(clean=jnp.roll(inputs.clean, 1, axis=0))
    )


def _losses(run: pathlib.Path) -> list[float]:
    """The mimicry of training as it was logged."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["mimic"] for row in map(json.loads, lines) if "mimic" in row]
