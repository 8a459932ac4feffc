"""What every method must do, whatever it is: one suite over all of occjax/methods.

A method is tested by the smoke variant of its configs; a new one needs nothing here.
"""

import pathlib
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from occjax import artefact, export, methods, skeletons
from occjax.runtime import config as configs
from occjax.runtime import initial, metrics, optim, step
from occjax.types import Batch, Inputs, Labels

CONFIGS = [  # that have a smoke variant: studies of a method have none
    path
    for path in sorted(pathlib.Path("configs").glob("*.py"))
    if "smoke" in path.read_text()
]
METHODS = [
    path.stem
    for path in pathlib.Path(methods.__file__).parent.glob("*.py")
    if path.stem != "__init__"
]
IMAGES, PEOPLE, ROWS = 2, 3, 5  # rows that hold nobody are padding


class Task(NamedTuple):
    config: Any
    method: types.ModuleType
    model: Any
    variables: dict
    batch: Batch
    train: Any  # jitted: (variables, batch) -> (terms, gradient of the loss)
    predict: Any  # jitted: (variables, inputs) -> Poses


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda path: path.stem)
def task(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(".")
        config = configs.load(f"{request.param}:smoke")
    method, model = step.build_model(config, skeletons.COCO)
    batch = people(np.random.default_rng(0), config.data.size)
    if config.data.get("view", "image") == "people":
        batch = each_cropped(batch)
    if any(one["name"] == "paste_patches" for one in config.occlusion):
        batch = with_clean_twins(batch)
    variables = initial.variables(model, batch.inputs, seed=0)
    return Task(
        config,
        method,
        model,
        variables,
        batch,
        jax.jit(lambda v, b: gradient(config, method, model, v, b)),
        jax.jit(lambda v, i: poses_of(method, model, v, i)),
    )


def people(rng, size) -> Batch:
    """Square images of noise with people of different heights, side by side."""
    size = int(np.max(size))
    middle = (np.arange(PEOPLE) + 0.5) / PEOPLE * size
    height = rng.uniform(0.4 * size, 0.8 * size, (IMAGES, PEOPLE, 1))
    shape = (IMAGES, PEOPLE, 17)
    x = middle[:, None] + 0.05 * size * rng.uniform(-1, 1, shape)
    y = 0.5 * size + 0.5 * height * rng.uniform(-1, 1, shape)
    joints = np.stack([x, y], axis=-1).astype(np.float32)

    def pad(x):
        return np.pad(x, [(0, 0), (0, ROWS - PEOPLE)] + [(0, 0)] * (x.ndim - 2))

    return Batch(
        Inputs(
            rng.integers(0, 256, (IMAGES, size, size, 3), np.uint8),
            np.full((IMAGES, 2), size, np.int32),
            np.tile(np.eye(2, 3, dtype=np.float32), (IMAGES, 1, 1)),
        ),
        Labels(
            pad(joints),
            pad(rng.integers(0, 3, shape).astype(np.uint8)),
            pad((0.3 * height[..., 0] ** 2).astype(np.float32)),
            np.zeros((IMAGES, size // 4, size // 4), bool),
            np.zeros((IMAGES, ROWS), np.float32),
            oks_area=pad((0.15 * height[..., 0] ** 2).astype(np.float32)),
        ),
        np.arange(IMAGES),
    )


def each_cropped(batch) -> Batch:
    """The same with the whole image as crop of each person; padded rows are empty."""
    there = (np.arange(ROWS) < PEOPLE).astype(np.float32)

    def each(x):
        rows = np.repeat(x[:, None], ROWS, axis=1)
        rows[:, PEOPLE:] = 0
        return rows

    size = batch.inputs.image.shape[1]
    box = np.zeros((ROWS, 4), np.float32)
    box[:PEOPLE, 2] = size * (0.7 + 0.1 * np.arange(PEOPLE))
    box[:PEOPLE, 3] = size
    inputs = Inputs(*map(each, batch.inputs[:3]))
    inputs = inputs._replace(
        box=np.tile(box, (IMAGES, 1, 1)), box_score=np.tile(there, (IMAGES, 1))
    )
    labels = batch.labels._replace(ignore=each(batch.labels.ignore))
    return batch._replace(inputs=inputs, labels=labels)


def with_clean_twins(batch) -> Batch:
    """The same with patches on the images, and a clean view of each."""
    clean, image = batch.inputs.image, batch.inputs.image.copy()
    image[:, 10:30, 10:30] = 0
    seen = batch.labels.visibility
    return batch._replace(
        inputs=batch.inputs._replace(image=image, clean=clean),
        labels=batch.labels._replace(
            visibility=np.minimum(seen, 1).astype(np.uint8), clean_visibility=seen
        ),
    )


def outputs_of(method, model, variables, batch):
    """What the model says in training."""
    asked = {}
    if hasattr(method, "proposals"):
        asked["proposals"] = method.proposals(model, batch.labels)
    outputs, _ = model.apply(
        variables,
        batch.inputs,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(1)},
        **asked,
    )
    return outputs


def reduced(method, model, outputs, labels):
    """Loss terms of outputs, each reduced to its mean."""
    terms = method.loss_terms(model, outputs, labels)
    for values, weights in terms.values():
        assert values.shape == weights.shape
        assert values.dtype == weights.dtype == jnp.float32
    return {name: metrics.weighted_mean(*pair) for name, pair in terms.items()}


def gradient(config, method, model, variables, batch):
    def loss(params):
        outputs = outputs_of(method, model, {**variables, "params": params}, batch)
        terms = reduced(method, model, outputs, batch.labels)
        return sum(config.loss[name] * value for name, value in terms.items()), terms

    grads, terms = jax.grad(loss, has_aux=True)(variables["params"])
    return terms, grads


def poses_of(method, model, variables, inputs):
    outputs = model.apply(variables, inputs, train=False)
    return method.decode(model, outputs, inputs)


def close(found, expected, rtol=1e-4, atol=1e-6):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
        found,
        expected,
    )


def with_labels(batch, change):
    """The batch with every array of persons in its labels replaced by change(array)."""
    labels = batch.labels
    per_person = ["joints", "visibility", "area", "head_size", "oks_area"]
    if batch.inputs.image.ndim == 5:  # a crop each
        per_person.append("ignore")
    if labels.clean_visibility is not None:
        per_person.append("clean_visibility")
    changed = {name: change(getattr(labels, name)) for name in per_person}
    return batch._replace(labels=labels._replace(**changed))


def with_rows(batch, change):
    """The same for the rows of persons in the inputs as well, where they have some."""
    batch = with_labels(batch, change)
    if batch.inputs.image.ndim == 5:
        batch = batch._replace(inputs=jax.tree.map(change, batch.inputs))
    return batch


def test_every_method_has_a_config():
    found = {configs.load(f"{path}:smoke").method for path in CONFIGS}
    assert found == set(METHODS)


def test_the_loss_is_finite_and_its_terms_are_those_of_the_config(task):
    terms, _ = task.train(task.variables, task.batch)
    assert set(terms) == set(task.config.loss)
    for name, value in terms.items():
        assert np.isfinite(value), name
        assert value > 0, name


def test_every_parameter_that_learns_has_a_gradient(task):
    params = task.variables["params"]
    learns = optim.trainable_mask(params, task.config.trainable)

    def begun(x, on):
        # a factor that starts at 0, here or there, holds back what stands behind it
        x = np.where(x == 0, np.float32(0.05), x)
        # and who reads what is frozen needs more than the crumbs of an untrained one
        return x if on or x.ndim == 1 else x / np.std(x) / np.sqrt(x[..., 0].size)

    params = jax.tree.map(begun, params, learns)
    _, grads = task.train({**task.variables, "params": params}, task.batch)
    leaves = jax.tree_util.tree_leaves_with_path(grads)
    without = [
        jax.tree_util.keystr(path)
        for (path, leaf), on in zip(leaves, jax.tree.leaves(learns), strict=True)
        if on and not (np.any(leaf) and np.all(np.isfinite(leaf)))
    ]
    assert not without


def test_one_batch_can_be_learnt_by_heart(task):
    variables = task.variables
    transform = optax.adam(optax.linear_schedule(1e-2, 0, 40, transition_begin=80))
    state = transform.init(variables["params"])

    @jax.jit
    def update(params, state, grads):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = transform.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    history = []
    for _ in range(120):
        terms, grads = task.train(variables, task.batch)
        history.append(sum(task.config.loss[k] * float(v) for k, v in terms.items()))
        params, state = update(variables["params"], state, grads)
        variables = {**variables, "params": params}
    assert np.mean(history[-5:]) < 0.5 * history[0]


def test_jit_changes_no_loss(task):
    """Of what the network says; it alone would take a minute, op by op."""
    method, model, batch = task.method, task.model, task.batch
    outputs = jax.jit(lambda v, b: outputs_of(method, model, v, b))
    eager = reduced(method, model, outputs(task.variables, batch), batch.labels)
    close(task.train(task.variables, batch)[0], eager, rtol=2e-3)


def test_bfloat16_is_near_float32_and_its_losses_and_poses_are_float32(task):
    half = task.model.clone(dtype=jnp.bfloat16)

    def both(variables, batch):
        outputs = outputs_of(task.method, half, variables, batch)
        terms = reduced(task.method, half, outputs, batch.labels)
        return terms, poses_of(task.method, half, variables, batch.inputs)

    terms, poses = jax.jit(both)(task.variables, task.batch)
    close(terms, task.train(task.variables, task.batch)[0], rtol=0.1, atol=1e-3)
    assert {field.dtype for field in poses} == {np.dtype("float32")}


def test_padded_persons_have_no_effect(task):
    cut = with_rows(task.batch, lambda x: x[:, :PEOPLE])
    found = (task.train(task.variables, batch) for batch in (cut, task.batch))
    close(*found, atol=1e-5)  # a bias before a batch norm has a gradient of rounding


def test_joints_that_stand_in_padded_rows_have_no_effect(task):
    labels = task.batch.labels
    joints = labels.joints.copy()
    joints[:, PEOPLE:] = np.random.default_rng(3).uniform(0, 40, joints[0, :2].shape)
    filled = task.batch._replace(labels=labels._replace(joints=joints))
    close(*(task.train(task.variables, batch) for batch in (filled, task.batch)))


def test_the_order_of_persons_has_no_effect(task):
    first = task.config.data.get("view") == "person"  # whom the crop is of comes first
    turned = with_rows(
        task.batch, lambda x: np.concatenate((x[:, :first], x[:, first:][:, ::-1]), 1)
    )
    close(
        task.train(task.variables, turned)[0],
        task.train(task.variables, task.batch)[0],
        rtol=1e-3,
    )


def test_an_image_without_people_is_no_trouble(task):
    empty = with_labels(task.batch, np.zeros_like)
    terms, grads = task.train(task.variables, empty)
    for leaf in jax.tree.leaves((terms, grads)):
        assert np.all(np.isfinite(leaf))


def test_poses_have_the_promised_shapes_and_ranges(task):
    poses = task.predict(task.variables, task.batch.inputs)
    images, persons = poses.score.shape
    there = np.asarray(poses.score) > -np.inf

    assert images == IMAGES
    assert poses.joints.shape == (images, persons, 17, 2)
    for field in poses[1:4]:
        assert field.shape == (images, persons, 17)
    for field in poses[:2]:
        assert np.all(np.isfinite(np.asarray(field)[there]))
    for field in (poses.visible, poses.labelled):
        told = np.asarray(field)[there]
        assert np.all(np.isnan(told)) or np.all((told >= 0) & (told <= 1))
    assert not np.any(np.isnan(poses.score))


def test_an_image_is_judged_by_itself(task):
    poses = task.predict(task.variables, task.batch.inputs)
    turned = jax.tree.map(lambda x: x[::-1].copy(), task.batch.inputs)
    back = jax.tree.map(lambda x: x[::-1], task.predict(task.variables, turned))
    close(back, poses, rtol=1e-3, atol=1e-3)


def test_its_artefact_gives_the_same_for_any_number_of_images(task):
    data, joints = task.config.data.to_dict(), 17
    inputs = task.batch.inputs._replace(clean=None)
    specs = export.examples(data, joints, inputs.image.shape[1:-1])
    given = {name: getattr(inputs, name) for name in specs}
    if given.get("box", True) is None:  # of a crop: here the whole image
        size = inputs.image.shape[1]
        given["box"] = np.tile(np.array([0, 0, size, size], np.float32), (IMAGES, 1))
        given["box_score"] = np.ones(IMAGES, np.float32)
        inputs = inputs._replace(box=given["box"], box_score=given["box_score"])
    program = export.serialise(
        task.method, task.model, task.variables, specs, ("cpu", "cuda", "tpu")
    )
    about = dict(joints=(), bones=(), size=inputs.image.shape[-3:-1], needs=specs)
    about |= dict(platforms=(), crops=ROWS if inputs.image.ndim == 5 else 0)
    run = artefact.Artefact(program, about)
    image = given.pop("image")
    close(run(image, **given), task.predict(task.variables, inputs)._asdict())
    one = run(image[:1], **{name: value[:1] for name, value in given.items()})
    close(one, {k: v[:1] for k, v in run(image, **given).items()}, rtol=1e-3, atol=1e-3)


def test_poses_are_given_in_pixels_of_the_source(task):
    poses = task.predict(task.variables, task.batch.inputs)
    matrix = np.array([[2, 0, 10], [0, 2, -5]], np.float32)
    inputs = task.batch.inputs
    shape = inputs.to_source.shape
    inputs = inputs._replace(to_source=np.broadcast_to(matrix, shape).copy())
    if inputs.box is not None:  # it lies in the source
        moved = 2 * inputs.box + np.array([10, -5, 0, 0], np.float32)
        there = inputs.box_score[..., None] > 0
        inputs = inputs._replace(box=np.where(there, moved, 0).astype(np.float32))
    there = np.asarray(poses.score) > -np.inf
    moved = np.asarray(task.predict(task.variables, inputs).joints)[there]

    expected = 2 * np.asarray(poses.joints)[there] + matrix[:, 2]
    np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", ["none_such", "../types"])
def test_a_method_that_is_no_file_is_refused(name):
    with pytest.raises(ValueError, match="is no file of occjax/methods"):
        methods.load(name)
