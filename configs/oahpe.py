"""OA-HPE (Zhao et al., Information Sciences 2020): poses, and which joints have labels.

    python -m occjax.train --config configs/oahpe.py[:VARIANT] [--config.KEY=VALUE]

(none)      built-in crowd without labels of hidden joints, 96 x 96 crops, a small CPN,
            for two CPU cores
smoke       two steps of a tiny model, in seconds: what tests run
coco        COCO 2017, CPN with ResNet-101 at 384 x 288: Adam 1e-3, drops by ten after
            epochs 120 and 150 of 160, batches of 32. The paper reports AP 74.6 on
            val2017 with annotated boxes, 72.6 with detected ones (`data.detections`)

SimpleBaseline instead of CPN, as the paper allows:

    --config.model.backbone.name=resnet --config.model.deconv='(256,256,256)'
    --config.model.coarse_sigmas='()'   with a `backbone` of its own fields

Its scores come from KS-net: configs/ksnet.py.
"""

from ml_collections import ConfigDict

from configs import common, hrnet

# Peaks of 255 would make the paper's plain sum; ours are 1.
LOSS = dict(coarse=0.5, heatmap=1.0, labelled=1 / 255**2)


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment of a variant.

    Raises:
        ValueError: there is no such variant.
    """
    return common.choose({"": laptop, "smoke": smoke, "coco": coco}, variant)


def laptop() -> ConfigDict:
    """People of the built-in crowd and a model for two CPU cores."""
    config = _with_labels(hrnet.laptop())
    config.data.crowd.label_hidden = False
    config.model.backbone = ConfigDict(
        dict(name="cpn", depth=18, width=32, features=64)
    )
    config.model.update(dict(decoder="quarter", sigma=1.0))
    config.model.coarse_sigmas = (2.2, 1.7, 1.3, 1.0)
    config.model.labels = ConfigDict(dict(channels=64, hidden=256))
    return config


def smoke() -> ConfigDict:
    """Two steps of a tiny model, in seconds."""
    config = _with_labels(hrnet.smoke())
    config.model.backbone = ConfigDict(dict(name="cpn", depth=18, width=8, features=8))
    config.model.update(dict(decoder="quarter", sigma=1.0))
    config.model.labels = ConfigDict(dict(channels=8, hidden=16))
    return config


def coco() -> ConfigDict:
    """COCO 2017 at 384 x 288."""
    config = _with_labels(hrnet.coco_384())
    config.batch_size = 32
    epoch = common.COCO_PEOPLE // 32
    config.update(dict(steps=160 * epoch, eval_every=10 * epoch))
    config.checkpoint_every = epoch
    del config.data.padding  # was one number
    config.data.padding = (1.2, 1.3)
    config.data.augment.update(dict(rotate=45.0, rotate_share=1.0, half_body=0.0))
    config.data.augment.spread = "uniform"
    config.model.backbone = ConfigDict(dict(name="cpn", depth=101))
    config.model.update(dict(decoder="second", sigma=1.7))
    config.optim.schedule.at = (120 * epoch, 150 * epoch)
    return config


def _with_labels(config: ConfigDict) -> ConfigDict:
    """A top-down experiment with CPN's losses and the visibility subnet."""
    config.method = "oahpe"
    config.loss = ConfigDict(LOSS)
    config.model.labels = ConfigDict(dict(channels=256, hidden=1024))
    config.model.coarse_sigmas = (3.8, 2.9, 2.3, 1.7)
    return config
