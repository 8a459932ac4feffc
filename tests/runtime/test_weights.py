import golden_weights
import jax
import numpy as np
import pytest

from occjax.errors import UserError
from occjax.methods import dekr, pinet, top_down
from occjax.nn import cpn, fastpose, heads, hourglass, hrnet, resnet
from occjax.nn.torch_names import prefixed
from occjax.runtime import weights

ROWS = (
    (r"conv(\d)", r"conv\1", "conv"),
    (r"bn", "block/bn", "norm"),
    (r"fc", "head/fc", "linear"),
    (r"mix", "head/mix", "pointwise"),
    (r"head\.adj", "head/adjacency", "keep"),
    (r"aux\..*", "", "drop"),
)


@pytest.fixture
def state_dict():
    rng = np.random.default_rng(0)
    shapes = {
        "conv1.weight": (5, 3, 2, 4),  # out, in, height, width
        "conv1.bias": (5,),
        "bn.weight": (5,),
        "bn.bias": (5,),
        "bn.running_mean": (5,),
        "bn.running_var": (5,),
        "fc.weight": (6, 5),
        "mix.weight": (7, 6, 1),
        "head.adj": (2, 3),
        "aux.classifier.weight": (9, 9),
    }
    arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    return arrays | {"bn.num_batches_tracked": np.array(3)}


@pytest.fixture
def shapes():
    """Variables that `state_dict` fills, float32."""

    def leaf(*shape):
        return jax.ShapeDtypeStruct(shape, np.float32)

    return {
        "params": {
            "conv1": {"kernel": leaf(2, 4, 3, 5), "bias": leaf(5)},
            "block": {"bn": {"scale": leaf(5), "bias": leaf(5)}},
            "head": {
                "fc": {"kernel": leaf(5, 6)},
                "mix": {"kernel": leaf(6, 7)},
                "adjacency": leaf(2, 3),
            },
        },
        "batch_stats": {"block": {"bn": {"mean": leaf(5), "var": leaf(5)}}},
    }


def test_every_kind_lands_in_the_flax_layout(state_dict, shapes):
    got = weights.convert(state_dict, ROWS, shapes)
    float32 = {name: array.astype(np.float32) for name, array in state_dict.items()}
    expected = {
        "params": {
            "conv1": {
                "kernel": float32["conv1.weight"].transpose(2, 3, 1, 0),
                "bias": float32["conv1.bias"],
            },
            "block": {
                "bn": {"scale": float32["bn.weight"], "bias": float32["bn.bias"]}
            },
            "head": {
                "fc": {"kernel": float32["fc.weight"].T},
                "mix": {"kernel": float32["mix.weight"][..., 0].T},
                "adjacency": float32["head.adj"],
            },
        },
        "batch_stats": {
            "block": {
                "bn": {
                    "mean": float32["bn.running_mean"],
                    "var": float32["bn.running_var"],
                }
            }
        },
    }
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(got))


def test_a_checkpoint_without_the_counters_of_batches_is_complete(state_dict, shapes):
    del state_dict["bn.num_batches_tracked"]
    weights.convert(state_dict, ROWS, shapes)


def test_one_line_names_everything_that_does_not_fit(state_dict, shapes):
    state_dict["stranger.weight"] = np.zeros(1)
    state_dict["conv2.weight"] = np.zeros((1, 1, 1, 1))
    state_dict["conv1.bias"] = np.zeros(4)
    del state_dict["bn.running_var"]
    with pytest.raises(UserError) as caught:
        weights.convert(state_dict, ROWS, shapes)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("weights: 4 arrays do not fit the model: ")
    for part in (
        "stranger.weight matches no row",
        "conv2.weight leads to params/conv2/kernel, which does not exist",
        "conv1.bias gives params/conv1/bias the shape (4,), expected (5,)",
        "batch_stats/block/bn/var is missing",
    ):
        assert part in message


def test_two_names_may_not_fill_one_variable(state_dict, shapes):
    rows = ((r"twin", "head/fc", "linear"), *ROWS)
    state_dict["twin.weight"] = state_dict["fc.weight"]
    with pytest.raises(UserError, match="fills params/head/fc/kernel a second time"):
        weights.convert(state_dict, rows, shapes)


def test_the_first_row_that_matches_decides(state_dict, shapes):
    state_dict["fc.extra"] = np.zeros(1)
    rows = ((r"fc\.extra", "", "drop"), *ROWS)
    weights.convert(state_dict, rows, shapes)


def test_a_part_keeps_its_table_under_a_prefix(state_dict, shapes):
    rows = prefixed(ROWS, "module.net.", "net")
    outer = {f"module.net.{name}": array for name, array in state_dict.items()}
    wanted = {collection: {"net": tree} for collection, tree in shapes.items()}
    got = weights.convert(outer, rows, wanted)
    expected = weights.convert(state_dict, ROWS, shapes)
    jax.tree.map(
        np.testing.assert_array_equal,
        {collection: tree["net"] for collection, tree in got.items()},
        expected,
    )


def test_the_dot_of_a_prefix_stands_for_a_dot_only(state_dict, shapes):
    rows = prefixed(ROWS, "a.", "net")
    wanted = {collection: {"net": tree} for collection, tree in shapes.items()}
    with pytest.raises(UserError, match="abfc.weight matches no row"):
        weights.convert({"abfc.weight": state_dict["fc.weight"]}, rows, wanted)


def test_the_way_back_is_exact(state_dict, shapes):
    float32 = {name: array.astype(np.float32) for name, array in state_dict.items()}
    found = weights.revert(weights.convert(float32, ROWS, shapes), ROWS)
    left_out = {"aux.classifier.weight", "bn.num_batches_tracked"}
    assert found.keys() == float32.keys() - left_out
    for name, array in found.items():
        np.testing.assert_array_equal(array, float32[name])
        assert array.dtype == np.float32


PUBLISHED = {
    ("hrnet_w32_backbone", None): hrnet.TORCH_NAMES,
    ("pinet_coco", None): pinet.TORCH_NAMES,
    ("dekr_coco", None): dekr.TORCH_NAMES,
    ("dekr_coco", "rescore_net"): dekr.TORCH_NAMES,
    ("pose_hrnet_w32", None): top_down.PUBLISHED["hrnet"],
    ("torchvision_resnet", "resnet50"): (*resnet.TORCH_NAMES, ("fc", "fc", "linear")),
    ("simple_baseline", "pose_resnet50"): (
        *resnet.TORCH_NAMES,
        *heads.DECONVOLUTION_NAMES,
        *heads.HEATMAP_NAMES,
    ),
    ("hourglass", "bearpaw_hg2"): hourglass.TORCH_NAMES,
    ("hourglass", "princeton_hg2"): hourglass.PRINCETON_NAMES,
    ("cpn", "cpn50"): cpn.TORCH_NAMES,
    ("fastpose", "fastpose101_se"): fastpose.TORCH_NAMES,
}


@pytest.mark.parametrize(("folder", "part"), PUBLISHED)
def test_published_models_go_in_and_come_out_the_same(golden, folder, part):
    rows = PUBLISHED[folder, part]
    _, published = golden_weights.load(golden / folder, part)
    placed = {}
    for name, array in published.items():
        leaf, kind = weights._match(name, weights._compiled(rows))
        if kind != "drop":
            placed[leaf] = weights._to_flax(array, kind, leaf)
    variables = weights.convert(published, rows, weights._unflatten(placed))
    found = weights.revert(variables, rows)
    dropped = {
        name for name in published if "skip_layer" in name or "regular_matrix" in name
    }
    assert published.keys() - found.keys() <= dropped
    assert found.keys() <= published.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, published[name])


def test_rows_that_cannot_be_read_backwards_are_named(state_dict, shapes):
    variables = weights.convert(state_dict, ROWS, shapes)
    rows = [row for row in ROWS if row[0] not in ("bn", "fc")]
    rows += [(r"b.", "block/bn", "norm"), (r"fc|linear", "head/fc", "linear")]
    with pytest.raises(UserError, match="^weights: 5 variables have no") as caught:
        weights.revert(variables, rows)
    assert "params/head/fc/kernel" in str(caught.value)
    assert "batch_stats/block/bn/var" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ((r"a\.(\d+)\.b([12])", r"x\2/y_\1", "linear"), "a.10.b2.weight"),
        ((r"(\d)\.(fc|out)", r"\2_\1/\1", "linear"), "3.out.weight"),
        ((r"", "top", "linear"), "weight"),
        ((r"a_b\.w", "deep/w", "keep"), "a_b.w"),
    ],
)
def test_groups_may_change_places(row, name):
    leaf, _ = weights._match(name, weights._compiled([row]))
    tree = weights._unflatten({leaf: np.ones((2, 3), np.float32)})
    assert list(weights.revert(tree, [row])) == [name]


def test_an_earlier_row_may_take_a_name_away(state_dict, shapes):
    """Then a later name is found, one that `convert` brings to the same place."""
    variables = weights.convert(state_dict, ROWS, shapes)
    rows = ((r"fc\..*", "", "drop"), *ROWS, (r"last", "head/fc", "linear"))
    found = weights.revert(variables, rows)
    np.testing.assert_array_equal(
        found["last.weight"], np.float32(state_dict["fc.weight"])
    )
    assert "fc.weight" not in found


def test_a_pattern_asks_for_a_part(state_dict, shapes):
    del state_dict["mix.weight"]
    del shapes["params"]["head"]["mix"]
    shapes["params"]["more"] = shapes["params"]["conv1"]
    found = weights.convert(state_dict, ROWS, shapes, pattern="^(conv|block)")
    assert found["params"].keys() == {"conv1", "block"}
    assert found["batch_stats"].keys() == {"block"}


def test_what_was_rounded_or_is_no_float_is_refused(state_dict, shapes):
    state_dict["conv1.bias"] = state_dict["conv1.bias"].astype(np.float16)
    with pytest.raises(UserError, match="1 arrays .* 16 bits.*conv1.bias is float16"):
        weights.convert(state_dict, ROWS, shapes)
    state_dict["fc.weight"] = state_dict["fc.weight"].astype(np.int64)
    with pytest.raises(UserError, match="fc.weight is int64, expected float32"):
        weights.convert(state_dict, ROWS, shapes)


def test_arrays_are_placed_one_by_one(state_dict, shapes):
    placed = []

    def place(array):
        assert array.flags.c_contiguous
        assert array.dtype == np.float32
        placed.append(array)
        return "there"

    found = weights.convert(state_dict, ROWS, shapes, place=place)
    assert set(jax.tree.leaves(found)) == {"there"}
    assert len(placed) == len(jax.tree.leaves(shapes))


def test_the_listing_tells_of_every_name(state_dict):
    state_dict["stranger"] = np.zeros(())
    lines = {name: line for name, *line in weights.listing(state_dict, ROWS)}
    assert lines.keys() == state_dict.keys()
    assert lines["conv1.weight"] == ["params/conv1/kernel", "5x3x2x4", "conv"]
    assert lines["aux.classifier.weight"] == ["-", "9x9", "drop"]
    assert lines["bn.num_batches_tracked"] == ["-", "1", "drop"]
    assert lines["stranger"] == ["-", "1", "no row"]
    assert weights.matching(state_dict, ROWS) == len(state_dict) - 1
