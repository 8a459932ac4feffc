"""DAG (Xu et al., ICASSP 2024): occlusion augmentation, attention, a guided graph.

    python -m occjax.train --config configs/dag.py[:VARIANT] [--config.KEY=VALUE]

(none)      built-in crowd, 96 x 96 crops, small pyramid, for two CPU cores
smoke       two steps of a tiny model, in seconds: what tests run
coco        COCO 2017, HRNet-W32 at 256 x 192, maps of stride 2: HRNet's schedule, 128
            crops. The paper reports AP 75.4 on val2017
coco_384    HRNet-W48 at 384 x 288; the paper's AP is 77.0
crowdpose   CrowdPose, trained on its train and val; the paper's AP is 72.7
ochuman     as coco, but tested on OCHuman with its annotated boxes; 64.5
released    as coco, with what the published code does otherwise: attention of channels
            before the last stage and none of pixels, everybody's maps after it, hops
            that are gated and divided otherwise, a graph in the frame of the box that
            reads heatmaps where a network says. Left out are its random factor on the
            attention, batch statistics in tests, a rate of the graph that never drops,
            and a fourth loss, of which joints are there, with a weight of 1e-5

People to paste are of the built-in crowd, or of a file of `data_prep.instances`, which
is the `pool` of `paste_instance` in `--config.occlusion`, which is given as a whole.
Published weights start from ImageNet:
`--config.init_from=hrnet_w32-36af842e.pth:^trunk/`; a file of the published code goes
into `released` whole (docs/weights.md). The rows of the paper's Table 2:

    --config.occlusion='()'             no augmentation
    --config.model.attend.channel=False --config.model.attend.spatial=False
    --config.model.attend.everybody=none --config.loss.everybody=0.   no attention
    --config.model.refine.hops=0 --config.loss.pose=0.                no graph

Other systems with these parts: configs/oasnet.py:dag, pinet.py:dag, poseur.py:dag.
"""

from ml_collections import ConfigDict

from configs import common, hrnet

OCCLUSION = (dict(name="mask_joints"), dict(name="paste_instance", pool="crowd"))
LOSS = dict(heatmap=0.5, everybody=0.5, pose=0.01)


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment of a variant.

    Raises:
        ValueError: there is no such variant.
    """
    variants = {"": laptop, "smoke": smoke, "coco": coco, "coco_384": coco_384}
    variants |= {"crowdpose": crowdpose, "ochuman": ochuman, "released": released}
    return common.choose(variants, variant)


def laptop() -> ConfigDict:
    """People of the built-in crowd and a model for two CPU cores."""
    config = _with_parts(hrnet.laptop())
    config.data.max_persons = 4  # three of a scene, and one that is pasted
    config.model.update(dict(double=False, sigma=1.0))
    config.model.refine.update(dict(hidden=64, blocks=2))
    return config


def smoke() -> ConfigDict:
    """Two steps of a tiny model, in seconds."""
    config = _with_parts(hrnet.smoke())
    config.data.max_persons = 4
    config.model.update(dict(double=True, sigma=2.0))
    config.model.refine.update(dict(hidden=8, blocks=1))
    return config


def coco() -> ConfigDict:
    """COCO 2017 with HRNet-W32 at 256 x 192."""
    config = _with_parts(hrnet.coco())
    config.batch_size = 128
    epoch = common.COCO_PEOPLE // 128
    config.update(dict(steps=210 * epoch, eval_every=5 * epoch))
    config.checkpoint_every = epoch
    config.optim.schedule.at = (170 * epoch, 200 * epoch)
    config.data.max_persons = 8
    config.model.update(dict(double=True, sigma=3.0))
    return config


def coco_384() -> ConfigDict:
    """COCO 2017 with HRNet-W48 at 384 x 288."""
    config = coco()
    config.data.size = (384, 288)
    config.model.backbone.width = 48
    config.model.sigma = 4.0
    config.model.attend.halve = True  # a matrix of 6912 x 6912 a crop else
    return config


def crowdpose() -> ConfigDict:
    """CrowdPose at 256 x 192."""
    config = coco()
    config.data.update(dict(dataset="crowdpose", eval_split="test"))
    return config


def ochuman() -> ConfigDict:
    """Trained on COCO, tested on OCHuman."""
    config = coco()
    config.data.update(dict(eval_dataset="ochuman", eval_split="test"))
    return config


def released() -> ConfigDict:
    """COCO as the published code has it."""
    config = coco()
    config.model.backbone.early = True
    attend = dict(early=True, spatial=False, everybody="after", kernel=3)
    config.model.attend.update(attend)
    refine = dict(mix="gated", norm="row_sym", seek=True, frame="box")
    config.model.refine.update(refine)
    return config


def _with_parts(config: ConfigDict) -> ConfigDict:
    """A top-down experiment with DAG's model, losses and occlusion."""
    config.method = "dag"
    config.occlusion = OCCLUSION
    config.loss = ConfigDict(LOSS)
    attend = dict(channel=True, spatial=True, everybody="before", halve=False)
    config.model.attend = ConfigDict(attend)
    config.model.refine = ConfigDict(
        dict(hops=2, norm="symmetric", mix="sum", hidden=128, blocks=3)
    )
    return config
