"""PINet (Wang, Zhang, Hua, NeurIPS 2021): poses from parts, refined and fused.

    python -m occjax.train --config configs/pinet.py[:VARIANT] [--config.KEY=VALUE]

| variant | data | hardware | time | the paper's AP |
|---|---|---|---|---|
| none | built-in crowd | 2 CPU cores | about 10 minutes | - |
| dag | built-in crowd | 2 CPU cores | about 15 minutes | - |
| smoke | built-in crowd | any | seconds | - |
| ochuman | OCHuman val | 1 GPU of 24 GB or more | not measured here | 59.8 (test) |
| crowdpose | CrowdPose train + val | 1-2 GPUs | not measured here | 68.9 (test) |
| coco | COCO train2017 | 2 GPUs or a TPU v3-8 | not measured here | 67.4 (val) |

The paper's variants carry its settings in full: HRNet-W32 at 512, Adam at 1e-3 without
weight decay, two drops by ten, batch, epochs and sampling counts as published; the
paper trained on two RTX 3090. Its training flip mislabels mirrored images by 3 pixels;
`--config.data.augment.flip_shift=3` brings that back. The paper starts from HRNet's
ImageNet weights: `--config.init_from=hrnet_w32-36af842e.pth:^trunk/`. Published PINet
weights come in by `occjax.convert`. `dag` adds DAG's parts to the first: its occlusion,
attention and, for the refinement, its graph.
"""

from ml_collections import ConfigDict

from configs import common, dag


def get_config(variant: str = "") -> ConfigDict:
    """Settings of one variant.

    Raises:
        ValueError: there is no such variant.
    """
    variants = {
        "": laptop,
        "dag": with_dag,
        "smoke": smoke,
        "ochuman": ochuman,
        "crowdpose": crowdpose,
        "coco": coco,
    }
    return common.choose(variants, variant)


def laptop() -> ConfigDict:
    """The built-in crowd and a model for two CPU cores."""
    return ConfigDict(
        dict(
            method="pinet",
            seed=0,
            steps=4500,
            batch_size=16,
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
                size=96,
                max_persons=3,
                eval_images=300,
                threads=1,
                cache=True,
                crowd=common.CROWD,
                augment=common.RENDERED,
            ),
            model=dict(
                backbone=dict(name="pyramid"),
                parts="part-large",
                sigma=1.0,
                part_sigma=1.0,
                refine="dynamic",
                refine_layers=1,
                refine_features=64,
                max_proposals=12,
                fuse=True,
                small_area=0.0,
            ),
            # The published 0.03 learns poses too slowly for ten minutes.
            loss=dict(heatmap=1.0, offset=0.5, refine=0.5),
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
    config.data.update(dict(size=64, eval_images=2))
    config.data.crowd.size = (64, 64)
    config.model.backbone.update(dict(widths=(8, 16), depths=(1, 1), features=16))
    config.optim.schedule.warmup = 0
    config.model.update(dict(refine_features=8, max_proposals=6))
    return config


def with_dag() -> ConfigDict:
    """The first with DAG's parts."""
    config = laptop()
    config.occlusion = dag.OCCLUSION
    config.data.max_persons = 4  # one of whom is pasted
    config.model.attend = ConfigDict(dict(halve=True))
    config.model.update(dict(refine="multi_hop", weigh_channels=True))
    return config


def ochuman() -> ConfigDict:
    """Trained on OCHuman's val, tested on its test: 140 epochs of 2,500 images."""
    config = paper("ochuman", batch_size=20, epoch=125, epochs=140, drops=(90, 120))
    config.data.eval_split = "test"
    return config


def crowdpose() -> ConfigDict:
    """Trained on CrowdPose's train and val: 300 epochs of 12,000 images."""
    config = paper("crowdpose", batch_size=40, epoch=300, epochs=300, drops=(200, 260))
    config.data.eval_split = "test"
    config.model.small_area = 0.0  # the size limit is not applied to CrowdPose
    config.model.scale_decrease = 0.8
    return config


def coco() -> ConfigDict:
    """Trained on COCO train2017, images with more than ten labelled joints."""
    config = paper("coco", batch_size=40, epoch=1400, epochs=140, drops=(90, 120))
    config.data.eval_split = "val"
    config.data.min_joints = 11
    config.model.refine_layers = 2
    return config


def paper(
    dataset: str, batch_size: int, epoch: int, epochs: int, drops: tuple[int, ...]
) -> ConfigDict:
    """The published settings; `epoch` counts the steps of one."""
    return ConfigDict(
        dict(
            method="pinet",
            seed=0,
            steps=epoch * epochs,
            batch_size=batch_size,
            eval_every=10 * epoch,
            checkpoint_every=epoch,
            log_every=20,
            dtype="float32",
            init_from="",
            trainable="",
            occlusion=(),
            data=dict(
                dataset=dataset,
                dir="datasets",
                split="train",
                eval_split="test",
                size=512,
                max_persons=40,
                min_joints=0,
                eval_images=0,
                threads=8,
                augment=common.WHOLE_IMAGE,
            ),
            model=dict(
                backbone=dict(name="hrnet", width=32),
                parts="part-large",
                refine="dynamic",
                refine_layers=3,
                max_proposals=120,
                fuse=True,
                small_area=1024.0,
                scale_decrease=0.9,
            ),
            loss=dict(heatmap=1.0, offset=0.03, refine=0.03),
            optim=dict(
                name="adam",
                lr=1e-3,
                clip=0.0,
                ema=0.0,
                schedule=dict(name="steps", at=tuple(epoch * drop for drop in drops)),
            ),
        )
    )
