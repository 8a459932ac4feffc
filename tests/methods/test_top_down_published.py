"""HRNet and SimpleBaseline with the reference weights against published figures."""

import functools

import equivalence
import golden_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from occjax.methods import top_down
from occjax.nn.crop_model import Reading
from occjax.ops import losses
from occjax.ops.image import IMAGENET_MEAN, IMAGENET_STD
from occjax.runtime.weights import convert
from occjax.skeletons import COCO
from occjax.types import Inputs

FOLDER = "pose_hrnet_w32"
check = functools.partial(equivalence.check, "HRNet-W32, top-down")
HRNET = {"backbone": {"name": "hrnet", "width": 32, "concat": False}}
RESNET = {
    "backbone": {"name": "resnet", "depth": 50},
    "deconv": (256, 256, 256),
    "flip_test": False,
}


def image_from_normalised(nchw):
    nhwc = np.moveaxis(np.asarray(nchw, np.float64), 1, -1)
    return jnp.asarray((nhwc * IMAGENET_STD + IMAGENET_MEAN) * 255, np.float32)


def inputs_of(image, to_source=((1, 0, 0), (0, 1, 0))):
    batch, *size, _ = image.shape
    return Inputs(
        image,
        jnp.broadcast_to(jnp.asarray(size), (batch, 2)),
        jnp.broadcast_to(jnp.asarray(to_source, jnp.float32), (batch, 2, 3)),
    )


@functools.cache
def built(golden, folder=FOLDER, part=None):
    model = top_down.Model(skeleton=COCO, **(RESNET if part else HRNET))
    image = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), inputs_of(image), train=False)
    )
    _, weights = golden_weights.load(golden / folder, *([part] if part else []))
    rows = top_down.PUBLISHED[model.backbone["name"]]
    return model, convert(weights, rows, shapes)


def maps_of(golden, image, **fields):
    model, variables = built(golden)
    model = model.clone(**fields)
    run = jax.jit(lambda v, x: model.apply(v, inputs_of(x), train=False).maps[-1])
    return np.moveaxis(np.asarray(run(variables, image)), -1, 1)


def test_simple_baseline_gives_the_published_heatmaps(golden):
    z = np.load(golden / "simple_baseline" / "pose_resnet50.npz")
    model, variables = built(golden, "simple_baseline", "pose_resnet50")
    image = image_from_normalised(z["input"])
    run = jax.jit(lambda v, x: model.apply(v, inputs_of(x), train=False).maps[-1])
    got, link = np.moveaxis(run(variables, image), -1, 1), "forward: method, heatmaps"
    equivalence.check("SimpleBaseline ResNet-50", link, got, z["heatmaps"], 2e-5)


@pytest.mark.parametrize(
    "size", ["small", pytest.param("full", marks=pytest.mark.slow)]
)
def test_heatmaps_are_the_published_ones_with_and_without_the_mirrored_crop(
    golden, size
):
    z = np.load(golden / FOLDER / "eval_heatmaps.npz")
    image = image_from_normalised(z[f"{size}_image"])
    link = f"forward: method, {size}"
    plain, both = maps_of(golden, image, flip_test=False), maps_of(golden, image)
    check(f"{link} heatmaps", plain, z[f"{size}_heatmap"], 2e-5)
    check(f"{link} flip test", both, z[f"{size}_flip_shift"], 2e-5)


def test_poses_of_the_published_heatmaps_are_the_published_ones(golden):
    z = np.load(golden / FOLDER / "eval_heatmaps.npz")
    model, _ = built(golden)
    maps = jnp.asarray(np.moveaxis(z["full_flip_shift"], 1, -1))
    (x, y), scale = z["centre"][0], z["scale"][0, 0] * 200 / 192
    matrix = ((scale, 0, x - 96 * scale), (0, scale, y - 128 * scale))
    inputs = inputs_of(jnp.zeros((1, 256, 192, 3)), matrix)
    inputs = inputs._replace(box_score=jnp.asarray([0.5], jnp.float32))
    poses = top_down.decode(model, Reading((maps,)), inputs)
    link = "decode: method, "
    check(link + "joints", poses.joints[:, 0], z["full_preds"], 1e-5, "each")
    score = z["full_maxvals"][..., 0]
    check(link + "scores of joints", poses.joint_score[:, 0], score, 1e-6, "each")
    confident = score[score > model.confident].mean()
    np.testing.assert_allclose(poses.score[0, 0], confident / 2, rtol=1e-6)


def half_the_loss(pred, target, weight):
    weight = jnp.broadcast_to(weight[:, None, None, :, 0], target.shape)
    weight = jnp.square(weight)  # the code weighs the maps; ours are 0 or 1

    def loss(pred):
        values, weights = losses.weighted_mse(pred, target, weight)
        return 0.5 * jnp.sum(values * weights) / jnp.sum(weights)

    return jax.value_and_grad(loss)(pred)


DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@DTYPES
def test_half_the_reduced_loss_is_the_published_loss(golden, dtype):
    z = np.load(golden / FOLDER / "losses.npz")
    keys = ("pred", "target")
    pred, target = (np.moveaxis(z[k], 1, -1).astype(dtype) for k in keys)
    with jax.enable_x64(dtype == np.float64):
        value, grad = half_the_loss(pred, target, z["target_weight"].astype(dtype))
    check("loss: reduced", value, z["mse_loss"], 2e-5, "each")
    check("loss: its gradient", np.moveaxis(grad, -1, 1), z["mse_grad"], 2e-5)


@DTYPES
def test_half_the_reduced_loss_is_that_of_simple_baseline(golden, dtype):
    z = np.load(golden / "simple_baseline" / "decode.npz")
    of_model = functools.partial(equivalence.check, "SimpleBaseline (every depth)")
    keys = ("heatmaps", "heatmaps_b")
    pred, target = (np.moveaxis(z[k], 1, -1).astype(dtype) for k in keys)
    weight = z["target_weight"].astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        value, grad = half_the_loss(pred, target, weight)
        plain, _ = half_the_loss(pred, target, np.ones_like(weight))
    of_model("loss", value, z["mse_weighted"], 1e-6, "each")
    of_model("loss: without weights", plain, z["mse_unweighted"], 1e-6, "each")
    norm = z["grad_norm_mse_weighted"]
    of_model("gradient norm: at the heatmaps", np.linalg.norm(grad), norm, 1e-6, "each")


def test_every_published_weight_has_its_place(golden):
    model, variables = built(golden)
    manifest, weights = golden_weights.load(golden / FOLDER)
    assert len(jax.tree.leaves(variables)) == len(weights)
    assert sum(x.size for x in jax.tree.leaves(variables)) == sum(
        int(np.prod(shape)) for name, shape, _ in manifest["entries"] if shape
    )
