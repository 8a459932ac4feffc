"""OPEC-Net and CoupleGraph as methods: frames, who teaches them, what they answer."""

import functools

import equivalence
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden_nets import quick_jit

from occjax.data import warp
from occjax.methods import opecnet
from occjax.runtime import initial
from occjax.skeletons import COCO, MPII, OCPOSE
from occjax.types import Inputs, Labels

SIDE, SCALE, CORNER = 64, 1.5, (10, 20)
TO_SOURCE = np.float32([[SCALE, 0, CORNER[0]], [0, SCALE, CORNER[1]]])


def build(skeleton=OCPOSE, **fields):
    return opecnet.Model(
        skeleton=skeleton,
        backbone={"name": "resnet", "depth": 18, "width": 4},
        deconv=(8, 8, 8),
        head={"widths": (8, 8, 8), "features": 8},
        **fields,
    )


def inputs_of(lead, start_pose=None, box=(15.0, 25.0, 70.0, 80.0)):
    """Crops of noise; `lead` is (B,), or (B, P) for images of P people."""
    rng = np.random.default_rng(0)
    return Inputs(
        jnp.asarray(rng.integers(0, 256, (*lead, SIDE, SIDE, 3)), jnp.uint8),
        jnp.full((*lead, 2), SIDE),
        jnp.broadcast_to(jnp.asarray(TO_SOURCE), (*lead, 2, 3)),
        box=jnp.broadcast_to(jnp.asarray(box, jnp.float32), (*lead, 4)),
        box_score=jnp.ones(lead),
        start_pose=start_pose,
    )


def poses_in(lead, joints=12, seed=1):
    """Joints in input pixels, [*lead, J, 2]."""
    rng = np.random.default_rng(seed)
    return rng.uniform(8, 56, (*lead, joints, 2)).astype(np.float32)


def scored(joints, score=0.1):
    return np.concatenate([joints, np.full_like(joints[..., :1], score)], axis=-1)


def labels_of(joints):
    """Truth [B, P, J, 2] with everything labelled."""
    shape = joints.shape[:2]
    return Labels(
        jnp.asarray(joints),
        jnp.full(joints.shape[:-1], 2, jnp.uint8),
        jnp.full(shape, 40.0**2),
        jnp.zeros((len(joints), 16, 16), bool),
        jnp.zeros(shape),
    )


def variables_of(model, inputs):
    return initial.variables(model, inputs, seed=0)


def run(model, variables, inputs, train=False):
    apply = quick_jit(
        lambda v, x: model.apply(v, x, train=train, mutable=["batch_stats"])
    )
    return apply(variables, inputs)[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"initial": "best"}, "initial: .*'best'"),
        ({"frame": "image"}, "frame: .*'image'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        build(**fields)


def test_further_scales_are_refused_and_not_left_out():
    inputs = inputs_of((2,))
    inputs = inputs._replace(scaled=(inputs.image,), scaled_to_source=inputs[2:3])
    with pytest.raises(ValueError, match="scales: OPEC-Net corrects .* scale 1 alone"):
        build().init(jax.random.key(0), inputs, train=False)


@pytest.mark.parametrize("skeleton", [OCPOSE, COCO, MPII], ids=lambda s: s.name)
def test_the_limbs_are_found_in_every_skeleton(skeleton):
    names = [skeleton.joints[i] for i in build(skeleton).limbs]
    assert names == list(opecnet.LIMBS)


def letterbox(low, high, size):
    """The released code's matrix from a box of whole pixels to a crop.

    Margins that make up the aspect ratio are rounded to whole pixels, and corners then
    meet corners by turning what is between.
    """
    height, width = size
    extent = high - low
    full = np.maximum(extent, extent[::-1] * (width / height, height / width))
    margin = np.floor((full - extent) / 2)
    turn = complex(width - 1, height - 1) / complex(*(extent + 2 * margin))
    shift = -turn * complex(*(low - margin))
    return np.array(
        [[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]]
    )


def test_crops_show_the_released_codes_pixels(golden):
    """Given its matrix.

    Two kinds of pixels are not compared: the box's edge, where the released code blends
    with the zeros outside; and what a box has beyond its image, which is the mean
    colour there and black here. The released pipeline cuts boxes off at the image.
    """
    figures = np.load(golden / "opec_net" / "preprocess.npz")
    check = functools.partial(equivalence.check, "OPEC-Net")
    model = build(frame="box", mean=(0.406, 0.457, 0.480), std=(1.0, 1.0, 1.0))
    source, (height, width) = figures["crop_image_rgb"], figures["crop_out"].shape[2:]
    pixels = np.stack(np.mgrid[:height, :width][::-1], axis=-1)  # x, y
    last = np.array(source.shape[1::-1]) - 1
    for box, expected in zip(figures["crop_boxes"], figures["crop_out"], strict=True):
        low, high = np.trunc(box[:2]), np.trunc(box[2:] - 1)
        matrix = letterbox(low, high, (height, width))
        unexpanded = (high - low) / (1 + 2 * opecnet.EXPANDED)
        corner = (low + high - unexpanded) / 2
        inputs = Inputs(
            warp.warp_image(source, matrix, height, width)[None],
            np.array([[height, width]]),
            np.float32(warp.invert(matrix))[None],
            box=np.float32([*corner, *unexpanded])[None],
        )
        found = model.apply({}, jax.tree.map(jnp.asarray, inputs), method=model.pixels)
        found, theirs = np.asarray(found[0]), np.moveaxis(expected, 0, -1)
        at = warp.apply(warp.invert(matrix), pixels)
        inside = (at > np.maximum(low, 0) + 1) & (at < np.minimum(high, last) - 1)
        outside = (at < low - 1) | (at > high + 1)
        inside, outside = np.all(inside, axis=-1), np.any(outside, axis=-1)
        away = 255 * np.abs(found - theirs)[inside]
        link = "warp: grey levels of crops"
        note = "the reference was warped in float32 by OpenCV 5.0"
        check(f"{link}, mean", away.mean(), 0, 1, "absolute", note)
        check(f"{link}, largest", away.max(), 0, 8, "absolute", note)
        link = "warp: hidden part of crops"
        equivalence.exact("OPEC-Net", link, found[outside], theirs[outside])


def test_crops_have_the_released_codes_corners_but_for_its_rounding(golden):
    figures = np.load(golden / "opec_net" / "preprocess.npz")
    height, width = figures["crop_out"].shape[2:]
    for box in figures["crop_boxes"].astype(float):
        low, high = box[:2], box[2:]
        released = letterbox(np.trunc(low), np.trunc(high - 1), (height, width))
        side = warp.window_width(high - low, (1, 1), width / height)
        matrix = warp.crop_matrix((low + high) / 2, side, 0, width, height)
        ours, theirs = (warp.apply(m, box.reshape(2, 2)) for m in (matrix, released))
        link = "warp: corners of crops"
        note = "in crops of 32 x 40; the released code turns boxes by a degree or so"
        equivalence.check("OPEC-Net", link, ours, theirs, 0.7, "absolute", note)


@pytest.mark.parametrize("frame", opecnet.FRAMES)
def test_labels_and_poses_share_a_frame(frame):
    """A start pose that is the truth, given back as it came, has no loss."""
    model = build(frame=frame)
    truth = poses_in((2, 1))
    inputs = inputs_of((2,), jnp.asarray(scored(truth)))
    outputs = run(model, variables_of(model, inputs), inputs)
    source = jnp.asarray(truth[:, 0] * SCALE + CORNER, jnp.float32)
    np.testing.assert_allclose(outputs.joints, source, rtol=1e-5)
    pose = opecnet.sampling.affine(source, outputs.corrected.to_frame)
    same = outputs.corrected._replace(poses=(pose,) * 3)
    outputs = outputs._replace(corrected=same, start=pose)
    terms = opecnet.loss_terms(model, outputs, labels_of(truth))
    assert set(terms) == {"pose1", "pose2", "pose3", "start"}
    for values, weights in terms.values():
        np.testing.assert_allclose(values, 0, atol=1e-5)
        assert np.all(weights == 1)
    answer = opecnet.decode(model, outputs, inputs)
    np.testing.assert_allclose(answer.joints[:, 0], source, rtol=1e-4)


def test_sure_joints_and_those_that_are_no_limbs_keep_their_place():
    model = build(COCO, keep_above=0.2)
    given = scored(poses_in((1, 1), 17), 0.1)
    given[0, 0, 6, 2] = 0.3  # a limb that the base is sure of
    inputs = inputs_of((1,), jnp.asarray(given))
    outputs = run(model, variables_of(model, inputs), inputs)
    found = opecnet.decode(model, outputs, inputs).joints[0, 0]
    source = given[0, 0, :, :2] * SCALE + CORNER
    kept = np.isclose(found, source, rtol=1e-5).all(axis=1)
    np.testing.assert_array_equal(kept, [*(True,) * 5, False, True, *(False,) * 10])
    everything = opecnet.decode(model.clone(keep_above=2.0), outputs, inputs)
    assert not np.isclose(everything.joints[0, 0, 6], source[6]).any()


def test_who_is_badly_placed_or_barely_labelled_teaches_nothing():
    model = build()
    truth = poses_in((3, 1))
    start = truth.copy()
    start[1] = 60 - start[1]  # far off
    inputs = inputs_of((3,), jnp.asarray(scored(start)))
    labels = labels_of(truth)
    few = labels.visibility.at[2, 0, :7].set(0)
    outputs = run(model, variables_of(model, inputs), inputs)
    terms = opecnet.loss_terms(model, outputs, labels._replace(visibility=few))
    for _, weights in terms.values():
        np.testing.assert_array_equal(weights[:, 0, 0], [1, 0, 0])


def test_the_base_learns_only_if_it_is_not_frozen():
    inputs, labels = inputs_of((2,)), labels_of(poses_in((2, 1)))
    for frozen in (True, False):
        model = build(frozen_base=frozen, least_oks=0.0)
        variables = variables_of(model, inputs)

        def loss(params, model=model, variables=variables):
            outputs, state = model.apply(
                {**variables, "params": params},
                inputs,
                train=True,
                mutable=["batch_stats"],
            )
            terms = opecnet.loss_terms(model, outputs, labels)
            return sum(jnp.sum(v * w) for v, w in terms.values()), state

        grads, state = quick_jit(jax.grad(loss, has_aux=True))(variables["params"])
        learns = any(np.any(leaf) for leaf in jax.tree.leaves(grads["trunk"]))
        before, after = (
            np.concatenate([x.ravel() for x in jax.tree.leaves(s["trunk"])])
            for s in (variables["batch_stats"], state["batch_stats"])
        )
        assert learns is not frozen
        assert np.array_equal(before, after) is frozen
        assert any(np.any(leaf) for leaf in jax.tree.leaves(grads["opec"]))


def test_the_integral_pose_can_be_the_one_that_is_corrected():
    model, inputs = build(initial="integral"), inputs_of((2,))
    variables = variables_of(model, inputs)
    outputs = run(model, variables, inputs)
    base = run(model.clone(initial="base"), variables, inputs)
    np.testing.assert_allclose(outputs.start, base.start, atol=1e-6)
    assert not np.allclose(outputs.corrected.poses[-1], base.corrected.poses[-1])


@pytest.mark.slow
def test_a_batch_of_disturbed_poses_is_corrected_by_heart():
    model = build()
    truth = poses_in((4, 1))
    noise = np.random.default_rng(2).normal(0, 3, truth.shape).astype(np.float32)
    inputs = inputs_of((4,), jnp.asarray(scored(truth + noise)))
    labels, variables = labels_of(truth), variables_of(model, inputs)
    transform = optax.adam(1e-2)

    def loss(params, stats):
        outputs, state = model.apply(
            {"params": params, "batch_stats": stats},
            inputs,
            train=True,
            mutable=["batch_stats"],
        )
        values, weights = opecnet.loss_terms(model, outputs, labels)["pose3"]
        return jnp.sum(values * weights) / jnp.sum(weights), state["batch_stats"]

    @quick_jit
    def step(params, stats, state):
        with jax.numpy_dtype_promotion("standard"):
            (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(
                params, stats
            )
            updates, state = transform.update(grads, state, params)
            return optax.apply_updates(params, updates), stats, state, value

    params, stats = variables["params"], variables["batch_stats"]
    state = transform.init(params)
    history = []
    for _ in range(250):
        params, stats, state, value = step(params, stats, state)
        history.append(float(value))
    start = np.abs(noise).mean() * 2 / SIDE  # what the given poses are off
    assert np.mean(history[-10:]) < start / 2 < history[0]


def couple(boxes, **fields):
    """A model and images of people with these boxes [P, 4], start poses the truth."""
    model = build(couple=True, **fields)
    lead = (2, len(boxes))
    inputs = inputs_of(lead, jnp.asarray(scored(poses_in(lead))))
    box = jnp.broadcast_to(jnp.asarray(boxes, jnp.float32), (*lead, 4))
    inputs = inputs._replace(box=box, box_score=(box[..., 2] > 0).astype(jnp.float32))
    return model, variables_of(model, inputs), inputs


NEAR, ALONE, NOBODY = [[10, 10, 50, 50], [20, 10, 50, 50]], [200, 200, 9, 9], [0] * 4


def test_people_by_themselves_keep_the_pose_of_the_first_stage():
    model, variables, inputs = couple([*NEAR, ALONE, NOBODY])
    outputs = run(model, variables, inputs)
    paired = outputs.couples.paired
    np.testing.assert_array_equal(paired, [[True, True, False, False]] * 2)
    found = opecnet.decode(model, outputs, inputs)
    first = opecnet.decode(model, outputs._replace(couples=None), flat(inputs))
    same = np.isclose(found.joints, first.joints.reshape(found.joints.shape))
    np.testing.assert_array_equal(same.all(axis=(2, 3))[:, :3], ~paired[:, :3])
    np.testing.assert_array_equal(found.score[:, 3], -np.inf)
    assert np.all(np.isfinite(found.joints))


def flat(inputs):
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), inputs)


def test_the_order_of_people_does_not_matter():
    model, variables, inputs = couple([*NEAR, ALONE])
    found = opecnet.decode(model, run(model, variables, inputs), inputs)
    turned = jax.tree.map(lambda x: x[:, ::-1], inputs)
    back = opecnet.decode(model, run(model, variables, turned), turned)
    np.testing.assert_allclose(back.joints[:, ::-1], found.joints, rtol=1e-4, atol=1e-3)


def test_the_partner_is_heard():
    model, variables, inputs = couple(NEAR)
    found = run(model, variables, inputs).couples.corrected.poses[0]
    moved = inputs.start_pose.at[:, 1].add(jnp.asarray([4.0, -3.0, 0.0]))
    other = run(model, variables, inputs._replace(start_pose=moved))
    moved = other.couples.corrected.poses[0]
    assert not np.allclose(found[::2, :12], moved[::2, :12], atol=1e-6)


def test_edges_between_the_two_are_a_switch():
    for across, logits in ((True, 96), (False, 72)):
        _, variables, _ = couple(NEAR, across=across)
        input_layer = variables["params"]["couple"]["input"]
        assert input_layer["conv"]["logits"].shape == (logits,)


def test_couples_learn_from_those_who_are_paired_alone():
    model, variables, inputs = couple([*NEAR, ALONE, NOBODY])
    outputs = run(model, variables, inputs, train=True)
    truth = np.asarray(inputs.start_pose)[..., :2]
    labels = labels_of(truth)
    terms = opecnet.loss_terms(model, outputs, labels)
    assert set(terms) == {"pose1", "pose2", "pose3"}
    for _, weights in terms.values():
        taught = np.all(np.asarray(weights) == 1, axis=(1, 2)).reshape(2, 4)
        np.testing.assert_array_equal(taught, [[True, True, False, False]] * 2)
