"""OASNet (Zhou, Chen, Gao, Wang, Lu, ECCV 2020): erase, reconstruct, mimic.

    python -m occjax.train --config configs/oasnet.py[:VARIANT] [--config.KEY=VALUE]

(none)        built-in crowd, 96 x 96 crops, small pyramid, for two CPU cores
smoke         two steps of a tiny model, in seconds: what tests run
mpii          MPII, HRNet-W32 at 256 x 256: Adam 1e-3, drops by ten after epochs 170 and
              200 of 210. The paper reports a PCKh@0.5 of 90.7 on the validation part
lsp           LSP, trained on its first half, with MPII's settings
coco          COCO 2017 at 256 x 192; the paper reports AP 75.0 on val2017
hourglass     MPII, two stacks: RMSProp 5e-4, drops by ten after epochs 150, 170 and 200
              of 220, 16 crops in two views each. Eight stacks, as in the paper's test:
              `--config.model.backbone.stacks=8`

Published weights start from ImageNet:
`--config.init_from=hrnet_w32-36af842e.pth:^trunk/`. The rows of the paper's ablations:

    --config.model.mimic=l2             cosine, kl with --config.loss.mimic=100., none
                                        with --config.loss.mimic=0.
    --config.model.detach_clean=True    the clean view teaches only
    --config.model.repair.erase=False   reconstruction without cleaning; with
    --config.model.repair.told=nothing  and --config.loss.occlusion=0., or told=classes
"""

from ml_collections import ConfigDict

from configs import common, dag, hrnet
from configs import hourglass as hourglasses

PATCHES = (dict(name="paste_patches"),)
LOSS = dict(heatmap=0.5, occlusion=0.5, mimic=0.001)


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment of a variant.

    Raises:
        ValueError: there is no such variant.
    """
    variants = {
        "": laptop,
        "dag": with_dag,
        "smoke": smoke,
        "mpii": mpii,
        "lsp": lsp,
        "coco": coco,
    }
    return common.choose(variants | {"hourglass": hourglass}, variant)


def laptop() -> ConfigDict:
    """People of the built-in crowd and a model for two CPU cores."""
    config = _siamese(hrnet.laptop())
    config.batch_size = 16  # in two views each
    config.model.repair.update(dict(read=96, inner=48))
    return config


def with_dag() -> ConfigDict:
    """The first with DAG's parts."""
    config = laptop()
    mask, paste = dag.OCCLUSION
    config.occlusion = (paste, *PATCHES, mask)
    parts = dag.laptop()
    config.data.max_persons = parts.data.max_persons
    config.model.update(dict(attend=parts.model.attend, refine=parts.model.refine))
    config.loss.update(dict(everybody=parts.loss.everybody, pose=parts.loss.pose))
    return config


def smoke() -> ConfigDict:
    """Two steps of a tiny model, in seconds."""
    config = _siamese(hrnet.smoke())
    config.batch_size = 8
    config.model.repair.update(dict(read=16, inner=8))
    return config


def mpii() -> ConfigDict:
    """MPII with HRNet-W32."""
    config = _siamese(hrnet.mpii())
    config.model.backbone.concat = True
    config.data.augment.colour = 0.2
    return config


def lsp() -> ConfigDict:
    """LSP with MPII's settings."""
    config = _siamese(hrnet.lsp())
    config.model.backbone.concat = True
    config.data.augment.colour = 0.2
    return config


def coco() -> ConfigDict:
    """COCO 2017 with HRNet-W32 at 256 x 192."""
    config = _siamese(hrnet.coco())
    config.model.backbone.concat = True
    return config


def hourglass() -> ConfigDict:
    """MPII with two hourglasses, the last of which is repaired."""
    config = _siamese(hourglasses.mpii())
    epoch = common.MPII_PEOPLE // 16
    config.update(dict(batch_size=16, steps=220 * epoch, eval_every=10 * epoch))
    config.checkpoint_every = epoch
    config.optim.schedule.at = (150 * epoch, 170 * epoch, 200 * epoch)
    config.model.repair.read = 0
    return config


def _siamese(config: ConfigDict) -> ConfigDict:
    """A top-down experiment with OASNet's model, losses and pasted patches."""
    config.method = "oasnet"
    config.occlusion = PATCHES
    config.loss = ConfigDict(LOSS)
    config.model.repair = ConfigDict(
        dict(read=256, told="map", erase=True, reconstruct=True)
    )
    config.model.mimic = "transport"
    config.model.transport = ConfigDict(dict(epsilon=0.1, iterations=5))
    config.model.detach_clean = False
    return config
