"""Scores of poses."""

import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.ops import rescoring
from occjax.skeletons import OCPOSE
from occjax.types import Labels


def test_mean_counts_what_is_strictly_above_the_bound():
    score = jnp.asarray([[0.5, 0.25, 0.125, 1.0], [0.25, 0.1, -1.0, 0.0]])
    got = rescoring.confident_mean(score, 0.25)
    np.testing.assert_allclose(got, (0.75, 0))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_without_a_bound_it_is_the_plain_mean_in_single_precision(dtype):
    score = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 17)), dtype)
    got = rescoring.confident_mean(score, -jnp.inf)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(
        got, np.mean(np.asarray(score, np.float64), axis=-1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-6), ("float64", 1e-12)])
def test_oks_with_each_person_is_that_of_opec_nets_code(golden, dtype, within):
    figures = np.load(golden / "opec_net" / "preprocess.npz")
    with jax.enable_x64(dtype == "float64"):
        found = jnp.asarray(figures["oks_dt"][None, ..., :2].repeat(3, axis=0), dtype)
        people = jnp.asarray(figures["oks_gt"][:, None, :12], dtype)  # one an image
        area = jnp.asarray(figures["oks_areas"][:, None], dtype)
        labels = Labels(
            people[..., :2], people[..., 2], area, jnp.zeros((3, 1, 1), bool), area
        )
        ours = rescoring.best_oks(found, labels, OCPOSE.sigmas)
    assert ours.dtype == dtype
    link, theirs = "score: OKS of poses to be corrected", figures["oks"].T
    equivalence.check("OPEC-Net", link, ours, theirs, within, "absolute")
