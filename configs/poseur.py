"""Poseur (Mao et al., ECCV 2022): a pose regressed by a transformer, without heatmaps.

    python -m occjax.train --config configs/poseur.py[:VARIANT] [--config.KEY=VALUE]

(none)      built-in crowd, 96 x 96 crops, small pyramid, for two CPU cores
smoke       two steps of a tiny model, in seconds: what tests run
dag         the first with DAG's occlusion, attention and graph (configs/dag.py)
coco        COCO 2017, ResNet-50 at 256 x 192, six layers: AdamW 1e-3, weight decay
            1e-4, drops by ten after epochs 255 and 310 of 325, 8 GPUs x 32 crops. The
            published code has a linear warm-up too, of 500 steps, an encoder and noisy
            copies of poses; its AP is 75.5 on val2017 with detected boxes, and
            DAG's paper reports 74.2, and 74.5 together with DAG
coco_dag    coco with DAG's parts

Published weights start from ImageNet:
`--config.init_from=resnet50-19c8e357.pth:^trunk/`.
"""

from ml_collections import ConfigDict

from configs import common, dag, hrnet

LOSS = dict(coarse=1.0, regress=1.0)


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment of a variant.

    Raises:
        ValueError: there is no such variant.
    """
    variants = {"": laptop, "smoke": smoke, "dag": with_dag, "coco": coco}
    return common.choose(variants | {"coco_dag": coco_dag}, variant)


def laptop() -> ConfigDict:
    """People of the built-in crowd and a model for two CPU cores."""
    return _regressing(hrnet.laptop())


def smoke() -> ConfigDict:
    """Two steps of a tiny model, in seconds."""
    config = _regressing(hrnet.smoke())
    config.model.backbone.update(dict(widths=(8, 16), depths=(1, 1), features=16))
    config.model.update(dict(features=16, layers=2, heads=2, points=2))
    return config


def with_dag() -> ConfigDict:
    """The first with DAG's parts."""
    return _with_parts(laptop(), dag.laptop(), sigma=1.0)


def coco() -> ConfigDict:
    """COCO 2017 with ResNet-50 at 256 x 192."""
    config = _regressing(hrnet.coco())
    epoch = common.COCO_PEOPLE // config.batch_size
    config.steps = 325 * epoch
    config.data.augment.update(dict(scale=(0.5, 1.5), rotate=80.0))
    config.model.backbone = ConfigDict(dict(name="resnet", depth=50))
    config.model.update(dict(features=256, layers=6, heads=8))
    schedule = dict(name="steps", at=(255 * epoch, 310 * epoch))
    optim = dict(name="adamw", lr=1e-3, weight_decay=1e-4, clip=0.0, ema=0.0)
    config.optim = ConfigDict(dict(optim, schedule=schedule))
    return config


def coco_dag() -> ConfigDict:
    """COCO with DAG's parts."""
    return _with_parts(coco(), dag.coco(), sigma=2.0)


def _regressing(config: ConfigDict) -> ConfigDict:
    """A top-down experiment with Poseur's model and losses."""
    config.method = "poseur"
    config.loss = ConfigDict(LOSS)
    config.model = ConfigDict(
        dict(
            backbone=dict(name="pyramid", all_levels=True),
            features=96,
            layers=3,
            heads=4,
            points=4,
        )
    )
    config.optim.update(dict(lr=1e-3))
    return config


def _with_parts(config: ConfigDict, parts: ConfigDict, sigma: float) -> ConfigDict:
    """An experiment with the occlusion, attention and graph of one of DAG.

    Its sigma is that of everybody's Gaussians on maps of stride 4.
    """
    config.occlusion = parts.occlusion
    config.data.max_persons = parts.data.max_persons
    config.model.update(dict(attend=parts.model.attend, refine=parts.model.refine))
    config.model.sigma = sigma
    config.loss.update(dict(everybody=parts.loss.everybody, pose=parts.loss.pose))
    return config
