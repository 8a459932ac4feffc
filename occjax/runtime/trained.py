"""A run's last checkpoint, ready to look at images."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
from etils import epath

from occjax.errors import UserError
from occjax.runtime import checkpoint, inference, progress, step
from occjax.runtime import config as configs
from occjax.runtime.mesh import Layout
from occjax.skeletons import Skeleton
from occjax.types import Batch


class Trained(NamedTuple):
    """A trained model on all devices."""

    config: Any  # ConfigDict
    predict_step: step.PredictStep
    suppress_step: step.SuppressStep | None
    variables: Mapping[str, Any]  # the averaged parameters where there are some
    layout: Layout

    @property
    def batch_size(self) -> int:
        """That of training, rounded up so that the devices can share it."""
        return self.rounded(self.config.batch_size)

    def rounded(self, images: int) -> int:
        """The least number of at least so many images that the devices can share."""
        devices = self.layout.mesh.size
        return -(-images // devices) * devices

    def predict(self, batches: Iterable[Batch], total: int) -> inference.Predictions:
        """Poses of batches, with a progress bar of `total` images; 0: without."""
        watched = progress.watched(batches, total) if total else batches
        return inference.predict_dataset(
            *(self.predict_step, self.variables, watched, self.layout),
            self.suppress_step,
        )


def last(
    workdir: epath.PathLike,
    flip: bool | None = None,
    changes: Iterable[str] = (),
) -> tuple[int, Any]:
    """Step and config of a run's last checkpoint.

    Args:
        workdir: of the run.
        flip: whether to test with the mirrored image; None: as the config has it.
        changes: of the config, each KEY=VALUE.

    Raises:
        UserError: there is no run or no checkpoint, or it is damaged; or a change does
            not suit its config.
    """
    folder = epath.Path(workdir) / "checkpoints"
    if not folder.is_dir():  # orbax would make it
        raise UserError(f"{workdir}: no run of occjax.train, it has no checkpoints.")
    config: Any
    with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
        if checkpoints.latest is None:
            raise UserError(f"{folder}: no checkpoint yet.")
        number, config = checkpoints.latest, checkpoints.config(checkpoints.latest)
    if flip is not None:
        with config.unlocked():
            config.model.flip_test = flip
    for assignment in changes:
        configs.change(config, assignment)
    return number, config


def rank_by(config: Any, score: str) -> None:
    """Changes what ranks the poses of a run.

    Raises:
        UserError: the run has no such choice.
    """
    if config.get("score") is None:
        if score == "heatmap":  # what all of them do
            return
        raise UserError(
            f"--score={score}: this run has no KS-net; train one on it with --config "
            "configs/ksnet.py --config.base=RUN."
        )
    with config.unlocked():
        config.score = score


def load(
    workdir: epath.PathLike, number: int, config: Any, skeleton: Skeleton
) -> Trained:
    """Puts the weights of a checkpoint on all devices.

    Args:
        workdir: of the run.
        number: step of the checkpoint.
        config: of the run; how the model decodes may differ from training.
        skeleton: of the data that it was trained on.

    Raises:
        UserError: the checkpoint is damaged, or of another model.
    """
    layout = Layout.create()
    method, model = step.build_model(config, skeleton)
    shapes = step.variable_shapes(model, configs.input_shape(config))
    with checkpoint.Checkpoints(workdir, read_only=True) as checkpoints:
        variables = checkpoints.variables(number, layout.replicated)
    _check_shapes(variables, shapes, f"{workdir}/checkpoints/{number}")
    run = step.make_predict_step(method, model, layout)
    suppress = step.make_suppress_step(method, model)
    return Trained(config, run, suppress, variables, layout)


def _check_shapes(variables: Any, shapes: Any, path: str) -> None:
    """Raises UserError where variables have not the names and shapes of the model."""
    found, wanted = (
        {
            jax.tree_util.keystr(name, simple=True, separator="/"): tuple(x.shape)
            for name, x in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (variables, shapes)
    )
    names = found.keys() | wanted.keys()
    wrong = sorted(name for name in names if found.get(name) != wanted.get(name))
    if wrong:
        first = wrong[0]
        raise UserError(
            f"{path}: of another model: {len(wrong)} variables differ, the first is "
            f"{first}: {found.get(first)}, expected {wanted.get(first)}."
        )
