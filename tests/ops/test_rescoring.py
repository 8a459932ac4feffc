"""Scores of poses."""

import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.evaluation import oks
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


def test_similarity_is_one_at_the_place_and_falls_by_the_joints_own_measure():
    sigmas, area = (0.05, 0.1), 400.0
    away = 2 * np.array(sigmas) * np.sqrt(area)  # k s, equation 2
    joints = np.zeros((3, 2, 2), np.float32)
    joints[1, :, 0] = away
    joints[2, :, 1] = 2 * away
    got = rescoring.similarity(joints, 0 * joints, np.full(3, area, np.float32), sigmas)
    expected = np.exp([[0, 0], [-0.5, -0.5], [-2, -2]])
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_oaks_is_the_mean_similarity_of_joints_that_probably_have_a_label():
    labelled = jnp.asarray([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    quality = jnp.asarray([[0.8, 0.2, 0.9], [0.8, 0.2, 0.9]])
    got = rescoring.oaks(labelled, quality)
    np.testing.assert_allclose(got, (0.9 / 1.5, 0.0), rtol=1e-5)


def test_with_known_labels_and_similarities_oaks_is_oks():
    rng = np.random.default_rng(0)
    joints, truth = rng.uniform(0, 30, (2, 6, 12, 2)).astype(np.float32)
    area = rng.uniform(500, 5000, 6).astype(np.float32)
    visibility = rng.integers(0, 3, (6, 12)).astype(np.float32)
    quality = rescoring.similarity(joints, truth, area, OCPOSE.sigmas)
    got = rescoring.oaks(jnp.asarray(visibility > 0, jnp.float32), quality)
    expected, _ = oks.oks(
        joints.astype(float),
        np.concatenate([truth, visibility[..., None]], axis=-1).astype(float),
        area.astype(float),
        np.zeros((6, 4)),
        np.array(OCPOSE.sigmas),
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4)
