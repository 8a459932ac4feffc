"""DEKR with the weights of the reference figures."""

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import published_pinet

from occjax.methods import dekr
from occjax.runtime.weights import convert
from occjax.skeletons import COCO, CROWDPOSE

NAME = "DEKR (HRNet-W32)"
FIELDS = {
    "dekr_coco": {"skeleton": COCO},
    "dekr_crowdpose": {
        "skeleton": CROWDPOSE,
        "centre_sigma": 2.0,
        "small_area": 0.0,
        "shared": 7,
        "scale_decrease": 0.8,
    },
}


def bare(name, dtype=np.float32, **fields):
    """The settings of a folder of reference figures."""
    backbone = {"name": "hrnet", "width": 32}
    return dekr.Model(backbone=backbone, dtype=dtype, **FIELDS[name], **fields)


def build(golden, name, dtype=np.float32, **fields):
    """The model of a folder of reference figures, and its variables."""
    model = bare(name, dtype, **fields)
    _, state_dict = golden_weights.load(golden / name)
    variables = convert(state_dict, dekr.TORCH_NAMES, shapes_of(model))
    return model, jax.tree.map(lambda x: jnp.asarray(x, dtype), variables)


def shapes_of(model):
    """Shapes of a model's variables."""
    inputs = published_pinet.inputs_of(np.zeros((1, 64, 96, 3), np.float32))
    return jax.eval_shape(
        lambda: model.init(jax.random.key(0), inputs, train=False)  # nothing is run
    )


def torch_names(golden, name, variables):
    """Torch name of each variable, found by sending numbers through `convert`."""
    _, state_dict = golden_weights.load(golden / name)
    names = list(state_dict)
    marks = {
        n: np.full(x.shape, i, float) for i, (n, x) in enumerate(state_dict.items())
    }
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, np.float64), variables
    )
    marked = convert(marks, dekr.TORCH_NAMES, shapes)
    return jax.tree.map(lambda x: names[int(x.flat[0])], marked)
