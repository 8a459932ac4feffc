"""OPEC-Net's reference weights and inputs for our modules."""

import functools

import golden_weights
import jax
import jax.numpy as jnp
import numpy as np

from occjax.nn import opec_head
from occjax.ops import losses
from occjax.runtime import weights
from occjax.skeletons import OCPOSE

FACTORS = (0.3, 0.5, 1.0, 1.0)  # of the losses of P1, P2, P3 and the first pose
MODEL = "OPEC-Net"
BATCH_KEYS = ("feat1", "feat2", "feat3", "pose_in")
head = functools.partial(opec_head.OpecHead, OCPOSE.num_joints, OCPOSE.bones)


EVALUATION = {"train": False}


def shapes(module, *args, how=EVALUATION):
    """Shapes of a module's variables; nothing is computed."""
    init = functools.partial(module.init, **how)
    return jax.eval_shape(init, jax.random.key(0), *args)


def random_variables(module, *args, how=EVALUATION):
    """Variables of a small module drawn without JAX; variances are 1."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[0].key == "batch_stats":
            return np.full(leaf.shape, path[-1].key == "var", np.float32)
        return 0.3 * rng.standard_normal(leaf.shape, np.float32)

    return jax.tree.map_with_path(draw, shapes(module, *args, how=how))


def own(state_dict, prefix):
    """The weights of a part, without its prefix."""
    return {
        name.removeprefix(prefix): array
        for name, array in state_dict.items()
        if name.startswith(prefix)
    }


def state_dict(golden, *parts):
    """Torch's arrays, of several parts of the manifest together."""
    loaded = [golden_weights.load(golden / "opec_net", part)[1] for part in parts]
    return functools.reduce(lambda a, b: a | b, loaded)


def arguments(figures, dtype=np.float32):
    """Maps, no heatmaps, and poses, as `OpecHead` takes them."""
    *maps, pose = (figures[key].astype(dtype) for key in BATCH_KEYS)
    return [jnp.asarray(np.moveaxis(x, 1, -1)) for x in maps], None, jnp.asarray(pose)


def variables(golden, model, args, *parts):
    """Reference weights of a whole head, float32."""
    rows = opec_head.TORCH_NAMES
    return weights.convert(state_dict(golden, *parts), rows, shapes(model, *args))


def loss_parts(outputs, gt):
    """The losses of P1, P2, P3 and the first pose, each a mean over coordinates."""
    target = jnp.asarray(gt[..., :2], outputs.start.dtype)
    weight = jnp.broadcast_to(jnp.asarray(gt[..., 2:] > 0), target.shape)
    parts = []
    for pose in (*outputs.poses, outputs.start):
        values, counted = losses.weighted_l1(pose, target, weight)
        parts.append(jnp.sum(values * counted) / jnp.sum(counted))
    return jnp.stack(parts)


def total(parts):
    """The training loss."""
    return sum(factor * part for factor, part in zip(FACTORS, parts, strict=True))
