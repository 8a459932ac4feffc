"""The five papers' parts in one model: methods/combined.py.

    python -m occjax.train --config configs/occjax.py[:VARIANT] [--config.KEY=VALUE]

(none)      built-in crowd and a model for two CPU cores
full        the same with every part on, whether it earns its place or not
smoke       two steps of a tiny model, in seconds: what tests run
crowdpose   CrowdPose with PINet's settings in full
coco        COCO 2017 likewise

Whole poses from parts, refined and fused, are PINet's; every image comes in two views
of 8 a step, with pasted patches and without. The parts, and how each is taken away:

    --config.occlusion="({'name': 'paste_patches'},)"    DAG's occluders
    --config.model.mimic=none --config.loss.mimic=0.     OASNet's mimicry
    --config.model.refine=dynamic                        DAG's graph: PINet's instead
    --config.model.weigh_channels=False                  DAG's attention of channels
    --config.score=heatmap                               scores in the manner of OAKS,
                                                         which teach nothing else
    --config.model.fuse=False                            PINet's fusion

`python -m occjax.evaluate --score heatmap,oaks,oracle` ranks a run's poses by each.
"""

from ml_collections import ConfigDict

from configs import common, dag, oasnet, pinet

TOLD = dict(labelled=0.1, similarity=1.0)


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment of a variant.

    Raises:
        ValueError: there is no such variant.
    """
    variants = {"": laptop, "full": full, "smoke": smoke}
    variants |= {"crowdpose": crowdpose, "coco": coco}
    return common.choose(variants, variant)


def laptop() -> ConfigDict:
    """The built-in crowd and a model for two CPU cores."""
    return full()


def full() -> ConfigDict:
    """Every part."""
    config = _combined(pinet.laptop())
    config.batch_size = 8  # in two views each
    config.data.max_persons = 4  # three of a scene, and one that is pasted
    config.model.attend = ConfigDict(dict(halve=True))
    return config


def smoke() -> ConfigDict:
    """Two steps of a tiny model, in seconds."""
    config = _combined(pinet.smoke())
    config.data.max_persons = 4
    config.model.attend = ConfigDict(dict(halve=False))
    config.model.scores = ConfigDict(dict(hidden=8))
    return config


def crowdpose() -> ConfigDict:
    """CrowdPose as PINet was trained."""
    config = _combined(pinet.crowdpose())
    config.batch_size = 20  # in two views each
    return config


def coco() -> ConfigDict:
    """COCO 2017 as PINet was trained."""
    config = _combined(pinet.coco())
    config.batch_size = 20  # in two views each
    return config


def _combined(config: ConfigDict) -> ConfigDict:
    """A PINet experiment with the parts of the other papers."""
    config.method, config.score = "combined", "oaks"
    mask, paste = dag.OCCLUSION
    # a pasted person is in both views, what only hides in one of them
    config.occlusion = (paste, *oasnet.PATCHES, mask)
    config.model.update(dict(refine="multi_hop", weigh_channels=True))
    config.model.update(dict(mimic="transport", detach_clean=False))
    config.model.transport = ConfigDict(dict(epsilon=0.1, iterations=5))
    config.model.scores = ConfigDict(dict(hidden=128))
    config.loss.update(dict(mimic=oasnet.LOSS["mimic"], **TOLD))
    return config
