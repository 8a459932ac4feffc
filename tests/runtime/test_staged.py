"""KS-net on runs: their models, their data, their variables."""

import jax
import numpy as np
import pytest
import runs

from occjax.data import sources
from occjax.errors import UserError
from occjax.runtime import config as configs
from occjax.runtime import staged, step, trained
from occjax.runtime.mesh import Layout


def smoke(name, **model):
    """The config of a tiny top-down method."""
    config = configs.load(f"configs/{name}.py:smoke")
    with config.unlocked():
        config.model.update(model)
    return config


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Runs of OA-HPE and HRNet as a training leaves them."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("oahpe", "hrnet"):
        runs.save(folder / name, smoke(name))
    return folder


def asked(made, base, labels="", **data):
    """KS-net's config on runs."""
    config = configs.load("configs/ksnet.py:smoke")
    with config.unlocked():
        config.base, config.labels = (
            str(made / x) if x else "" for x in (base, labels)
        )
        del config.model["base"]
        config.data = type(config)(data)
    return config


def state_of(config):
    source = sources.load(config.data.to_dict(), "test")
    _, model = step.build_model(config, source.skeleton)
    shape = configs.input_shape(config)
    fresh = step.init_state(config, model, shape, Layout.create())
    return staged.fill(fresh, config, Layout.create())


def variables_of(run):
    number, _ = trained.last(run)
    with staged.Checkpoints(run, read_only=True) as checkpoints:
        return checkpoints.variables(number, Layout.create().replicated)


def same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


def test_models_and_data_are_those_of_the_runs(made):
    config = staged.resolve(asked(made, "hrnet", "oahpe", threads=3))
    base, labels = smoke("hrnet"), smoke("oahpe")
    assert config.model.base.to_dict() == {"method": "top_down", **base.model.to_dict()}
    assert config.model.labels.to_dict() == {
        "method": "oahpe",
        **labels.model.to_dict(),
    }
    expected = {**base.data.to_dict(), "threads": 3, "eval_images": 4}
    assert config.data.to_dict() == expected


def test_variables_are_those_of_the_runs_and_ks_net_is_fresh(made):
    config = staged.resolve(asked(made, "hrnet", "oahpe"))
    state = state_of(config)
    for kind, found in (("params", state.params), ("batch_stats", state.batch_stats)):
        for name, tree in variables_of(made / "hrnet")[kind].items():
            same(found[name], tree)
        same(found["labels"], variables_of(made / "oahpe")[kind])
        assert "quality" in found


def test_without_runs_nothing_changes():
    config = configs.load("configs/ksnet.py:smoke")
    assert staged.resolve(config) is config


def test_a_run_that_is_not_there_is_told(made):
    with pytest.raises(UserError, match=r"config\.base: .*none_such: no run"):
        staged.resolve(asked(made, "none_such"))


def test_runs_that_see_other_crops_are_refused(made, tmp_path):
    other = smoke("oahpe")
    with other.unlocked():
        other.data.size = (32, 32)
    runs.save(tmp_path / "other", other)
    with pytest.raises(UserError, match=r"config\.labels: .* data\.size \(32, 32\)"):
        staged.resolve(asked(made, "hrnet", tmp_path / "other"))


def test_a_variable_of_another_shape_is_named(made):
    config = staged.resolve(asked(made, "hrnet", "oahpe"))
    with config.unlocked():
        config.model.base.backbone.features = 24
    with pytest.raises(UserError, match=r"config\.base: '.*hrnet': .* expected \(.*24"):
        state_of(config)
