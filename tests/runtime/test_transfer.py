import golden_weights
import jax
import numpy as np
import pytest
import tiny_hrnet
import tiny_method

from occjax import skeletons
from occjax.errors import UserError
from occjax.methods import pinet, top_down
from occjax.runtime import checkpoint, config, step, transfer, weight_files, weights
from occjax.runtime.mesh import Layout

tiny_method.install()
TABLES = transfer.Tables("pinet hrnet", pinet.TORCH_NAMES, pinet.PRETRAINED["hrnet"])


@pytest.fixture(scope="module")
def layout():
    return Layout.create()


def make(layout, skeleton=skeletons.COCO, **changes):
    config = tiny_method.config(**changes)
    _, model = step.build_model(config, skeleton)
    return config, step.init_state(config, model, (32, 32, 3), layout)


@pytest.fixture(scope="module", params=[0.0, 0.9], ids=["plain", "averaged"])
def run(request, layout, tmp_path_factory):
    """A run and the variables that it evaluates with."""
    folder = tmp_path_factory.mktemp("run")
    config, state = make(layout, **{"seed": 5, "optim.ema": request.param})
    state = state.replace(params=jax.tree.map(lambda x: x + 1, state.params))
    with checkpoint.Checkpoints(folder) as checkpoints:
        checkpoints.save(2, state, None, config)
    return folder, jax.tree.map(np.array, state.variables)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_all_variables_of_a_run_are_taken_on_all_devices(run, layout):
    folder, given = run
    _, state = make(layout)
    found = transfer.start_from(state, str(folder), layout)

    equal(found.variables, given)
    assert int(found.step) == 0
    kernel = found.params["head"]["kernel"]
    assert kernel.sharding.is_equivalent_to(layout.replicated, kernel.ndim)
    assert jax.tree.structure(found) == jax.tree.structure(state)


def test_a_pattern_takes_a_part_and_leaves_the_rest(run, layout):
    folder, given = run
    _, state = make(layout, skeletons.CROWDPOSE, **{"optim.ema": 0.5})
    before = jax.tree.map(np.array, state.params)
    found = transfer.start_from(state, f"{folder}:^(conv|bn)", layout)

    for name in ("conv0", "bn1"):
        equal(found.params[name], given["params"][name])
    equal(found.batch_stats, given["batch_stats"])
    equal(found.params["head"], before["head"])
    equal(found.ema, found.params)


def test_the_empty_string_takes_nothing(layout):
    _, state = make(layout)
    assert transfer.start_from(state, "", layout) is state


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{run}", r"head/bias is \(35,\), here \(29,\)"),
        ("{run}:^trunk/", "nothing matches"),
        ("{run}/none", "no run of occjax.train"),
    ],
)
def test_what_does_not_fit_is_one_line(run, layout, source, said):
    _, state = make(layout, skeletons.CROWDPOSE)
    with pytest.raises(UserError, match=said) as caught:
        transfer.start_from(state, source.format(run=run[0]), layout)
    assert "\n" not in str(caught.value)


def test_a_variable_without_a_place_is_named(run, layout):
    given = {"params": {"more": {"kernel": np.zeros(3)}}, "batch_stats": {}}
    with pytest.raises(UserError, match="more/kernel has no place"):
        transfer.fill({"params": {}, "batch_stats": {}}, given, "", "run")


def test_the_colon_of_a_url_parts_nothing():
    assert transfer._split("gs://bucket/run") == ("gs://bucket/run", "")
    assert transfer._split("gs://bucket/run:^a") == ("gs://bucket/run", "^a")


@pytest.fixture(scope="module")
def tiny():
    """A model whose weights have published names; it is not changed."""
    return tiny_hrnet.state(seed=1)[1]


def torch_names(state):
    return weights.revert(jax.tree.map(np.array, state.variables), pinet.TORCH_NAMES)


def from_file(tmp_path, layout, state, arrays, pattern="", tables=TABLES):
    weight_files.write(tmp_path / "w.pth", arrays)
    return transfer.start_from(state, f"{tmp_path / 'w.pth'}{pattern}", layout, tables)


def test_a_file_of_weights_is_a_start(tmp_path, layout, tiny):
    published = tiny_hrnet.published(seed=5)
    found = from_file(tmp_path, layout, tiny, published)
    for name, array in torch_names(found).items():
        np.testing.assert_array_equal(array, published[name])
    assert jax.tree.structure(found) == jax.tree.structure(tiny)
    kernel = found.params["heatmap_head"]["kernel"]
    assert kernel.sharding.is_equivalent_to(layout.replicated, kernel.ndim)


@pytest.mark.parametrize("make", [tiny_hrnet.published, tiny_hrnet.imagenet])
def test_the_backbone_comes_from_a_whole_model_or_one_of_imagenet(
    tmp_path, layout, tiny, make
):
    found = from_file(tmp_path, layout, tiny, make(seed=5), ":^trunk/")
    published, before = tiny_hrnet.published(seed=5), torch_names(tiny)
    for name, array in torch_names(found).items():
        wanted = published if name.startswith("backbone.") else before
        np.testing.assert_array_equal(array, wanted[name])


def test_a_folder_of_converted_weights_is_a_start(tmp_path, layout, tiny):
    settings, given = tiny_hrnet.state(seed=5)
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        only = {"params": given.params, "batch_stats": given.batch_stats}
        checkpoints.save_weights(only, settings)
    found = transfer.start_from(tiny, str(tmp_path), layout)
    equal(found.variables, given.variables)


@pytest.mark.parametrize(
    ("make", "pattern", "said"),
    [
        (tiny_hrnet.imagenet, "", r"holds a backbone alone; take .*:\^trunk/"),
        (lambda: tiny_hrnet.imagenet("wide"), ":^trunk/", r"expected \(1, 1, 32, 4\)"),
        (tiny_hrnet.imagenet, ":^(trunk|part_head)/", "part_head/bias is missing"),
        (tiny_hrnet.published, ":^nothing", "nothing matches"),
        (tiny_hrnet.published, ":(", "missing"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(
    tmp_path, layout, tiny, make, pattern, said
):
    with pytest.raises(UserError, match=f"^config.init_from: .*{said}") as caught:
        from_file(tmp_path, layout, tiny, make(), pattern)
    assert "\n" not in str(caught.value)


def test_a_backbone_file_lacks_no_array_of_the_backbone(tmp_path, layout, tiny):
    arrays = tiny_hrnet.imagenet()
    arrays["conv3.weight"] = arrays.pop("conv2.weight")
    with pytest.raises(UserError, match="2 arrays.*conv3.weight matches no row; param"):
        from_file(tmp_path, layout, tiny, arrays, ":^trunk/")


def test_a_file_needs_to_be_there_and_a_method_with_names(tmp_path, layout, tiny):
    with pytest.raises(UserError, match="none.pth: there is no such file"):
        transfer.start_from(tiny, str(tmp_path / "none.pth"), layout, TABLES)
    none = transfer.tables_of(tiny_method, tiny_method.Model(skeletons.COCO))
    for tables, said in ((none, "tiny_method has no table"), (None, "no torch names")):
        with pytest.raises(UserError, match=said):
            from_file(tmp_path, layout, tiny, tiny_hrnet.published(), "", tables)


@pytest.mark.parametrize("method", [pinet, top_down])
def test_tables_are_those_of_the_backbone(method):
    model = method.Model(skeletons.COCO, {"name": "pyramid"})
    with pytest.raises(UserError, match="pyramid has no table of torch names"):
        _ = transfer.tables_of(method, model).whole
    model = method.Model(skeletons.COCO, {"name": "hrnet"})
    assert transfer.tables_of(method, model).whole


@pytest.mark.parametrize("name", ["simple_baseline", "poseur"])
def test_imagenet_files_of_resnet_go_into_their_own_depth(tmp_path, golden, name):
    settings = config.load(f"configs/{name}.py:coco")
    method, model = step.build_model(settings, skeletons.COCO)
    shapes = step.variable_shapes(model, (64, 64, 3))
    tables = transfer.tables_of(method, model)
    path = str(tmp_path / "resnet.pth")
    for depth in ("resnet50", "resnet101"):
        _, arrays = golden_weights.load(golden / "torchvision_resnet", depth)
        weight_files.write(path, arrays)
        if depth == "resnet50":
            found = transfer._from_file(path, "^trunk/", shapes, tables)
        else:
            with pytest.raises(UserError, match="layer3_6.* which does not exist"):
                transfer._from_file(path, "^trunk/", shapes, tables)
    assert found["params"].keys() == {"trunk"}
    assert jax.tree.structure(found["params"]["trunk"]) == jax.tree.structure(
        shapes["params"]["trunk"]
    )


@pytest.mark.parametrize("name", ["hrnet", "pinet"])
def test_the_imagenet_file_of_hrnet_goes_into_all_that_read_it(tmp_path, golden, name):
    """HRNet's own network gives one branch on, PINet's all four."""
    settings = config.load(f"configs/{name}.py:coco")
    method, model = step.build_model(settings, skeletons.COCO)
    shapes = step.variable_shapes(model, (64, 64, 3))
    _, arrays = golden_weights.load(golden / "hrnet_w32_backbone")
    spare = [x for x in arrays if ".2.fuse_layers.1." in x and x.startswith("stage4")]
    assert spare
    path = str(tmp_path / "hrnet.pth")
    weight_files.write(path, arrays | {"classifier.bias": np.zeros(1000, np.float32)})
    tables = transfer.tables_of(method, model)
    found = transfer._from_file(path, "^trunk/", shapes, tables)
    assert jax.tree.structure(found["params"]["trunk"]) == jax.tree.structure(
        shapes["params"]["trunk"]
    )
    assert ("fuse1_0_0" in found["params"]["trunk"]["stage4_2"]) == (name == "pinet")
