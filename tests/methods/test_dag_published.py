"""Files of DAG's published code go into the released variant, whole."""

import jax
import numpy as np
import pytest

from configs import dag as experiment
from occjax.methods import dag
from occjax.runtime import step, weights
from occjax.skeletons import COCO

# Of the published code: names that are not HRNet's, and their shapes at 256 x 192.
NAMES = {
    "kpt_layer.weight": (17, 32, 1, 1),
    "parts_predictor.weight": (17, 32, 3, 3),
    "channel_att.atn.weight": (32, 32),
    "channel_att.atn.bias": (32,),
    "concat_predict.weight": (32, 64, 1, 1),
    "level_conv.weight": (17, 17, 3, 3),
    "FC.0.0.weight": (1024, 128 * 96),
    "FC.1.0.weight": (1024, 1024),
    "FC.2.bias": (2,),
    "gconv_input.0.gconv.W": (2, 2, 128),
    "gconv_input.0.gconv.Lamda2": (17, 128),
    "gconv_input.0.bn.running_var": (128,),
    "gconv_layers.2.gconv1.gconv.Lamda1": (17, 128),
    "gconv_layers.2.bn.weight": (128,),
    "gconv_layer_last.gconv2.gconv.W": (2, 145, 145),
    "gconv_output.W": (2, 145, 2),
    "gconv_output.bias": (2,),
    "non_local.theta.weight": (72, 145, 1, 1),
    "non_local.W.0.bias": (145,),
    "non_local.W.1.running_mean": (145,),
    "stage4.2.fuse_layers.0.3.0.weight": (32, 256, 1, 1),
    "transition3.3.0.0.weight": (256, 128, 3, 3),
}


@pytest.fixture(scope="module")
def variables():
    """Those of the released variant; no memory is used for them."""
    _, model = step.build_model(experiment.get_config("released"), COCO)
    shapes = step.variable_shapes(model, (256, 192, 3))
    return jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes)


def test_names_and_shapes_are_those_of_the_published_code(variables):
    state = weights.revert(variables, dag.PUBLISHED["hrnet"])
    assert {name: state[name].shape for name in NAMES} == NAMES


def test_a_file_fills_the_model_and_what_teaches_alone_is_dropped(variables):
    rows = dag.PUBLISHED["hrnet"]
    state = weights.revert(variables, rows)
    for name in ("final_layer", "context_head.2", "context_predictor.0"):
        state[f"{name}.weight"] = np.ones((17, 32), np.float32)
    found = weights.convert(state, rows, variables)
    shapes = jax.tree.map(np.shape, found)
    assert shapes == jax.tree.map(np.shape, variables)
