"""PINet with the weights of the reference figures, its backbone compiled only once.

The four reference models share one backbone. `model.apply` runs under
`nn.intercept_methods(one_backbone)` as plain calls around a compiled backbone, so each
input shape costs one compilation of HRNet-W32 for all of them.
"""

import functools

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np

from occjax.methods import pinet
from occjax.nn import hrnet
from occjax.nn.blocks import BatchNorm
from occjax.ops.image import IMAGENET_MEAN, IMAGENET_STD
from occjax.runtime.weights import convert
from occjax.skeletons import COCO, CROWDPOSE
from occjax.types import Inputs

FIELDS = {
    "pinet_ochuman": {"skeleton": COCO},
    "pinet_coco": {"skeleton": COCO, "refine_layers": 2},
    "pinet_crowdpose": {"skeleton": CROWDPOSE, "small_area": 0.0},
    "spm_center": {"skeleton": COCO, "parts": "center", "refine": "none"},
}

# In the page of equal figures.
TITLES = {
    "pinet_ochuman": "PINet (OCHuman)",
    "pinet_coco": "PINet (COCO)",
    "pinet_crowdpose": "PINet (CrowdPose)",
    "spm_center": "SPM",
}


def build(golden, name, dtype=np.float32, **fields):
    """The model of a folder of reference figures, and its variables."""
    model = pinet.Model(
        backbone={"name": "hrnet", "width": 32}, dtype=dtype, **FIELDS[name], **fields
    )
    shapes = jax.eval_shape(
        lambda: model.init(
            jax.random.key(0), inputs_of(np.zeros((1, 64, 64, 3))), train=False
        )
    )
    _, weights = golden_weights.load(golden / name)
    variables = convert(weights, pinet.TORCH_NAMES, shapes)
    return model, jax.tree.map(lambda x: jnp.asarray(x, dtype), variables)


def torch_names(golden, name, params):
    """Torch name of each parameter, found by sending numbers through `convert`."""
    manifest, _ = golden_weights.load(golden / name)
    entries = [entry for entry in manifest["entries"] if "num_batches" not in entry[0]]
    marks = {entry[0]: np.full(entry[1], i, float) for i, entry in enumerate(entries)}
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float64), params)
    marked = convert(marks, pinet.TORCH_NAMES, shapes)
    return jax.tree.map(lambda x: entries[int(x.flat[0])][0], marked)


def image_from_normalised(nchw, dtype=np.float32):
    """The image, 0..255 but not rounded, that normalises to nchw."""
    nhwc = np.moveaxis(np.asarray(nchw, np.float64), 1, -1)
    return jnp.asarray((nhwc * IMAGENET_STD + IMAGENET_MEAN) * 255, dtype)


def inputs_of(image, to_source=((1, 0, 0), (0, 1, 0)), scaled=()):
    """Inputs of images [B, H, W, 3]."""
    batch, height, width, _ = image.shape
    return Inputs(
        image=jnp.asarray(image),
        valid=jnp.broadcast_to(jnp.asarray((height, width)), (batch, 2)),
        to_source=jnp.broadcast_to(jnp.asarray(to_source, jnp.float32), (batch, 2, 3)),
        scaled=tuple(jnp.asarray(x) for x in scaled),
    )


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(module, variables, image):
    return module.apply(variables, image, train=False)


@functools.partial(jax.jit, static_argnums=0)
def _train(module, variables, image):
    return module.apply(variables, image, train=True, mutable=["batch_stats"])


def one_backbone(call, args, kwargs, context):
    """Runs the model's HRNet by the compiled functions above."""
    trunk = context.module
    if trunk.name != "trunk" or context.method_name != "__call__":
        return call(*args, **kwargs)
    plain = hrnet.Backbone(trunk.width, dtype=trunk.dtype, parent=None)
    if not kwargs["train"]:
        return _evaluate(plain, trunk.variables, *args)
    features, changed = _train(plain, trunk.variables, *args)
    for name, value in changed["batch_stats"].items():
        trunk.scope.put_variable("batch_stats", name, value)
    return features


def frozen_norms(call, args, kwargs, context):
    """Lets all batch norms use their running statistics in training as well."""
    if context.method_name == "__call__" and (
        isinstance(context.module, BatchNorm) or context.module.name == "trunk"
    ):
        kwargs = {**kwargs, "train": False}
    return call(*args, **kwargs)
