import gc
import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import pytest
import tiny_method

from occjax import skeletons
from occjax.errors import UserError
from occjax.runtime import checkpoint, step
from occjax.runtime.mesh import Layout

tiny_method.install()
SETTINGS = {"optim.ema": 0.9, "model.features": 64}  # arrays of some size
POSITION = {"next_index": 17}


@pytest.fixture(scope="module")
def layout():
    return Layout.create()


def make(layout, **changes):
    config = tiny_method.config(**changes)
    _, model = step.build_model(config, skeletons.COCO)
    return config, step.init_state(config, model, (32, 32, 3), layout)


@pytest.fixture(scope="module")
def written(layout, tmp_path_factory):
    """A run with checkpoints of steps 3 and 5; tests work on copies."""
    folder = tmp_path_factory.mktemp("run")
    config, state = make(layout, **SETTINGS)
    with checkpoint.Checkpoints(folder) as checkpoints:
        checkpoints.save(3, state, POSITION, config)
        later = jax.tree.map(lambda x: x + np.ones((), x.dtype), state)
        checkpoints.save(5, later, POSITION, config)
    return folder, config, state


@pytest.fixture
def run(written, tmp_path):
    folder, config, state = written
    shutil.copytree(folder, tmp_path / "run")
    return tmp_path / "run", config, state


def resume(folder, config, state):
    with checkpoint.Checkpoints(folder) as checkpoints:
        return checkpoint.resume(checkpoints, state, config)


def test_a_checkpoint_comes_back_bit_for_bit_onto_all_devices(written, layout):
    folder, config, state = written
    _, fresh = make(layout, **{**SETTINGS, "seed": 1})
    with checkpoint.Checkpoints(folder) as checkpoints:
        assert checkpoints.latest == 5
        assert checkpoints.config(3) == config
        found = checkpoints.restore(3, fresh)

    assert found.position == POSITION
    assert jax.tree.structure(found.state) == jax.tree.structure(state)
    for ours, theirs in zip(
        jax.tree.leaves(found.state), jax.tree.leaves(state), strict=True
    ):
        assert ours.dtype == theirs.dtype
        assert ours.sharding.is_equivalent_to(theirs.sharding, ours.ndim)
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_goes_on_from_its_last_checkpoint(run):
    folder, config, state = run
    found = resume(folder, config, state)
    assert int(found.state.step) == 1  # step 3's state plus one


def test_a_new_run_starts_with_the_given_state(written, tmp_path):
    _, config, state = written
    found = resume(tmp_path / "new", config, state)
    assert found.state is state
    assert found.position is None


def test_a_run_of_another_config_is_refused_with_the_keys(run):
    folder, _, state = run
    with pytest.raises(UserError, match="model.features .was 64, now 9"):
        resume(folder, tiny_method.config(**SETTINGS | {"model.features": 9}), state)


def test_only_the_last_checkpoints_are_kept(written, tmp_path):
    _, config, state = written
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        for number in range(1, 7):
            checkpoints.save(number, state, None, config)
        checkpoints.save(6, state, None, config)  # once more is no error
    kept = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [4, 5, 6]


def test_a_half_written_checkpoint_is_ignored(run):
    folder, config, state = run
    half = folder / "checkpoints" / "9.orbax-checkpoint-tmp"
    shutil.copytree(folder / "checkpoints" / "5", half)
    (half / "commit_success.txt").unlink(missing_ok=True)

    assert int(resume(folder, config, state).state.step) == 1


def truncate(path: pathlib.Path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path: pathlib.Path):
    os.truncate(path, 0)


@pytest.fixture
def collected():
    """Warns of what a test leaves behind within this test, not in one after it."""
    yield
    gc.collect()


def flip(path: pathlib.Path):
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, empty, flip, pathlib.Path.unlink])
@pytest.mark.parametrize(
    "item",
    [
        "state/*/d/*",  # the values
        "state/d/*",
        "state/manifest.ocdbt",
        "state/_METADATA",
        "*/metadata",
    ],
)
# Where one array cannot be read, orbax leaves the reading of others unawaited.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("collected")
def test_a_damaged_checkpoint_is_one_line_with_its_path(run, item, damage):
    folder, config, state = run
    for path in (folder / "checkpoints" / "5").glob(item):
        damage(path)
    with pytest.raises(UserError, match=r"checkpoints/5: damaged.*delete") as caught:
        resume(folder, config, state)
    assert "\n" not in str(caught.value)


def test_without_the_damaged_checkpoint_the_one_before_it_serves(run):
    folder, config, state = run
    shutil.rmtree(folder / "checkpoints" / "5")
    assert int(resume(folder, config, state).state.step) == 0


def test_a_checkpoint_of_another_model_is_no_damage_to_crash_on(run, layout):
    folder, _, _ = run
    _, other = make(layout, **{"model.features": 5})
    with (
        checkpoint.Checkpoints(folder) as checkpoints,
        pytest.raises(UserError, match="checkpoints/5: damaged, or of another model"),
    ):
        checkpoints.restore(5, other)


def test_a_missing_checkpoint_is_named(run):
    folder, _, state = run
    with (
        checkpoint.Checkpoints(folder) as checkpoints,
        pytest.raises(UserError, match="checkpoints/4: there is no such checkpoint"),
    ):
        checkpoints.restore(4, state)


def test_sigterm_is_noticed_and_its_old_meaning_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with checkpoint.Preemption() as preemption:
        assert not preemption.asked(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.asked(2)
    assert signal.getsignal(signal.SIGTERM) is before
