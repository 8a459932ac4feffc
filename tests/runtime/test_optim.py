import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import opecnet
from occjax.errors import UserError
from occjax.runtime import optim


def settings(**changes):
    base = dict(name="adam", lr=0.1, clip=0.0, ema=0.0, schedule=dict(name="constant"))
    return {**base, **changes}


def params():
    return {"a": {"kernel": jnp.ones((2, 3))}, "b": {"bias": jnp.full((3,), 2.0)}}


def make(trainable="", **changes):
    mask = optim.trainable_mask(params(), trainable)
    return optim.optimizer(settings(**changes), 10, mask)


def descend(transform, grads, steps=3):
    now, state = params(), transform.init(params())
    for _ in range(steps):
        updates, state = transform.update(grads, state, now)
        now = optax.apply_updates(now, updates)
    return now


def test_adam_follows_kingma_and_ba_written_out_in_numpy():
    grads = {
        "a": {"kernel": jnp.full((2, 3), 0.3)},
        "b": {"bias": jnp.full((3,), -2.0)},
    }
    found = descend(make(), grads)

    for name, leaf, g in (("a", "kernel", 0.3), ("b", "bias", -2.0)):
        x, m, v = np.asarray(params()[name][leaf], np.float64), 0.0, 0.0
        for t in range(1, 4):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            x = x - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(found[name][leaf], x, rtol=1e-5)


TORCHS = {  # name of the reference -> settings
    "adam": dict(lr=1e-3),
    "rmsprop": dict(lr=5e-4, decay=0.99, eps=1e-8, eps_in_sqrt=False),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", TORCHS)
def test_five_steps_equal_those_of_torch(golden, name, dtype):
    z = np.load(golden / "torch_ops" / "ops.npz")
    chosen = settings(name=name, **TORCHS[name])
    with jax.enable_x64(dtype == np.float64), jax.numpy_dtype_promotion("standard"):
        now = {"p": jnp.asarray(z["in_p"], dtype)}
        transform = optim.optimizer(chosen, 10, {"p": True})
        state, steps = transform.init(now), []
        for grad in z["in_grads"]:
            updates, state = transform.update({"p": jnp.asarray(grad, dtype)}, state)
            now = optax.apply_updates(now, updates)
            steps.append(np.asarray(now["p"]))
    link, theirs = f"five optimiser steps: {name}", z[f"opt_{name}"]
    within = 5e-7 if dtype == np.float32 else 1e-9
    equivalence.check("torch operations", link, np.stack(steps), theirs, within)


def test_clipped_gradients_equal_those_of_torch(golden):
    z = np.load(golden / "torch_ops" / "ops.npz")
    grad = z["in_grads"][2]
    mask = {"p": True}
    clip = optim.optimizer(settings(name="sgd", lr=1.0, clip=1.0), 10, mask)
    given = {"p": jnp.asarray(grad)}
    updates, _ = clip.update(given, clip.init(given))
    ours, link = -np.asarray(updates["p"]), "gradient norm: clipped gradient"
    equivalence.check("torch operations", link, ours, z["clip_grad"], 5e-7)


def test_adam_without_gradient_does_not_decay_weights_and_adamw_does():
    zeros = jax.tree.map(jnp.zeros_like, params())
    still = descend(make(), zeros)
    decayed = descend(make(name="adamw", weight_decay=0.5), zeros, steps=1)

    jax.tree.map(np.testing.assert_array_equal, still, params())
    np.testing.assert_allclose(decayed["b"]["bias"], 2.0 * (1 - 0.1 * 0.5), rtol=1e-6)


def test_sgd_steps_against_the_gradient_and_takes_its_own_keys():
    ones = jax.tree.map(jnp.ones_like, params())
    plain = descend(make(name="sgd"), ones, steps=2)
    heavy = descend(make(name="sgd", momentum=0.5), ones, steps=2)

    np.testing.assert_allclose(plain["b"]["bias"], 2.0 - 0.2, rtol=1e-6)
    np.testing.assert_allclose(heavy["b"]["bias"], 2.0 - 0.1 - 0.15, rtol=1e-6)


def test_rmsprop_scales_each_step_by_the_recent_gradient():
    ones = jax.tree.map(jnp.ones_like, params())
    small = descend(make(name="rmsprop", decay=0.5), ones, steps=1)
    large = descend(
        make(name="rmsprop", decay=0.5), jax.tree.map(lambda g: 100 * g, ones), steps=1
    )

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), small, large)


def test_clipping_bounds_the_norm_of_what_learns():
    grads = {
        "a": {"kernel": jnp.full((2, 3), 30.0)},
        "b": {"bias": jnp.full((3,), 40.0)},
    }
    both = descend(make(name="sgd", lr=1.0, clip=1.0), grads, steps=1)
    alone = descend(make("^b/", name="sgd", lr=1.0, clip=1.0), grads, steps=1)

    moved = jax.tree.map(lambda x, y: x - y, both, params())
    np.testing.assert_allclose(optax.tree.norm(moved), 1.0, rtol=1e-5)
    np.testing.assert_allclose(
        jnp.linalg.norm(alone["b"]["bias"] - 2.0), 1.0, rtol=1e-5
    )
    np.testing.assert_array_equal(alone["a"]["kernel"], params()["a"]["kernel"])


def test_frozen_parameters_take_no_optimiser_memory():
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))  # noqa: E731
    all_of_it = count(make().init(params()))
    some = count(make("^b/").init(params()))

    assert all_of_it - some == 2 * params()["a"]["kernel"].size


def test_steps_schedule_drops_tenfold_at_each_milestone():
    schedule = optim.schedule(
        settings(lr=1e-3, schedule=dict(name="steps", at=(4, 8))), steps=10
    )
    rates = [float(schedule(step)) for step in range(10)]
    np.testing.assert_allclose(rates, [1e-3] * 4 + [1e-4] * 4 + [1e-5] * 2, rtol=1e-5)


def test_cosine_schedule_warms_up_then_falls_to_its_end():
    options = dict(name="cosine", warmup=4, end=0.1)
    schedule = optim.schedule(settings(lr=2.0, schedule=options), steps=20)
    rates = np.array([float(schedule(step)) for step in range(21)])

    np.testing.assert_allclose(rates[:5], [0, 0.5, 1.0, 1.5, 2.0], rtol=1e-6)
    assert np.all(np.diff(rates[4:]) < 0)
    np.testing.assert_allclose(rates[12], (2.0 + 0.2) / 2, rtol=1e-5)
    np.testing.assert_allclose(rates[20], 0.2, rtol=1e-5)


@pytest.mark.parametrize("variant", ["ocpose", "crowdpose", "ochuman", "coco"])
def test_learning_rates_of_opec_net_are_the_published_ones(golden, variant):
    figures = np.load(golden / "opec_net" / "preprocess.npz")
    config = opecnet.get_config(variant)
    rate = optim.schedule(config.optim, config.steps)
    epoch = config.steps / 25
    rates = [rate(float(share * epoch)) for share in figures["lr_epochs"]]
    link = "five optimiser steps: learning rates"
    theirs = figures["lr_values"]
    equivalence.check("OPEC-Net", link, np.stack(rates), theirs, 1e-5, "each")


def test_a_floored_cosine_is_one_of_all_steps_above_its_floor():
    options = dict(name="floored_cosine", warmup=4, end=0.1)
    schedule = optim.schedule(settings(lr=2.0, schedule=options), steps=20)
    rates = np.array([float(schedule(step)) for step in range(21)])

    fall = 1 + np.cos(np.pi * np.arange(21) / 20)
    np.testing.assert_allclose(rates[4:], np.maximum(fall, 0.2)[4:], rtol=1e-5)
    np.testing.assert_allclose(rates[:5], np.linspace(0.2, fall[4], 5), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(name="adm"), "optim.name: 'adm' is none of adam"),
        (dict(momentum=0.9), "unexpected keyword argument 'momentum'"),
        (dict(schedule=dict(name="cosin")), "optim.schedule.name: 'cosin'"),
        (dict(schedule=dict(name="constant", warmup=3)), "'warmup'"),
        (dict(schedule=dict(name="steps", at=(40,))), r"at=\(40,\)"),
        (dict(schedule=dict(name="cosine", warmup=10)), "warmup=10"),
        (dict(schedule=dict(name="floored_cosine", warmup=10)), "warmup=10"),
    ],
)
def test_a_key_that_nobody_takes_or_a_wrong_value_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        make(**changes)


@pytest.mark.parametrize(
    ("pattern", "said"), [("^c/", "matches no parameter.*a, b"), ("(", "trainable")]
)
def test_a_pattern_for_nothing_is_refused(pattern, said):
    with pytest.raises(UserError, match=said):
        make(pattern)


def test_moving_average_forgets_its_start_and_then_keeps_the_decay():
    average, now = {"x": jnp.zeros(2)}, {"x": jnp.ones(2)}
    first = optim.ema_update(average, now, 0.99, jnp.asarray(0, jnp.int32))
    late = optim.ema_update(average, now, 0.99, jnp.asarray(10**6, jnp.int32))

    np.testing.assert_allclose(first["x"], 0.9, rtol=1e-6)
    np.testing.assert_allclose(late["x"], 0.01, rtol=1e-4)
