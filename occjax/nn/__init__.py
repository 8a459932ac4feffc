"""Flax modules that methods share; a backbone is one file that defines `Backbone`."""

import importlib
import importlib.util
from typing import Any

from flax import linen as nn

from occjax.types import Array


def backbone(name: str, **fields: Any) -> nn.Module:
    """Builds the backbone of `occjax/nn/NAME.py`.

    A backbone maps images [B, H, W, 3] (normalised, float) to features
    [B, H / stride, W / stride, C] and has a `train` argument like every module here.

    Raises:
        ValueError: there is no such backbone, or it has no such field.
    """
    known = name.isidentifier() and importlib.util.find_spec(f"{__name__}.{name}")
    if not known:
        raise ValueError(f"backbone.name: {name!r} is no file of occjax/nn.")
    module = importlib.import_module(f"{__name__}.{name}")
    if not hasattr(module, "Backbone"):
        raise ValueError(f"backbone.name: occjax/nn/{name}.py defines no Backbone.")
    try:
        return module.Backbone(**fields)
    except TypeError as error:
        raise ValueError(f"backbone {name}: {error}") from error


def check_stride(features: Array, image: Array, stride: int) -> None:
    """Refuses features that do not have the stride a method reads them with.

    Args:
        features: [B, h, w, C].
        image: [B, H, W, 3] that they come from.
        stride: H / h and W / w wanted.

    Raises:
        ValueError: they have another one.
    """
    size = features.shape[1:3]
    if (size[0] * stride, size[1] * stride) != image.shape[1:3]:
        raise ValueError(
            f"backbone: expected features of stride {stride}, got maps of "
            f"{size} from images of {image.shape[1:3]}."
        )
