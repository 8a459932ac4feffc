"""DEKR (Geng et al., CVPR 2021): centres regress joints by adaptive convolutions.

    python -m occjax.train --config configs/dekr.py[:VARIANT] [--config.KEY=VALUE]

| variant | data | hardware | time | the paper's AP |
|---|---|---|---|---|
| none | built-in crowd | 2 CPU cores | not measured here | - |
| smoke | built-in crowd | any | seconds | - |
| crowdpose | CrowdPose train + val | 1-4 GPUs | not measured here | 65.7 (test) |
| coco | COCO train2017 | 1-4 GPUs | not measured here | 68.0 (val) |
| crowdpose_rescorer, coco_rescorer | the same | 1 GPU | not measured here | |

The paper's variants carry its settings in full, HRNet-W32 at 512. They start from
HRNet's ImageNet weights: `--config.init_from=hrnet_w32-36af842e.pth:^trunk/`. What
configs/pinet.py says of the training flip holds here. The test of several scales
(`--scales`) goes with `--config.model.near=0.15` in the published code.

A second stage teaches the rescoring net on the poses of a trained model, which does not
change: `--config configs/dekr.py:coco_rescorer --config.init_from=runs/dekr-coco`. The
figures of the paper include it. Published weights come in by `occjax.convert`, with the
rescoring net, in its own file, as `--torch MODEL.pth,RESCORER.pth`.
"""

from ml_collections import ConfigDict

from configs import common, pinet


def get_config(variant: str = "") -> ConfigDict:
    """Settings of one variant.

    Raises:
        ValueError: there is no such variant.
    """
    variants = {
        "": laptop,
        "smoke": smoke,
        "crowdpose": crowdpose,
        "coco": coco,
        "crowdpose_rescorer": lambda: rescorer(crowdpose()),
        "coco_rescorer": lambda: rescorer(coco()),
    }
    return common.choose(variants, variant)


def laptop() -> ConfigDict:
    """The built-in crowd and a model for two CPU cores, which sample slowly."""
    config = pinet.laptop()
    config.method = "dekr"
    config.update(dict(steps=3000, batch_size=8, eval_every=1000))
    config.model = ConfigDict(
        dict(
            backbone=dict(name="pyramid"),
            joint_features=4,
            adaptive_blocks=1,
            sigma=1.0,
            centre_sigma=2.0,
            offset_radius=2,
            small_area=0.0,
        )
    )
    # The published 0.03 learns poses too slowly for minutes.
    config.loss = ConfigDict(dict(heatmap=1.0, offset=0.5))
    return config


def smoke() -> ConfigDict:
    """Two steps of a tiny model, in seconds."""
    config = laptop()
    config.update(dict(steps=2, batch_size=8, eval_every=2, checkpoint_every=2))
    config.log_every = 1
    config.data.update(dict(size=64, eval_images=2))
    config.data.crowd.size = (64, 64)
    config.model.backbone.update(dict(widths=(8, 16), depths=(1, 1), features=16))
    config.model.update(dict(heatmap_features=8, joint_features=2))
    config.optim.schedule.warmup = 0
    return config


def crowdpose() -> ConfigDict:
    """Trained on CrowdPose's train and val: 300 epochs of 12,000 images."""
    config = paper(pinet.crowdpose())
    # The published code widens the Gaussians of channel 17 and on, here there is none.
    config.model.centre_sigma = 2.0
    config.model.small_area = 0.0
    config.model.shared = 7
    config.model.scale_decrease = 0.8
    return config


def coco() -> ConfigDict:
    """Trained on COCO train2017 for 140 epochs, images as for PINet."""
    return paper(pinet.coco())


def paper(config: ConfigDict) -> ConfigDict:
    """PINet's data and schedule, which are DEKR's, with its model."""
    config.method = "dekr"
    config.model = ConfigDict(
        dict(
            backbone=dict(name="hrnet", width=32),
            centre_sigma=4.0,
            small_area=1024.0,
            shared=8,
            near=0.05,
            fuse=False,
            rescore=False,
            scale_decrease=0.9,
        )
    )
    config.loss = ConfigDict(dict(heatmap=1.0, offset=0.03))
    return config


def rescorer(config: ConfigDict) -> ConfigDict:
    """Twenty epochs for the rescoring net alone, without drops of the rate."""
    epoch = config.checkpoint_every
    config.steps = 20 * epoch
    config.model.rescore = True
    config.trainable = "^rescorer/"
    config.loss = ConfigDict(dict(heatmap=0.0, offset=0.0, rescore=1.0))
    config.optim.schedule = ConfigDict(dict(name="constant"))
    return config
