"""Hourglasses with the reference weights of both published codes, as a method."""

import equivalence
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_nets import nhwc, quick_jit

from occjax.methods import top_down
from occjax.runtime import weights
from occjax.skeletons import MPII
from occjax.types import Inputs

NAMES = top_down.PUBLISHED["hourglass"]
CODES = {  # reference figures -> name for the page, stem
    "bearpaw_hg2": ("Hourglass (pytorch-pose)", (128, 256, 256)),
    "princeton_hg2": ("Hourglass (princeton-vl)", (128, 128, 256)),
}


def inputs_of(image):
    batch, *size, _ = image.shape
    valid = jnp.broadcast_to(jnp.asarray(size), (batch, 2))
    return Inputs(image, valid, jnp.zeros((batch, 2, 3)))


@pytest.fixture(scope="module", params=CODES)
def published(golden, request):
    """Name for the page, model, variables, weights and reference figures of a code."""
    title, stem = CODES[request.param]
    model = top_down.Model(
        skeleton=MPII,
        backbone={"name": "hourglass", "stem": stem},
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        flip_test=False,
    )
    _, state_dict = golden_weights.load(golden / "hourglass", request.param)
    image = inputs_of(jnp.zeros((1, 64, 64, 3)))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    variables = weights.convert(state_dict, NAMES, shapes)
    figures = np.load(golden / "hourglass" / f"{request.param}.npz")
    return title, model, variables, state_dict, figures


def test_all_stacks_give_the_published_heatmaps(published):
    title, model, variables, _, figures = published
    image = inputs_of(jnp.asarray(nhwc(figures["input"]) * np.float32(255)))
    run = quick_jit(lambda v, x: model.apply(v, x, train=False).maps)
    for number, maps in enumerate(run(variables, image), start=1):
        wanted = nhwc(figures[f"heatmaps{number}"])
        equivalence.check(title, f"forward: method, stack {number}", maps, wanted, 1e-5)


def test_the_way_back_gives_a_file_that_reads_as_the_same_weights(published):
    _, _, variables, _, _ = published
    again = weights.convert(weights.revert(variables, NAMES), NAMES, variables)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
