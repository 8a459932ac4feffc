"""OPEC-Net (Qiu et al., ECCV 2020): a heatmap pose, corrected by an image-guided GCN.

    python -m occjax.train --config configs/opecnet.py[:VARIANT] [--config.KEY=VALUE]

(none)      built-in crowd in OCPose's style, two entangled people of twelve joints;
            base and head learn together, from scratch, on two CPU cores
base        the base network of the next alone, a feature pyramid
frozen      the head on a trained base:
            `--config.init_from="runs/opecnet-base:^(trunk|head)/"`
smoke       two steps of a tiny model, in seconds: what tests run
ocpose      OCPose as published: AlphaPose's FastPose as frozen base at 320 x 256, Adam
            with the released code's rates from 1e-3 down to 1e-5, gradients clipped
            at 1, 14 images a step for 25 epochs
crowdpose   the same on CrowdPose
ochuman     the same on OCHuman, whose val part trains
coco        COCO with SimpleBaseline, ResNet-152 at 384 x 288

The base of the published variants comes from AlphaPose's weights,
`--config.init_from=duc_se.pth:^trunk/`, or from a run, on CrowdPose from a run only, as
AlphaPose knows no neck and top of the head. Poses to correct are the base's
own; `--config.data.proposals=FILE.json` takes those of a file instead. CoupleGraph,
the second stage, is configs/couplegraph.py.
"""

from ml_collections import ConfigDict

from configs import common, hrnet

LOSSES = dict(pose1=0.3, pose2=0.5, pose3=1.0, start=1.0)


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment of a variant.

    Raises:
        ValueError: there is no such variant.
    """
    variants = {"": laptop, "base": base, "frozen": frozen, "smoke": smoke}
    variants |= {"ocpose": ocpose, "crowdpose": crowdpose, "ochuman": ochuman}
    variants |= {"coco": coco}
    return common.choose(variants, variant)


def base() -> ConfigDict:
    """A feature pyramid on two entangled people, for two CPU cores."""
    config = hrnet.laptop()
    config.data.crowd = ConfigDict(dict(common.COUPLES))
    config.model.backbone = ConfigDict(dict(name="pyramid", all_levels=True))
    return config


def frozen() -> ConfigDict:
    """OPEC-Net on a trained base."""
    config = base()
    config.method = "opecnet"
    config.trainable = "^opec/"
    config.model = ConfigDict(
        dict(
            backbone=config.model.backbone.to_dict(),
            frozen_base=True,
            keep_above=0.2,
            sigma=1.0,
        )
    )
    config.model.head = ConfigDict(dict(widths=(64, 48, 32), features=64))
    config.loss = ConfigDict(dict(LOSSES))
    config.data.update(dict(proposals="", eval_proposals=""))
    config.steps = 2000
    config.optim = ConfigDict(
        dict(
            name="adam",
            lr=2e-3,
            clip=1.0,
            ema=0.0,
            schedule=dict(name="cosine", warmup=100, end=0.01),
        )
    )
    return config


def laptop() -> ConfigDict:
    """Base and head together, from scratch."""
    config = frozen()
    config.update(dict(trainable="", steps=4500))
    config.model.update(dict(frozen_base=False, least_oks=0.0))
    config.loss.heatmap = 50.0
    return config


def smoke() -> ConfigDict:
    """Two steps of a tiny model, in seconds."""
    config = laptop()
    config.update(dict(steps=2, batch_size=8, eval_every=2, checkpoint_every=2))
    config.log_every = 1
    config.data.update(dict(size=(64, 64), eval_images=2))
    config.model.backbone.update(dict(widths=(8, 8, 8), depths=(1, 1, 1), features=8))
    config.model.head.update(dict(widths=(8, 8, 8), features=8))
    config.optim.schedule.warmup = 0
    return config


def ocpose() -> ConfigDict:
    """OCPose as published."""
    config = frozen()
    config.log_every = 100
    del config.data["crowd"]
    config.data.update(dict(dataset="ocpose", eval_split="test", size=(320, 256)))
    config.data.update(dict(padding=1.3, eval_images=0, threads=16, cache=False))
    config.data.augment = ConfigDict(
        dict(scale=(1.0, 1.0), rotate=0.0, flip=0.5, half_body=0.0)
    )
    config.model.update(dict(base_joints=33, channels=tuple(range(5, 17)), sigma=1.75))
    config.model.update(dict(mean=(0.406, 0.457, 0.480), std=(1.0, 1.0, 1.0)))
    config.model.backbone = ConfigDict(dict(name="fastpose", depth=101))
    config.model.head = ConfigDict(dict(widths=(256, 128, 128), features=128))
    # the released code's: 1e-5 is where the rate starts and its least
    config.optim.lr = 1e-3
    config.optim.schedule.update(dict(name="floored_cosine", end=0.01))
    return schedule(config, batch_size=2 * 14, epoch=common.OCPOSE_IMAGES // 14)


def schedule(config: ConfigDict, batch_size: int, epoch: int) -> ConfigDict:
    """25 epochs of so many steps, each with so many people."""
    config.batch_size = batch_size
    config.update(dict(steps=25 * epoch, eval_every=epoch, checkpoint_every=epoch))
    config.optim.schedule.warmup = epoch
    return config


def crowdpose() -> ConfigDict:
    """CrowdPose as published, but for the base, whose published files lack its head."""
    config = ocpose()
    config.data.update(dict(dataset="crowdpose", eval_split="test"))
    config.model.update(dict(base_joints=0, channels=()))
    # four people an image are labelled on average
    return schedule(config, batch_size=4 * 14, epoch=common.CROWDPOSE_IMAGES // 14)


def ochuman() -> ConfigDict:
    """OCHuman; its val part trains."""
    config = ocpose()
    config.data.update(dict(dataset="ochuman", eval_split="test"))
    config.model.channels = tuple(range(17))
    return schedule(config, batch_size=2 * 14, epoch=common.OCHUMAN_IMAGES // 14)


def coco() -> ConfigDict:
    """COCO as published: SimpleBaseline with ResNet-152 at 384 x 288."""
    config = ocpose()
    config.data.update(dict(dataset="coco", eval_split="val", size=(384, 288)))
    config.data.padding = 1.25
    config.model = ConfigDict(
        dict(
            backbone=dict(name="resnet", depth=152),
            deconv=(256, 256, 256),
            frozen_base=True,
            keep_above=0.2,
            sigma=3.0,
        )
    )
    return schedule(config, batch_size=128, epoch=common.COCO_PEOPLE // 128)
