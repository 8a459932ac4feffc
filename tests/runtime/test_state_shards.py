"""A state that devices share out does what one that each has whole does."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import tiny_method

from occjax import skeletons
from occjax.errors import UserError
from occjax.runtime import checkpoint, optim, step
from occjax.runtime.mesh import Layout

tiny_method.install()
# Plain gradient descent: Adam enlarges what rounding leaves of small gradients.
SETTINGS = {
    "optim.name": "sgd",
    "optim.momentum": 0.9,
    "optim.lr": 0.01,
    "optim.ema": 0.9,
    "model.features": 64,
}


class Setup(NamedTuple):
    config: Any
    layout: Layout
    model: Any
    run: Any

    def state(self, seed=0):
        with self.config.unlocked():
            self.config.seed = seed
        return step.init_state(self.config, self.model, (32, 32, 3), self.layout)


@functools.cache
def setup(shards):
    layout = Layout.create(shards)
    config = tiny_method.config(**SETTINGS, state_shards=shards)
    method, model = step.build_model(config, skeletons.COCO)
    state = step.init_state(config, model, (32, 32, 3), layout)
    run = step.make_train_step(config, method, model, state, layout)
    return Setup(config, layout, model, run)


def advance(made, state, first, last):
    """Figures of the steps from `first` to `last`, each on a batch of its own."""
    figures = []
    for n in range(first, last):
        batch = tiny_method.batch(np.random.default_rng(n))
        state, measured = made.run(state, made.layout.shard_batch(batch))
        figures.append({name: float(mean.value) for name, mean in measured.items()})
    return figures, state


@functools.cache
def uninterrupted():
    made = setup(1)
    return advance(made, made.state(), 0, 4)[0]


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert set(ours) == set(theirs)
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4)


def bytes_of_first_device(tree):
    shards = [leaf.addressable_shards[0] for leaf in jax.tree.leaves(tree)]
    return sum(shard.data.nbytes for shard in shards)


@pytest.mark.parametrize("shards", [2, 4])
def test_shared_out_or_not_the_steps_are_the_same_and_a_device_holds_less(shards):
    made = setup(shards)
    assert dict(made.layout.mesh.shape) == {"data": 8 // shards, "model": shards}
    state = made.state()
    kernels = [x for x in jax.tree.leaves(state.params) if x.ndim > 1]
    for kernel in kernels:
        lengths = set(kernel.addressable_shards[0].data.shape)
        assert kernel.sharding.shard_shape(kernel.shape) != kernel.shape, lengths
    plain = setup(1).state()
    assert len(plain.opt_state.inner_states["learn"].inner_state[0].trace.shape) == 1
    for name in ("params", "opt_state", "ema"):
        share, all_of_it = (
            bytes_of_first_device(getattr(one, name)) for one in (state, plain)
        )
        assert share < 1.05 * all_of_it / shards
    before = jax.tree.map(lambda x: x.sharding, state)
    figures, state = advance(made, state, 0, 4)
    assert jax.tree.map(lambda x: x.sharding, state) == before  # it stays so
    assert_same(figures, uninterrupted())


@pytest.mark.parametrize(("first", "second"), [(1, 2), (2, 4), (4, 1)])
def test_a_run_goes_on_on_another_mesh(first, second, tmp_path):
    made, other = setup(first), setup(second)
    figures, state = advance(made, made.state(), 0, 2)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, state, None, made.config)
    fresh = other.state(seed=1)
    with other.config.unlocked():
        other.config.seed = 0
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        found = checkpoint.resume(checkpoints, fresh, other.config).state
        alone = checkpoints.variables(2, other.layout.replicated)

    assert jax.tree.structure(found) == jax.tree.structure(fresh)
    for ours, theirs in zip(
        jax.tree.leaves(found), jax.tree.leaves(fresh), strict=True
    ):
        assert ours.sharding.is_equivalent_to(theirs.sharding, ours.ndim)
    jax.tree.map(np.testing.assert_array_equal, found.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, alone["params"], state.ema)
    more, _ = advance(other, found, 2, 4)
    assert_same(figures + more, uninterrupted())


@pytest.mark.parametrize("trainable", ["", "^head/"])
def test_both_forms_of_an_optimisers_state_become_each_other(trainable):
    made = setup(2)
    settings = dict(name="adam", lr=0.1, clip=1.0, schedule=dict(name="constant"))
    params = setup(1).state().params
    mask = optim.trainable_mask(params, trainable)
    grads = jax.tree.map(lambda x: x * np.float32(0.3) + np.float32(1), params)
    states = {}
    for flat in (True, False):
        transform = optim.optimizer(settings, 10, mask, flat)
        state = transform.init(params)
        updates, state = transform.update(grads, state, params)
        states[flat] = made.layout.replicate(jax.device_get((updates, state)))
    one, other = states[True], states[False]
    # the same up to the order in which clipping adds the squares
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5), one[0], other[0]
    )
    for (_, a), (_, b) in itertools.permutations((one, other)):
        became = optim.regrouped(a, b)
        assert jax.tree.structure(became) == jax.tree.structure(b)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5), became, b
        )
        back = optim.regrouped(became, a)
        jax.tree.map(np.testing.assert_array_equal, back, a)


def test_what_weighs_little_or_does_not_divide_is_replicated():
    layout = Layout.create(4)
    state = {
        "kernel": np.zeros((3, 3, 16, 8)),
        "odd": np.zeros((3, 18)),
        "bias": np.zeros(16),
        "step": np.zeros((), np.int32),
    }
    placed = layout.place_state(state)
    assert {name: x.is_fully_replicated for name, x in placed.items()} == {
        "kernel": False,
        "odd": True,
        "bias": True,
        "step": True,
    }
    assert placed["kernel"].addressable_shards[0].data.shape == (3, 3, 4, 8)
    whole = layout.gather(placed)
    assert all(x.is_fully_replicated for x in whole.values())
    again = layout.arrange_state(whole)
    assert again["kernel"].sharding == placed["kernel"].sharding


@pytest.mark.parametrize("shards", [0, 3, 16])
def test_shares_that_do_not_divide_the_devices_are_one_line(shards):
    with pytest.raises(
        UserError, match=f"config.state_shards: .* 8 devices, got {shards}"
    ):
        Layout.create(shards)
