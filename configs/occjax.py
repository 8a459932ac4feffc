"""The five papers' parts in one model: methods/combined.py.

    python -m occjax.train --config configs/occjax.py[:VARIANT] [--config.KEY=VALUE]

(none)          built-in crowd and a model for two CPU cores
crowdpose       CrowdPose with PINet's settings in full
coco            COCO 2017 likewise
full            as none, with every part; so are crowdpose_full and coco_full
smoke           two steps of a tiny model with every part, in seconds: what tests run

PINet infers and fuses whole poses. Two parts earned their place beside it, each with
every seed of `python -m studies.combination` (docs/study.md), and are always there:
DAG's graph, which refines poses in the place of PINet's, and scores in the manner of
OAKS. The variants with every part also have DAG's attention and occluders, and OASNet's
mimicry, for which every image comes in two views, half as many a step, with pasted
patches and without. How each is taken away:

    --config.model.refine=dynamic                        DAG's graph: PINet's instead
    --config.score=heatmap                               scores in the manner of OAKS,
                                                         which teach nothing else
    --config.model.fuse=False                            PINet's fusion
    --config.model.weigh_channels=False                  DAG's attention of channels
    --config.occlusion="({'name': 'paste_patches'},)"    DAG's occluders
    --config.model.mimic=none --config.loss.mimic=0.     OASNet's mimicry

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
    variants = {"": laptop, "crowdpose": crowdpose, "coco": coco, "full": full}
    variants |= {"crowdpose_full": crowdpose_full, "coco_full": coco_full}
    return common.choose(variants | {"smoke": smoke}, variant)


def laptop() -> ConfigDict:
    """The built-in crowd and a model for two CPU cores."""
    return _combined(pinet.laptop())


def crowdpose() -> ConfigDict:
    """CrowdPose as PINet was trained."""
    return _combined(pinet.crowdpose())


def coco() -> ConfigDict:
    """COCO 2017 as PINet was trained."""
    return _combined(pinet.coco())


def full() -> ConfigDict:
    """The first with every part."""
    config = _full(laptop())
    config.model.attend = ConfigDict(dict(halve=True))
    config.data.max_persons = 4  # three of a scene, and one that is pasted
    return config


def crowdpose_full() -> ConfigDict:
    """CrowdPose with every part."""
    return _full(crowdpose())


def coco_full() -> ConfigDict:
    """COCO with every part."""
    return _full(coco())


def smoke() -> ConfigDict:
    """Two steps of a tiny model, in seconds."""
    config = _full(_combined(pinet.smoke()))
    config.batch_size = 8
    config.data.max_persons = 4
    config.model.attend = ConfigDict(dict(halve=False))
    config.model.scores = ConfigDict(dict(hidden=8))
    return config


def _combined(config: ConfigDict) -> ConfigDict:
    """A PINet experiment with the parts that earned their place."""
    config.method, config.score = "combined", "oaks"
    config.model.update(dict(refine="multi_hop", mimic="none"))
    config.model.scores = ConfigDict(dict(hidden=128))
    config.loss.update(TOLD)
    return config


def _full(config: ConfigDict) -> ConfigDict:
    """The same with the other parts as well."""
    config.batch_size //= 2  # in two views each
    mask, paste = dag.OCCLUSION
    # a pasted person is in both views, what only hides in one of them
    config.occlusion = (paste, *oasnet.PATCHES, mask)
    config.model.weigh_channels = True
    config.model.update(dict(mimic="transport", detach_clean=False))
    config.model.transport = ConfigDict(dict(epsilon=0.1, iterations=5))
    config.loss.mimic = oasnet.LOSS["mimic"]
    return config
