import functools

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_method

from occjax import skeletons
from occjax.errors import UserError
from occjax.runtime import initial, objective, optim, step
from occjax.runtime.mesh import Layout

tiny_method.install()


@pytest.fixture(scope="module")
def layout():
    return Layout.create()


def setup(layout, **changes):
    config = tiny_method.config(**changes)
    method, model = step.build_model(config, skeletons.COCO)
    state = step.init_state(config, model, (32, 32, 3), layout)
    train_step = step.make_train_step(config, method, model, state, layout)
    return config, method, model, state, train_step


def batches(layout, count, seed=0):
    rng = np.random.default_rng(seed)
    return [layout.shard_batch(tiny_method.batch(rng)) for _ in range(count)]


def host(tree):
    return jax.tree.map(np.array, tree)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, host(a), host(b))


def losses_of(train_step, state, data):
    found = []
    for batch in data:
        state, measured = train_step(state, batch)
        found.append(float(measured["loss"].value))
    return found, state


def test_training_on_one_batch_lowers_its_loss(layout):
    *_, state, train_step = setup(layout)
    losses, _ = losses_of(train_step, state, batches(layout, 1) * 40)
    assert losses[-1] < 0.5 * losses[0]


def test_the_loss_is_the_weighted_sum_of_terms_reduced_over_the_global_batch(layout):
    config, method, model, state, train_step = setup(layout)
    (batch,) = batches(layout, 1)
    whole = host(batch)
    outputs, _ = model.apply(
        host({"params": state.params, "batch_stats": state.batch_stats}),
        whole.inputs,
        train=True,
        mutable=["batch_stats"],
    )
    terms = method.loss_terms(model, outputs, whole.labels)
    _, measured = train_step(state, batch)

    expected = 0.0
    for name, (values, weights) in terms.items():
        mean = np.sum(values * weights) / np.sum(weights)
        np.testing.assert_allclose(measured[name].value, mean, rtol=1e-5)
        expected += config.loss[name] * mean
    np.testing.assert_allclose(measured["loss"].value, expected, rtol=1e-5)


def test_the_gradient_is_that_of_the_whole_batch_not_of_a_devices_share(layout):
    sgd = {"optim.name": "sgd", "optim.lr": 1.0}
    config, method, model, state, train_step = setup(layout, **sgd)
    (batch,) = batches(layout, 1)
    whole, before = host(batch), host(state)

    def loss(params):
        variables = {"params": params, "batch_stats": before.batch_stats}
        outputs, _ = model.apply(
            variables, whole.inputs, train=True, mutable=["batch_stats"]
        )
        terms = method.loss_terms(model, outputs, whole.labels)
        return objective.total_loss(terms, config.loss)[0]

    grads = jax.grad(loss)(before.params)
    after, measured = train_step(state, batch)

    moved = jax.tree.map(lambda a, b: a - b, before.params, host(after.params))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5),
        moved,
        host(grads),
    )
    norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(host(grads))))
    np.testing.assert_allclose(measured["gradient_norm"].value, norm, rtol=1e-3)


def test_two_runs_of_one_seed_are_bitwise_equal_and_of_two_seeds_are_not(layout):
    data = batches(layout, 3)
    ends = []
    for seed in (0, 0, 1):
        *_, state, train_step = setup(layout, seed=seed)
        ends.append(host(losses_of(train_step, state, data)[1].params))

    equal(ends[0], ends[1])
    assert np.any(ends[0]["head"]["kernel"] != ends[2]["head"]["kernel"])


def test_random_numbers_follow_from_the_step_so_dropout_differs_and_repeats(layout):
    frozen = {"model.features": 8, "optim.lr": 0.0}
    config = tiny_method.config(**frozen)
    with config.unlocked():
        config.model.rate = 0.5
    method, model = step.build_model(config, skeletons.COCO)
    first = step.init_state(config, model, (32, 32, 3), layout)
    copy = layout.replicate(host(first))
    train_step = step.make_train_step(config, method, model, first, layout)
    data = batches(layout, 1) * 2
    once, _ = losses_of(train_step, first, data)
    again, _ = losses_of(train_step, copy, data)

    assert once[0] != once[1]
    assert once == again


def test_nothing_compiles_after_the_first_step(layout):
    *_, state, train_step = setup(layout, **{"optim.ema": 0.9})
    data = batches(layout, 4)
    state, _ = train_step(state, data[0])
    seen = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: seen.append(name)
    )
    for batch in data[1:]:
        state, measured = train_step(state, batch)
    jax.block_until_ready(measured)

    assert not [name for name in seen if "compile" in name]


def test_the_state_is_donated(layout):
    *_, state, train_step = setup(layout)
    (batch,) = batches(layout, 1)
    train_step(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_the_step_runs_where_implicit_transfers_are_forbidden(layout):
    *_, state, train_step = setup(layout)
    (batch,) = batches(layout, 1)
    with jax.transfer_guard("disallow"):
        state, _ = train_step(state, batch)
    assert int(state.step) == 1


def test_what_is_not_trainable_keeps_weights_and_statistics(layout):
    *_, state, train_step = setup(layout, trainable="^(head|bn1)/")
    before = host(state)
    _, after = losses_of(train_step, state, batches(layout, 2))
    after = host(after)

    for name in ("conv0", "conv1", "bn0"):
        equal(before.params[name], after.params[name])
    equal(before.batch_stats["bn0"], after.batch_stats["bn0"])
    for name in ("head", "bn1"):
        pairs = zip(
            jax.tree.leaves(before.params[name]),
            jax.tree.leaves(after.params[name]),
            strict=True,
        )
        assert all(np.any(a != b) for a, b in pairs)
    assert np.any(before.batch_stats["bn1"]["mean"] != after.batch_stats["bn1"]["mean"])


def test_evaluation_uses_the_average_of_the_parameters_where_there_is_one(layout):
    *_, state, train_step = setup(layout, **{"optim.ema": 0.5})
    start = host(state.params)
    _, state = losses_of(train_step, state, batches(layout, 1))
    mean = optim.ema_update(start, host(state.params), 0.5, jnp.asarray(0, jnp.int32))

    got = host(state.variables["params"])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), got, mean)
    *_, plain, _ = setup(layout)
    assert plain.ema is None
    assert plain.variables["params"] is plain.params


def test_bfloat16_computes_near_float32_and_keeps_float32_state(layout):
    data = batches(layout, 3)
    found = {}
    for dtype in ("float32", "bfloat16"):
        *_, state, train_step = setup(layout, dtype=dtype)
        found[dtype], state = losses_of(train_step, state, data)
        kinds = {
            leaf.dtype for leaf in jax.tree.leaves((state.params, state.opt_state))
        }
        assert kinds <= {np.dtype("float32"), np.dtype("int32")}
    assert found["float32"] != found["bfloat16"]
    np.testing.assert_allclose(found["bfloat16"], found["float32"], rtol=0.05)


def test_a_loss_that_is_weighed_by_zero_may_be_missing_but_no_other():
    terms = {"one": (jnp.full((2,), 3.0), jnp.ones((2,)))}
    loss, found = objective.total_loss(terms, {"one": 2.0, "other": 0.0})
    assert (float(loss), set(found)) == (6.0, {"one", "loss"})
    loss, found = objective.total_loss(terms, {"one": 0.0})
    assert (float(loss), set(found)) == (0.0, {"one", "loss"})
    for weights in ({"one": 2.0, "other": 1.0}, {}):
        with pytest.raises(UserError, match="config.loss: it weighs"):
            objective.total_loss(terms, weights)


def test_config_loss_must_name_exactly_the_terms(layout):
    config, method, model, state, _ = setup(layout)
    with config.unlocked():
        config.loss = dict(joints=1.0, sore=0.1)
    train_step = step.make_train_step(config, method, model, state, layout)
    with pytest.raises(UserError, match="joints, sore.*terms are joints, score"):
        train_step(state, batches(layout, 1)[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "nonsense"}, "config.method: 'nonsense'"),
        ({"dtype": "float16"}, "config.dtype: 'float16' is none of float32, bfloat16"),
        ({"model.features": 0}, "config.model: features: expected >= 1, got 0"),
    ],
)
def test_a_wrong_setting_is_one_line(changes, said):
    with pytest.raises(UserError, match=said) as caught:
        step.build_model(tiny_method.config(**changes), skeletons.COCO)
    assert "\n" not in str(caught.value)


def test_poses_come_back_on_every_device_in_the_order_of_the_batch(layout):
    _, method, model, state, _ = setup(layout)
    predict_step = step.make_predict_step(method, model, layout)
    (batch,) = batches(layout, 1)
    poses = predict_step(state.variables, batch.inputs)
    whole = host(batch.inputs)
    alone = method.decode(
        model, model.apply(host(state.variables), whole, train=False), whole
    )

    assert poses.joints.is_fully_replicated
    for found, expected in zip(poses, alone, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


# --- start values ---


class Recipes(tiny_method.nn.Module):
    """One parameter of each kind of initialiser."""

    @tiny_method.nn.compact
    def __call__(self, inputs, *, train):
        kinds = tiny_method.nn.initializers
        size = (64, 500)
        for name in ("lecun_normal", "he_uniform", "xavier_normal", "orthogonal"):
            self.param(name, getattr(kinds, name)(), size)
        self.param("normal", kinds.normal(0.001), size)
        self.param("same", lambda key: jnp.full((3,), 7.0))
        self.param("table", lambda key: jnp.asarray(np.arange(6.0, dtype=np.float32)))
        return inputs.image


def test_start_values_have_the_distribution_of_the_initialiser():
    shapes = step._example((8, 8, 3))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    wanted = Recipes().init(jax.random.key(0), zeros, train=True)["params"]
    found = initial.variables(Recipes(), shapes, seed=0)["params"]

    for name, ours in found.items():
        theirs = np.asarray(wanted[name])
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours.std(), theirs.std(), rtol=0.02)
        np.testing.assert_allclose(ours.max(), theirs.max(), rtol=0.2)
        np.testing.assert_allclose(ours.mean(), theirs.mean(), atol=0.02 * ours.std())
    np.testing.assert_array_equal(found["same"], wanted["same"])
    np.testing.assert_array_equal(found["table"], wanted["table"])
    np.testing.assert_allclose(
        found["orthogonal"] @ found["orthogonal"].T, np.eye(64), atol=1e-4
    )


def test_start_values_repeat_for_a_seed_and_differ_between_parameters():
    shapes = step._example((8, 8, 3))
    first, again, other = (
        initial.variables(Recipes(), shapes, seed)["params"] for seed in (0, 0, 1)
    )
    equal(first, again)
    assert np.mean(first["normal"] == other["normal"]) < 0.01
    halves = first["normal"][:32], first["normal"][32:]
    assert abs(np.corrcoef(halves[0].ravel(), halves[1].ravel())[0, 1]) < 0.03


def test_functions_are_followed_exactly_in_numpy():
    def function(x, unused):
        doubled = jax.jit(lambda y: 2 * y)(x)
        return {"sum": jnp.broadcast_to(doubled + x, (3, 2)), "log": jnp.log(x)}

    x = np.array([1.5, 4.0], np.float32)
    found = initial.in_numpy(function, x, jax.ShapeDtypeStruct((9,), jnp.float32))
    np.testing.assert_array_equal(found["sum"], np.tile(3 * x, (3, 1)))
    np.testing.assert_allclose(found["log"], np.log(x), rtol=1e-6)
