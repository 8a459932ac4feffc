"""KS-net and OAKS scores (Zhao et al., Information Sciences 2020) for a trained run.

    python -m occjax.train --config configs/ksnet.py[:VARIANT] --config.base=RUN
        [--config.labels=RUN] [--config.KEY=VALUE]

(none)      after `configs/oahpe.py`, whose run is expected in runs/oahpe
smoke       two steps of tiny models without training, in seconds: what tests run
coco        as published, after configs/oahpe.py:coco: ResNet-18, Adam 1e-3, drops by
            ten after epochs 30 and 50 of 60

`base` is a run of any method that reads heatmaps of one person a crop: top_down,
oasnet, opecnet without couples, oahpe. It stays as it is; its heatmaps are made anew in
each step. Where it is not OA-HPE, `labels` names a run of OA-HPE, which tells which
joints would be labelled.
The new run holds all of these networks:

    python -m occjax.evaluate --workdir runs/ksnet --score heatmap,oaks,oracle

The paper's other networks (Table 5):

    --config.model.net.backbone.name=two_convs    with fields of their own, see
    --config.model.net.backbone.name=vgg          occjax/nn: depth=19; resnet: depth=50
"""

from ml_collections import ConfigDict

from configs import common, hrnet, oahpe


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment of a variant.

    Raises:
        ValueError: there is no such variant.
    """
    return common.choose({"": laptop, "smoke": smoke, "coco": coco}, variant)


def laptop() -> ConfigDict:
    """A small ResNet on the heatmaps of a run, for two CPU cores."""
    config = hrnet.laptop()
    config.update(dict(method="ksnet", steps=2000, score="oaks"))
    config.update(dict(base="runs/oahpe", labels="", trainable="^quality/"))
    config.data = ConfigDict(dict(augment=_unmoved()))  # all else is the base's
    net = dict(backbone=dict(name="resnet", depth=18, width=32), hidden=256)
    config.model = ConfigDict(dict(net=net, flip_test=True))
    config.loss = ConfigDict(dict(similarity=1.0))
    config.optim.lr = 1e-3
    return config


def smoke() -> ConfigDict:
    """Two steps of tiny models whose base was never trained."""
    config, base = laptop(), oahpe.smoke()
    config.update(dict(steps=2, batch_size=8, eval_every=2, checkpoint_every=2))
    config.update(dict(log_every=1, base=""))
    config.data = base.data
    net = dict(backbone=dict(name="resnet", depth=18, width=4), hidden=16)
    config.model.update(dict(net=net, base=dict(method="oahpe", **base.model)))
    config.optim.schedule.warmup = 0
    return config


def coco() -> ConfigDict:
    """As published, on all people of COCO 2017."""
    config = laptop()
    config.batch_size = 256
    epoch = common.COCO_PEOPLE // 256
    config.update(dict(steps=60 * epoch, eval_every=10 * epoch, log_every=100))
    config.update(dict(base="runs/oahpe-coco", checkpoint_every=epoch))
    net = dict(backbone=dict(name="resnet", depth=18), hidden=1024)
    config.model.net = ConfigDict(net)
    schedule = dict(name="steps", at=(30 * epoch, 50 * epoch))
    config.optim.schedule = ConfigDict(schedule)
    return config


def _unmoved() -> dict:
    """Crops as a test has them, but half of them mirrored."""
    return dict(common.CROP, scale=(1.0, 1.0), rotate=0.0, half_body=0.0)
