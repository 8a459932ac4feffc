"""Start values of a model, without running or compiling its forward pass."""

from typing import Any

import jax
import numpy as np
from flax import linen as nn

from occjax.types import Inputs


def variables(model: nn.Module, inputs: Inputs, seed: int) -> dict[str, Any]:
    """Variables of a model as NumPy arrays; `inputs` may be shapes alone."""
    created = model.lazy_init(jax.random.key(seed), inputs, train=True)
    return jax.tree.map(np.asarray, created)
