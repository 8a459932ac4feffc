"""Top-down HRNet (Sun, Xiao, Liu, Wang, CVPR 2019): heatmaps of one person a crop.

    python -m occjax.train --config configs/hrnet.py[:VARIANT] [--config.KEY=VALUE]

(none)      built-in crowd, 96 x 96 crops, small pyramid, for two CPU cores
smoke       two steps of a tiny model, in seconds: what tests run
coco        COCO 2017, HRNet-W32 at 256 x 192, as published: Adam 1e-3, drops by ten
            after epochs 170 and 200 of 210, 8 GPUs x 32 crops. The paper reports
            AP 74.4 on val2017 with detected boxes (`data.detections`)
coco_384    the same at 384 x 288 with sigma 3; the paper's AP is 75.8
mpii        MPII at 256 x 256, as published; the paper's PCKh@0.5 is 90.3
lsp         LSP, trained on its first half, with MPII's settings

The named datasets are tested on annotated boxes unless `data.detections` names a file
of boxes. Published weights start from ImageNet:
`--config.init_from=hrnet_w32-36af842e.pth:^trunk/`.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment of a variant.

    Raises:
        ValueError: there is no such variant.
    """
    variants = {"": laptop, "smoke": smoke, "coco": coco, "coco_384": coco_384}
    variants |= {"mpii": mpii, "lsp": lsp}
    return common.choose(variants, variant)


def laptop() -> ConfigDict:
    """People of the built-in crowd and a model for two CPU cores."""
    return ConfigDict(
        dict(
            method="top_down",
            seed=0,
            steps=4500,
            batch_size=32,
            eval_every=1500,
            checkpoint_every=500,
            log_every=20,
            dtype="float32",
            init_from="",
            trainable="",
            occlusion=(),
            data=dict(
                dataset="crowd",
                dir="datasets",
                split="train",
                eval_split="test",
                view="person",
                size=(96, 96),
                padding=1.25,
                max_persons=1,
                eval_images=300,
                threads=1,
                cache=True,
                crowd=common.CROWD,
                augment=dict(common.CROP, rotate=20.0, half_body=0.0),
            ),
            model=dict(
                backbone=dict(name="pyramid"),
                sigma=1.0,
                decoder="quarter",
            ),
            loss=dict(heatmap=0.5),
            optim=dict(
                name="adam",
                lr=3e-3,
                clip=0.0,
                ema=0.0,
                schedule=dict(name="cosine", warmup=100),
            ),
        )
    )


def smoke() -> ConfigDict:
    """Two steps of a tiny model, in seconds."""
    config = laptop()
    config.update(dict(steps=2, batch_size=8, eval_every=2, checkpoint_every=2))
    config.log_every = 1
    config.data.update(dict(size=(64, 64), eval_images=2))
    config.model.backbone.update(dict(widths=(8, 16), depths=(1, 1), features=16))
    config.optim.schedule.warmup = 0
    return config


def coco() -> ConfigDict:
    """COCO 2017 as published: HRNet-W32 at 256 x 192."""
    config = laptop()
    config.batch_size = 8 * 32
    epoch = common.COCO_PEOPLE // config.batch_size
    config.update(dict(steps=210 * epoch, eval_every=10 * epoch))
    config.update(dict(checkpoint_every=epoch, log_every=100))
    config.data.update(
        dict(dataset="coco", eval_split="val", size=(256, 192), eval_images=0)
    )
    config.data.update(dict(threads=16, cache=False, augment=dict(common.CROP)))
    config.model.backbone = ConfigDict(dict(name="hrnet", width=32, concat=False))
    config.model.sigma = 2.0
    schedule = dict(name="steps", at=(170 * epoch, 200 * epoch))
    config.optim = ConfigDict(
        dict(name="adam", lr=1e-3, clip=0.0, ema=0.0, schedule=schedule)
    )
    return config


def coco_384() -> ConfigDict:
    """COCO 2017 as published: HRNet-W32 at 384 x 288."""
    config = coco()
    config.data.size = (384, 288)
    config.model.sigma = 3.0
    return config


def mpii() -> ConfigDict:
    """MPII as published: HRNet-W32 at 256 x 256."""
    config = coco()
    config.batch_size = 4 * 32
    epoch = common.MPII_PEOPLE // config.batch_size
    config.update(dict(steps=210 * epoch, eval_every=10 * epoch))
    config.checkpoint_every = epoch
    config.data.update(dict(dataset="mpii", size=(256, 256), clip_boxes=False))
    config.data.augment = ConfigDict(dict(common.UPRIGHT_CROP))
    config.optim.schedule.at = (170 * epoch, 200 * epoch)
    return config


def lsp() -> ConfigDict:
    """LSP with MPII's settings."""
    config = mpii()
    epoch = common.LSP_PEOPLE // config.batch_size
    config.update(dict(steps=210 * epoch, eval_every=10 * epoch))
    config.checkpoint_every = 10 * epoch
    config.data.update(dict(dataset="lsp", eval_split="test"))
    config.optim.schedule.at = (170 * epoch, 200 * epoch)
    return config
