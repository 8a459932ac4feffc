"""The jitted steps: (state, batch) -> (state, metrics); (variables, inputs) -> poses.

A step is a pure function, compiled once; its random numbers follow from the seed and
the step's number.
"""

import contextlib
import functools
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict

from occjax import methods
from occjax.errors import UserError
from occjax.runtime import config as configs
from occjax.runtime import initial, objective, optim
from occjax.runtime.mesh import Layout
from occjax.runtime.metrics import Mean, single
from occjax.skeletons import Skeleton
from occjax.types import Array, Batch, Inputs, Poses

TrainStep = Callable[["TrainState", Batch], tuple["TrainState", dict[str, Mean]]]
PredictStep = Callable[[Mapping[str, Any], Inputs], Poses]
SuppressStep = Callable[[Poses, Array], Array]


class TrainState(struct.PyTreeNode):
    """All that training changes."""

    step: Array  # [] int32, how many steps were taken
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any  # moving average of the parameters; None without config.optim.ema

    @property
    def variables(self) -> dict[str, Any]:
        """What to evaluate with: the averaged parameters where there are some."""
        params = self.params if self.ema is None else self.ema
        return {"params": params, "batch_stats": self.batch_stats}


def build_model(
    config: ConfigDict, skeleton: Skeleton
) -> tuple[types.ModuleType, nn.Module]:
    """Imports `config.method` and builds its Model from `config.model`.

    Raises:
        UserError: no such method, or a model field that it lacks or does not accept.
    """
    try:
        method = methods.load(config.method)
    except ValueError as error:
        raise UserError(f"config.{error}") from error
    dtypes = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
    if config.dtype not in dtypes:
        raise UserError(
            f"config.dtype: {config.dtype!r} is none of {', '.join(dtypes)}."
        )
    fields = config.model.to_dict()
    if "score" in config:  # a choice of those methods that have one
        fields["score"] = config.score
    try:
        return method, method.Model(
            skeleton=skeleton, dtype=dtypes[config.dtype], **fields
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"config.model: {error}") from error


def init_state(
    config: ConfigDict, model: nn.Module, image_shape: tuple[int, ...], layout: Layout
) -> TrainState:
    """A fresh state on all devices, the same on each process.

    Args:
        config: uses `seed`, `steps`, `optim`, `trainable` and `state_shards`.
        model: from `build_model`.
        image_shape: [H, W, 3] of any image the model accepts, [P, H, W, 3] of people.
        layout: where to put it.

    Raises:
        UserError: the model refuses its settings, or the optimiser its own.
    """
    with _clear_errors():
        variables = initial.variables(model, _example(image_shape), config.seed)
    params = variables["params"]
    state = TrainState(
        step=np.zeros((), np.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=initial.in_numpy(make_optimizer(config, params).init, params),
        ema=jax.tree.map(np.copy, params) if config.optim.ema else None,
    )
    return layout.place_state(state)


def variable_shapes(model: nn.Module, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """Shapes and dtypes of "params" and "batch_stats"; computes none of them.

    Args:
        model: from `build_model`.
        image_shape: [H, W, 3] of any image the model accepts, [P, H, W, 3] of people.

    Raises:
        UserError: the model refuses its settings.
    """
    init = functools.partial(model.init, train=True)
    with _clear_errors():
        shapes = jax.eval_shape(init, jax.random.key(0), _example(image_shape))
    return {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}


def make_optimizer(config: ConfigDict, params: Any) -> optax.GradientTransformation:
    """The optimiser of `config.optim` for what `config.trainable` lets learn."""
    mask = optim.trainable_mask(params, config.trainable)
    return optim.optimizer(config.optim, config.steps, mask, is_flat(config))


def is_flat(config: ConfigDict) -> bool:
    """Whether the optimiser keeps vectors of all parameters, which are not split."""
    return configs.computing(config, "state_shards") == 1


def make_train_step(
    config: ConfigDict,
    method: types.ModuleType,
    model: nn.Module,
    state: TrainState,
    layout: Layout,
) -> TrainStep:
    """Compiles one optimisation step. The state handed to it is used up (donated).

    Metrics: every loss term, "loss", "gradient_norm" and "learning_rate", as pairs
    that merge over steps.

    Args:
        config: uses `seed`, `steps`, `loss`, `optim`, `trainable`, and the keys of
            `config.COMPUTING`.
        method: from `build_model`.
        model: from `build_model`.
        state: from `init_state`; only its structure and shapes are read.
        layout: where state and batches lie.
    """
    tx = make_optimizer(config, state.params)
    rate = optim.schedule(config.optim, config.steps)
    learns = optim.trainable_mask(state.params, config.trainable)
    gradient = objective.make(config, functools.partial(_terms, method, model))
    norm = _flat_norm if is_flat(config) else _norm

    def train_step(
        state: TrainState, batch: Batch
    ) -> tuple[TrainState, dict[str, Mean]]:
        rng = jax.random.fold_in(jax.random.key(config.seed), state.step)
        grads, metrics, stats = gradient(state.params, state.batch_stats, rng, batch)
        # Zeros in place of gradients nobody uses: the compiler then leaves them out.
        grads = jax.tree.map(
            lambda g, on: g if on else jnp.zeros_like(g), grads, learns
        )
        metrics["gradient_norm"] = single(norm(grads))
        metrics["learning_rate"] = single(rate(state.step))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.ema
        if average is not None:
            average = optim.ema_update(average, params, config.optim.ema, state.step)
        stats = _keep_frozen(state.batch_stats, stats, config.trainable)
        new = TrainState(state.step + 1, params, stats, opt_state, average)
        return new, metrics

    of_state = layout.of_state(state)
    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(of_state, layout.batch),
        out_shardings=(of_state, layout.replicated),
        compiler_options=compiler_options(),
    )


def make_predict_step(
    method: types.ModuleType, model: nn.Module, layout: Layout
) -> PredictStep:
    """Compiles inference: `TrainState.variables` and Inputs -> Poses on every device.

    Network, graphs and decoding are one call, compiled anew for each shape of Inputs.
    """

    def predict_step(variables: Mapping[str, Any], inputs: Inputs) -> Poses:
        with _clear_errors():
            outputs = model.apply(variables, inputs, train=False)
        return method.decode(model, outputs, inputs)

    return jax.jit(
        predict_step,
        in_shardings=(layout.replicated, layout.batch),
        out_shardings=layout.replicated,
        compiler_options=compiler_options(),
    )


def make_suppress_step(
    method: types.ModuleType, model: nn.Module
) -> SuppressStep | None:
    """Compiles `suppress` of a method: (poses, areas) of images -> scores."""
    if not hasattr(method, "suppress"):
        return None
    return jax.jit(
        functools.partial(method.suppress, model), compiler_options=compiler_options()
    )


def compiler_options() -> dict[str, Any] | None:
    """XLA options of all steps: the one place for them; None means XLA's defaults.

    On CPUs the default optimiser takes twice as long over HRNet-W32 and gives steps
    that are no faster (docs/benchmark.md).
    """
    if jax.default_backend() != "cpu":
        return None
    return {"xla_cpu_opt_preset": "CPU_OPT_PRESET_FAST_COMPILE"}


def _terms(
    method: types.ModuleType,
    model: nn.Module,
    params: Any,
    batch_stats: Any,
    rng: jax.Array,
    batch: Batch,
) -> tuple[objective.Terms, Any]:
    """Loss terms of a batch in training, and the new batch statistics."""
    asked = {}
    if hasattr(method, "proposals"):
        asked["proposals"] = method.proposals(model, batch.labels)
    with _clear_errors():  # such as of inputs that a setting needs
        outputs, updates = model.apply(
            {"params": params, "batch_stats": batch_stats},
            batch.inputs,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": rng},
            **asked,
        )
    terms = method.loss_terms(model, outputs, batch.labels)
    return terms, updates.get("batch_stats", {})


def _flat_norm(tree: Any) -> jax.Array:
    """Norm of all values, by two kernels instead of one for each array."""
    return jnp.linalg.norm(ravel_pytree(tree)[0])


def _norm(tree: Any) -> jax.Array:
    """The same without bringing together what devices share out."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


def _keep_frozen(old: Any, new: Any, pattern: str) -> Any:
    """New statistics where the layer learns, the old ones where it is frozen."""
    if not pattern:
        return new
    learns = optim.matches(old, pattern)
    return jax.tree.map(lambda a, b, on: b if on else a, old, new, learns)


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    """Turns a model's refusal of its settings into one line."""
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:  # jax's own, which no setting causes
            raise
        raise UserError(f"config.model: {error}") from error


def _example(image_shape: tuple[int, ...]) -> Inputs:
    """Shapes of the least a model is created with; fields not given stay None."""
    lead = (1, *image_shape[:-3])
    return Inputs(
        image=jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8),
        valid=jax.ShapeDtypeStruct((*lead, 2), jnp.int32),
        to_source=jax.ShapeDtypeStruct((*lead, 2, 3), jnp.float32),
        box=jax.ShapeDtypeStruct((*lead, 4), jnp.float32),
        box_score=jax.ShapeDtypeStruct(lead, jnp.float32),
    )
