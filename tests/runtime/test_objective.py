"""Gradients of a batch in groups and in parts against those written out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_method

from configs import common
from occjax import skeletons
from occjax.errors import UserError
from occjax.nn import blocks
from occjax.runtime import config as configs
from occjax.runtime import objective, step
from occjax.runtime.mesh import Layout

tiny_method.install()
WEIGHTS = {"far": 1.0, "near": 0.3}
KEY = jax.random.key(0)
NORM = blocks.BatchNorm()
close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)


def data(rows, seed=0):
    """Points, what they should become, and how much each of them weighs."""
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0, 3, rows).astype(np.float32)
    weight[::3] = 0  # of three parts, one without any label
    x = rng.normal(3, 2, (rows, 5)).astype(np.float32)
    return {"x": x, "y": rng.normal(size=rows).astype(np.float32), "weight": weight}


def variables():
    rng = np.random.default_rng(7)
    draw = lambda *shape: rng.uniform(0.5, 1.5, shape).astype(np.float32)  # noqa: E731
    params = {"line": draw(5), "norm": {"scale": draw(5), "bias": draw(5)}}
    return params, {"norm": {"mean": draw(5), "var": draw(5)}, "still": draw(5)}


def line(params, stats, key, batch, of=lambda x: x):
    """Two terms whose weights differ from row to row."""
    del key
    error = of(batch["x"]) @ params["line"] - batch["y"]
    far = jnp.square(error), batch["weight"]
    return {"far": far, "near": (jnp.abs(error), jnp.ones_like(error))}, stats


def normed(params, stats, key, batch):
    """The same after batch norm."""
    mine = {"params": params["norm"], "batch_stats": stats["norm"]}
    x, new = NORM.apply(mine, batch["x"], train=True, mutable=["batch_stats"])
    terms, _ = line(params, stats, key, batch, lambda _: x)
    return terms, {**stats, "norm": new["batch_stats"]}


def by_hand(x, params):
    """Batch norm of rows in float64, with their mean and unbiased variance."""
    x = x.astype(np.float64)
    y = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    return y * params["scale"] + params["bias"], x.mean(0), x.var(0, ddof=1)


@pytest.mark.parametrize("parts", [2, 3, 12])
def test_parts_have_the_gradient_and_the_figures_of_the_whole_batch(parts):
    params, stats = variables()
    arguments = params, stats, KEY, data(12)
    grads, metrics, _ = jax.jit(objective.whole(line, WEIGHTS))(*arguments)
    run = jax.jit(objective.accumulated(line, WEIGHTS, parts))
    found, measured, _ = run(*arguments)

    jax.tree.map(close, found, grads)
    assert set(measured) == set(metrics) == {"far", "near", "loss"}
    for name in metrics:
        close(measured[name].value, metrics[name].value)
        close(measured[name].weight, metrics[name].weight)


def test_the_mean_of_the_parts_own_gradients_is_another_than_that_of_the_batch():
    params, stats = variables()
    batch = data(12)
    gradient = jax.jit(objective.whole(line, WEIGHTS))
    own = [
        gradient(params, stats, KEY, {k: x[i::3] for k, x in batch.items()})[0]["line"]
        for i in range(3)
    ]
    whole = gradient(params, stats, KEY, batch)[0]["line"]
    assert np.max(np.abs(np.mean(own, axis=0) / whole - 1)) > 0.05


def test_batch_norm_sees_one_part_after_the_other():
    params, stats = variables()
    batch = data(12)
    run = jax.jit(objective.accumulated(normed, WEIGHTS, 3))
    grads, measured, new = run(params, stats, KEY, batch)

    x, mean, var = [], stats["norm"]["mean"], stats["norm"]["var"]
    for i in range(3):
        y, its_mean, its_var = by_hand(batch["x"][i::3], params["norm"])
        mean, var = 0.9 * mean + 0.1 * its_mean, 0.9 * var + 0.1 * its_var
        x.append(y)
    close(new["norm"]["mean"], mean)
    close(new["norm"]["var"], var)
    np.testing.assert_array_equal(new["still"], stats["still"])
    x = np.stack(x, axis=1).reshape(12, 5)  # rows of the batch again
    error = x @ params["line"] - batch["y"]
    weight = batch["weight"] / batch["weight"].sum()
    close(measured["loss"].value, weight @ error**2 + 0.3 * np.abs(error).mean())
    slope = 2 * weight * error + 0.3 * np.sign(error) / 12
    close(grads["line"], slope @ x, rtol=1e-4)


def test_groups_are_normalised_each_by_its_own_moments():
    params, stats = variables()
    batch = data(12)
    grouped = objective.by_groups(normed, 4)
    terms, new = jax.jit(grouped)(params, stats, KEY, batch)

    found = [by_hand(batch["x"][i : i + 4], params["norm"]) for i in (0, 4, 8)]
    x = np.concatenate([y for y, _, _ in found])
    close(terms["near"][0].reshape(-1), np.abs(x @ params["line"] - batch["y"]))
    for name, at in (("mean", 1), ("var", 2)):
        mean = np.mean([one[at] for one in found], axis=0)
        close(new["norm"][name], 0.9 * stats["norm"][name] + 0.1 * mean)
    np.testing.assert_array_equal(new["still"], stats["still"])

    def loss(params):
        alone = [
            normed(params, stats, KEY, {k: x[i : i + 4] for k, x in batch.items()})[0]
            for i in (0, 4, 8)
        ]
        joined = jax.tree.map(lambda *x: jnp.concatenate(x), *alone)
        return objective.total_loss(joined, WEIGHTS)[0]

    run = jax.jit(objective.whole(grouped, WEIGHTS))
    grads, measured, _ = run(params, stats, KEY, batch)
    value, expected = jax.jit(jax.value_and_grad(loss))(params)
    close(measured["loss"].value, value)
    jax.tree.map(functools.partial(close, rtol=1e-4), grads, expected)


def test_a_group_as_large_as_the_batch_is_the_batch():
    arguments = *variables(), KEY, data(12)
    jax.tree.map(
        np.testing.assert_array_equal,
        objective.by_groups(normed, 12)(*arguments),
        normed(*arguments),
    )


@pytest.mark.parametrize("shards", [1, 2])
def test_only_groups_wider_than_a_device_make_devices_talk(shards):
    layout = Layout.create(shards)
    params, stats = layout.replicate(variables())
    batch = layout.shard_batch(data(32))  # 4 rows on each of 8 devices
    expected = {}
    for size in (2, 4, 16, 32):

        def values(params, stats, batch, size=size):
            terms, _ = objective.by_groups(normed, size)(params, stats, KEY, batch)
            return terms["near"][0].reshape(-1)

        run = jax.jit(values, out_shardings=layout.batch)
        talks = "all-reduce" in run.lower(params, stats, batch).compile().as_text()
        assert talks == (size > 4)
        whole = jax.jit(values)(*jax.device_get((params, stats, batch)))
        close(run(params, stats, batch), whole, rtol=1e-4, atol=1e-5)
        expected[size] = np.asarray(whole)
    assert np.any(expected[2] != expected[32])


# --- in the step ---


def first_steps(shards, **changes):
    """Losses and running statistics of two steps."""
    layout = Layout.create(shards)
    sgd = {"optim.name": "sgd", "optim.lr": 0.01, "state_shards": shards}
    config = tiny_method.config(**sgd, **changes)
    method, model = step.build_model(config, skeletons.COCO)
    state = step.init_state(config, model, (32, 32, 3), layout)
    run = step.make_train_step(config, method, model, state, layout)
    rng, losses = np.random.default_rng(0), []
    for _ in range(2):
        state, measured = run(state, layout.shard_batch(tiny_method.batch(rng, 32)))
        losses.append([float(x.value) for x in measured.values()])
    return losses, jax.device_get(state.batch_stats)


def test_the_step_in_parts_and_groups_is_the_same_however_the_state_lies():
    settings = {"accumulate": 2, "norm_group": 4, "batch_size": 32}
    losses, stats = first_steps(1, **settings)
    split, split_stats = first_steps(2, **settings)
    whole, _ = first_steps(1)

    np.testing.assert_allclose(losses, split, rtol=1e-4)
    jax.tree.map(functools.partial(close, rtol=1e-3, atol=1e-5), stats, split_stats)
    assert not np.allclose(losses, whole, rtol=1e-4)  # batch norm saw other rows
    np.testing.assert_allclose(losses[0][0], whole[0][0], rtol=0.2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"accumulate": 0}, "config.accumulate: expected .*, got 0"),
        (
            {"accumulate": 3},
            "config.accumulate: .* 8 devices can share evenly of 32 images, got 3",
        ),
        ({"accumulate": 8}, "config.accumulate: expected .*, got 8"),
        ({"norm_group": 5}, "config.norm_group: .* divisor of the 32 images.*, got 5"),
        ({"norm_group": -4}, "config.norm_group: .*, got -4"),
        (
            {"norm_group": 16, "accumulate": 4},
            "config.norm_group: .* the 8 images of a step part, or 0, got 16",
        ),
    ],
)
def test_what_does_not_divide_is_one_line(settings, said):
    config = tiny_method.config(batch_size=32, **settings)
    with pytest.raises(UserError, match=said) as caught:
        objective.check_batch(config, Layout.create())
    assert "\n" not in str(caught.value)


def test_parts_and_groups_that_divide_are_accepted():
    for settings in ({}, {"accumulate": 4, "norm_group": 8}, {"norm_group": 32}):
        config = tiny_method.config(batch_size=32, **settings)
        objective.check_batch(config, Layout.create(2))


def test_configs_have_the_keys_and_runs_without_them_go_on():
    assert common.COMPUTING == configs.COMPUTING
    new = configs.load("configs/pinet.py:smoke")
    assert {key: new[key] for key in configs.COMPUTING} == configs.COMPUTING
    old = new.copy_and_resolve_references()
    with old.unlocked():
        for key in configs.COMPUTING:
            del old[key]
    configs.check_resumable(old, new)
    with new.unlocked():
        new.update(state_shards=4, norm_group=2)
    with pytest.raises(UserError, match="another norm_group .was 0, now 2.;"):
        configs.check_resumable(old, new)
