"""SimpleBaseline (Xiao, Wu, Wei, ECCV 2018): a ResNet and three deconvolutions.

    python -m occjax.train --config configs/simple_baseline.py[:VARIANT]

(none)      built-in crowd, 96 x 96 crops, ResNet-18 of half width, for two CPU cores
smoke       two steps of a tiny model, in seconds: what tests run
coco        COCO 2017, ResNet-50 at 256 x 192, as published: Adam 1e-3, drops by ten
            after epochs 90 and 120 of 140, 4 GPUs x 32 crops. The paper reports
            AP 70.4 on val2017 with detected boxes
mpii        MPII at 256 x 256, as published

The named dataset is tested on annotated boxes unless `data.detections` names a file of
boxes. Published weights start from ImageNet:
`--config.init_from=resnet50-19c8e357.pth:^trunk/`.
"""

from ml_collections import ConfigDict

from configs import common, hrnet


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment of a variant.

    Raises:
        ValueError: there is no such variant.
    """
    variants = {"": laptop, "smoke": smoke, "coco": coco, "mpii": mpii}
    return common.choose(variants, variant)


def laptop() -> ConfigDict:
    """People of the built-in crowd and a model for two CPU cores."""
    config = hrnet.laptop()
    config.model.backbone = ConfigDict(dict(name="resnet", depth=18, width=32))
    config.model.deconv = (128, 128, 128)
    return config


def smoke() -> ConfigDict:
    """Two steps of a tiny model, in seconds."""
    config = hrnet.smoke()
    config.model.backbone = ConfigDict(dict(name="resnet", depth=18, width=4))
    config.model.deconv = (8, 8, 8)
    return config


def coco() -> ConfigDict:
    """COCO 2017 as published: ResNet-50 at 256 x 192."""
    config = hrnet.coco()
    config.batch_size = 4 * 32
    epoch = common.COCO_PEOPLE // config.batch_size
    config.update(dict(steps=140 * epoch, eval_every=10 * epoch))
    config.checkpoint_every = epoch
    config.optim.schedule.at = (90 * epoch, 120 * epoch)
    config.data.augment.update(dict(rotate=80.0, half_body=0.0, scale=(0.7, 1.3)))
    config.model.backbone = ConfigDict(dict(name="resnet", depth=50))
    config.model.deconv = (256, 256, 256)
    return config


def mpii() -> ConfigDict:
    """MPII as published: ResNet-50 at 256 x 256."""
    config = hrnet.mpii()
    epoch = common.MPII_PEOPLE // config.batch_size
    config.steps = 140 * epoch
    config.optim.schedule.at = (90 * epoch, 120 * epoch)
    config.model.backbone = ConfigDict(dict(name="resnet", depth=50))
    config.model.deconv = (256, 256, 256)
    return config
