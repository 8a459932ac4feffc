"""Every shipped config builds its model, and its smoke variant trains."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import common, dekr, ksnet, oahpe, pinet, spm, study_parts
from occjax import skeletons
from occjax.runtime import config as configs
from occjax.runtime import step
from occjax.types import Inputs, Labels

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAPER = ("ochuman", "crowdpose", "coco")
SHIPPED = [
    *(f"configs/{name}.py" for name in ("pinet", "spm")),
    *(f"configs/{name}.py:{variant}" for name in ("pinet", "spm") for variant in PAPER),
    *(f"configs/study_parts.py:{system}" for system in study_parts.SYSTEMS),
    "configs/dekr.py",
    *(f"configs/dekr.py:{variant}" for variant in ("crowdpose", "coco")),
    *(f"configs/dekr.py:{variant}_rescorer" for variant in ("crowdpose", "coco")),
    "configs/oahpe.py",
    "configs/oahpe.py:coco",
    *(f"configs/dag.py{variant}" for variant in ("", ":coco", ":released")),
    "configs/occjax.py",
    *(f"configs/occjax.py:{variant}" for variant in ("full", "coco", "coco_full")),
    *(f"configs/poseur.py{variant}" for variant in ("", ":dag", ":coco", ":coco_dag")),
    "configs/oasnet.py:dag",
    "configs/pinet.py:dag",
]
SMOKE = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.py")
    if "smoke" in path.read_text(encoding="utf-8")
)


def shapes(size, batch=1, persons=2, joints=17, twin=False):
    """Inputs and labels without values."""

    def array(*shape, dtype=np.float32):
        return jax.ShapeDtypeStruct((batch, *shape), dtype)

    inputs = Inputs(
        image=array(size, size, 3, dtype=np.uint8),
        valid=array(2, dtype=np.int32),
        to_source=array(2, 3),
        box=array(4),
        box_score=array(),
    )
    labels = Labels(
        joints=array(persons, joints, 2),
        visibility=array(persons, joints, dtype=np.uint8),
        area=array(persons),
        ignore=array(size // 4, size // 4, dtype=bool),
        head_size=array(persons),
    )
    if twin:
        seen = array(persons, joints, dtype=np.uint8)
        return inputs._replace(clean=inputs.image), labels._replace(
            clean_visibility=seen
        )
    return inputs, labels


@pytest.mark.parametrize("spec", SHIPPED)
def test_loss_weights_name_the_terms_of_the_model_they_train(spec):
    config = configs.load(spec)
    dataset = config.data.dataset
    skeleton = skeletons.CROWDPOSE if dataset == "crowdpose" else skeletons.COCO
    method, model = step.build_model(config, skeleton)
    # a full-size model is traced at the least size its strides allow
    twin = any(one["name"] == "paste_patches" for one in config.occlusion)
    inputs, labels = shapes(64, joints=skeleton.num_joints, twin=twin)

    def terms(inputs, labels):
        asked = {}
        if hasattr(method, "proposals"):
            asked["proposals"] = method.proposals(model, labels)
        variables = model.init(jax.random.key(0), inputs, train=True, **asked)
        outputs, _ = model.apply(
            variables, inputs, train=True, mutable=["batch_stats"], **asked
        )
        return method.loss_terms(model, outputs, labels)

    assert set(jax.eval_shape(terms, inputs, labels)) == set(config.loss)


@pytest.mark.parametrize("name", SMOKE)
def test_smoke_variant_trains_and_is_scored(name, tmp_path):
    command = [sys.executable, "-m", "occjax.train", f"--workdir={tmp_path}"]
    command += [f"--config=configs/{name}.py:smoke"]
    # a user's environment: one device, jax's own promotion rules
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        env=environment | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "metrics.json").exists()
    assert (tmp_path / "samples" / "test.png").exists()
    assert "2/2" in done.stdout


@pytest.mark.parametrize(
    ("variant", "batch", "steps", "drops", "layers", "small_area"),
    [
        ("ochuman", 20, 17_500, (11_250, 15_000), 3, 1024.0),
        ("crowdpose", 40, 90_000, (60_000, 78_000), 3, 0.0),
        ("coco", 40, 196_000, (126_000, 168_000), 2, 1024.0),
    ],
)
def test_paper_variants_carry_the_published_settings(
    variant, batch, steps, drops, layers, small_area
):
    config = pinet.get_config(variant)
    assert (config.batch_size, config.steps) == (batch, steps)
    assert config.optim.schedule.at == drops
    assert config.optim.lr == 1e-3
    assert config.data.size == 512
    assert config.data.augment.scale == (0.75, 1.5)
    assert config.data.augment.rotate == 30.0
    assert config.model.max_proposals == 120
    assert config.model.refine_layers == layers
    assert config.model.small_area == small_area
    assert dict(config.loss) == dict(heatmap=1.0, offset=0.03, refine=0.03)


@pytest.mark.parametrize(
    ("variant", "sigma", "small_area", "shared", "decrease"),
    [("crowdpose", 2.0, 0.0, 7, 0.8), ("coco", 4.0, 1024.0, 8, 0.9)],
)
def test_dekr_shares_schedule_and_data_with_pinet(
    variant, sigma, small_area, shared, decrease
):
    config, other = dekr.get_config(variant), pinet.get_config(variant)
    for key in ("steps", "batch_size", "data", "optim"):
        assert config[key] == other[key]
    model = config.model
    assert (model.centre_sigma, model.small_area) == (sigma, small_area)
    assert (model.shared, model.scale_decrease) == (shared, decrease)
    assert dict(config.loss) == dict(heatmap=1.0, offset=0.03)
    second = dekr.get_config(f"{variant}_rescorer")
    assert second.steps == 20 * config.checkpoint_every
    assert second.model.rescore
    assert second.trainable == "^rescorer/"


def test_oahpe_and_ks_net_carry_the_published_settings():
    config = oahpe.get_config("coco")
    epoch = common.COCO_PEOPLE // 32
    assert (config.batch_size, config.steps) == (32, 160 * epoch)
    assert config.optim.schedule.at == (120 * epoch, 150 * epoch)
    assert config.data.size == (384, 288)
    assert config.data.padding == (1.2, 1.3)
    augment = config.data.augment
    assert (augment.rotate, augment.scale, augment.flip) == (45.0, (0.65, 1.35), 0.5)
    assert (augment.rotate_share, augment.spread) == (1.0, "uniform")
    assert config.model.backbone.to_dict() == {"name": "cpn", "depth": 101}
    assert dict(config.loss) == dict(coarse=0.5, heatmap=1.0, labelled=1 / 65025)
    second = ksnet.get_config("coco")
    epoch = common.COCO_PEOPLE // 256
    assert (second.batch_size, second.steps) == (256, 60 * epoch)
    assert second.optim.schedule.at == (30 * epoch, 50 * epoch)
    assert config.optim.lr == second.optim.lr == 1e-3
    assert second.model.net.backbone.to_dict() == {"name": "resnet", "depth": 18}


def test_spm_differs_from_pinet_only_in_parts_refinement_and_fusion():
    ours, other = (
        dict(configs.leaves(module.get_config("ochuman").to_dict()))
        for module in (spm, pinet)
    )
    changed = {key for key in ours | other if ours.get(key) != other.get(key)}
    assert changed == {"model.parts", "model.refine", "model.fuse", "loss.refine"}


@pytest.mark.parametrize("module", [dekr, ksnet, oahpe, pinet, spm, study_parts])
def test_an_unknown_variant_is_refused_with_the_known_ones(module):
    with pytest.raises(ValueError, match="there are"):
        module.get_config("ochumna")
