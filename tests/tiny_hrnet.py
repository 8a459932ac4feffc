"""A tiny PINet whose backbone is an HRNet, so that its weights have published names."""

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import pinet as config_file
from occjax import skeletons
from occjax.methods import pinet
from occjax.runtime import config, mesh, step, weights

IMAGENET = {"incre_modules.0.0.conv1.weight": (8, 4, 1, 1), "classifier.bias": (10,)}


def get_config(variant: str = "") -> ConfigDict:
    """This file is an experiment: --config tests/tiny_hrnet.py[:wide]."""
    if variant not in ("", "wide"):
        raise ValueError(f"there is no variant {variant!r}")
    settings = config_file.smoke()
    settings.model.backbone = ConfigDict(
        {
            "name": "hrnet",
            "width": 8 if variant else 4,
            "modules": (1, 1, 1),
            "blocks": 1,
            "stem": 8,
            "bottlenecks": 1,
        }
    )
    settings.model.threshold = -1.0  # finds people everywhere
    settings.model.peaks = 3
    settings.data.eval_images = 4
    return settings


def state(variant: str = "", seed: int = 0, skeleton=skeletons.COCO):
    """Config and a fresh training state."""
    settings = get_config(variant)
    settings.seed = seed
    _, model = step.build_model(settings, skeleton)
    shape = config.input_shape(settings)
    return settings, step.init_state(settings, model, shape, mesh.Layout.create())


def published(variant: str = "", seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under the names of the published code, counters included."""
    variables = jax.tree.map(np.array, state(variant, seed)[1].variables)
    found = weights.revert(variables, pinet.TORCH_NAMES)
    counters = [name for name in found if name.endswith(".running_mean")]
    for name in counters:
        found[name.replace("running_mean", "num_batches_tracked")] = np.float32(3)
    return found


def imagenet(variant: str = "", seed: int = 0) -> dict[str, np.ndarray]:
    """The backbone's weights alone, as a file trained on ImageNet names them."""
    backbone = {
        name.removeprefix("backbone."): array
        for name, array in published(variant, seed).items()
        if name.startswith("backbone.")
    }
    rest = {name: np.ones(shape, np.float32) for name, shape in IMAGENET.items()}
    return backbone | rest
