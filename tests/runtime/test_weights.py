import jax
import numpy as np
import pytest

from occjax.errors import UserError
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
