"""The whole top-down HRNet-W32 and its training against the official code."""

import functools
import json
from typing import Any, NamedTuple

import equivalence
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from golden_nets import (
    count,
    gradient_norms,
    inside,
    nhwc,
    quick_jit,
    shapes_of,
)

from occjax.nn import heads, hrnet
from occjax.nn.torch_names import prefixed
from occjax.ops import losses
from occjax.runtime import weights

check = functools.partial(equivalence.check, "HRNet-W32, top-down")


class Pose(nn.Module):
    """The whole top-down network: finest branch and heatmaps."""

    joints: int
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, image, *, train):
        trunk = hrnet.Backbone(concat=False, dtype=self.dtype, name="trunk")
        final = heads.Heatmaps(self.joints, dtype=self.dtype, name="final")
        return final(trunk(image, train=train))


POSE_NAMES = (
    *prefixed(heads.HEATMAP_NAMES, "", "final"),
    *prefixed(hrnet.TORCH_NAMES, "", "trunk"),
)


@pytest.fixture(scope="module")
def pose(golden):
    """Folder and converted variables of the official top-down W32."""
    _, state_dict = golden_weights.load(golden / "pose_hrnet_w32")
    shapes = shapes_of(Pose(17))
    return golden / "pose_hrnet_w32", weights.convert(state_dict, POSE_NAMES, shapes)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(np.float32, 2e-5), pytest.param(np.float64, 5e-6, marks=pytest.mark.slow)],
)
def test_heatmaps_equal_the_official_top_down_network(pose, dtype, tolerance):
    folder, variables = pose
    expected = np.load(folder / "eval_heatmaps.npz")
    for size in ("small", "full"):
        image = nhwc(expected[f"{size}_image"])
        maps, _ = inside(Pose(17), variables, image, dtype)
        theirs = nhwc(expected[f"{size}_heatmap"])
        check(f"forward: heatmaps, {size}", maps, theirs, tolerance)
    assert count(variables["params"]) == 28_536_113


def in_order(tree, names, part, state_dict):
    """Our statistics as one vector, in the order in which torch has them."""
    numbered = dict(state_dict)
    start = 0
    for name in names:
        size = state_dict[f"{name}.{part}"].size
        numbered[f"{name}.{part}"] = np.arange(start, start + size, dtype=np.float32)
        start += size
    where = weights.convert(numbered, POSE_NAMES, shapes_of(Pose(17)))["batch_stats"]
    vector = np.full(start, np.nan)
    leaf = part.removeprefix("running_")
    for path, value in jax.tree.leaves_with_path(tree):
        if path[-1].key == leaf:
            index = functools.reduce(lambda node, key: node[key.key], path, where)
            vector[index.astype(int)] = value
    return vector


class Trajectory(NamedTuple):
    """Five steps of Adam in float64."""

    losses: list[float]  # before each update and after the last
    maps: Any  # of the first step
    stats: Any  # after the first step
    grads: Any  # of the first step
    after_one: Any  # parameters
    after_all: Any  # parameters


@pytest.fixture(scope="module")
def trajectory(pose):
    folder, variables = pose
    z = np.load(folder / "train_step.npz")
    weight = np.square(z["target_weight"][..., 0])  # it multiplies both maps

    def loss(params, stats, image, target, weight):
        given = {"params": params, "batch_stats": stats}
        model = Pose(17, dtype=jnp.float64)
        maps, state = model.apply(given, image, train=True, mutable=["batch_stats"])
        values, _ = losses.weighted_mse(maps, target, weight)
        return 0.5 * jnp.mean(values), (maps, state["batch_stats"])

    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        image, target = (jnp.float64(nhwc(z[key])) for key in ("image", "target"))
        weight = jnp.broadcast_to(weight[:, None, None], target.shape)
        batch = image, target, jnp.float64(weight)
        params, stats = (
            jax.tree.map(jnp.float64, variables[key])
            for key in ("params", "batch_stats")
        )
        step = quick_jit(jax.value_and_grad(loss, has_aux=True))
        adam = optax.adam(1e-3)
        update, state = quick_jit(adam.update), adam.init(params)
        rows, first = [], {}
        for _ in range(5):
            (value, (maps, stats)), grads = step(params, stats, *batch)
            rows.append(float(value))
            updates, state = update(grads, state)
            params = optax.apply_updates(params, updates)
            first = first or dict(maps=maps, stats=stats, grads=grads, after_one=params)
        rows.append(float(step(params, stats, *batch)[0][0]))
        yield Trajectory(rows, **first, after_all=params)
    jax.clear_caches()  # it takes gigabytes


@pytest.mark.slow
def test_a_training_step_in_float64_equals_the_official_code(pose, trajectory):
    folder, _ = pose
    manifest, state_dict = golden_weights.load(folder)
    expected = np.load(folder / "train_step.npz")
    # of a float32 run, whose maps and statistics are this far from a float64 run's
    note = "the reference computed it in float32"
    theirs = nhwc(expected["pred"])
    check("forward: heatmaps, training", trajectory.maps, theirs, 3e-4, note=note)
    for part in ("running_mean", "running_var"):
        names = manifest["bn_order"]
        found = in_order(trajectory.stats, names, part, state_dict)[::4]
        theirs = expected[f"{part}_after_step_every4"]
        link = f"forward: {part.replace('_', ' ')}, training"
        check(link, found, theirs, 3e-4, note=note)
    norms = json.loads((folder / "train_grad_l2.json").read_text())["l2"]
    norms = {name: pair[1] for name, pair in norms.items()}
    norms = gradient_norms(trajectory.grads, state_dict, norms, POSE_NAMES)
    check("gradient norm", *norms, 1e-6, "each")


@pytest.mark.slow
def test_five_adam_steps_in_float64_equal_the_official_code(pose, trajectory):
    folder, _ = pose
    _, state_dict = golden_weights.load(folder)
    wanted = json.loads((folder / "trajectory.json").read_text())
    found = np.float64(trajectory.losses)
    check("loss", found[:1], wanted["float64"][:1], 1e-6, "each")
    link = "five optimiser steps: "
    check(link + "losses", found[1:], wanted["float64"][1:], 1e-6, "each")
    norms = wanted["param_l2_after_last_update"]["l2"]
    norms = {name: pair[1] for name, pair in norms.items()}
    norms = gradient_norms(trajectory.after_all, state_dict, norms, POSE_NAMES)
    check(link + "norms of parameters", *norms, 1e-6, "each")


def test_gradients_with_frozen_batch_norms_equal_the_official_code(pose):
    folder, variables = pose
    _, state_dict = golden_weights.load(folder)
    z = np.load(folder / "train_step.npz")
    image, target = nhwc(z["image"]), nhwc(z["target"])
    weight = np.square(z["target_weight"][..., 0])[:, None, None]
    weight = np.broadcast_to(weight, target.shape)

    def loss(params):
        maps = Pose(17).apply({**variables, "params": params}, image, train=False)
        return 0.5 * jnp.mean(losses.weighted_mse(maps, target, weight)[0])

    value, grads = quick_jit(jax.value_and_grad(loss))(variables["params"])
    wanted = json.loads((folder / "train_grad_l2.json").read_text())["bn_frozen"]
    check("loss: batch norms frozen", value, wanted["loss_float64"], 2e-5, "each")
    norms = {name: pair[1] for name, pair in wanted["l2"].items()}
    norms = gradient_norms(grads, state_dict, norms, POSE_NAMES)
    check("gradient norm: batch norms frozen", *norms, 2e-3, "each")
