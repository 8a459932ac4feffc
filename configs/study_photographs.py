"""A few photographs, learnt by heart: what `python -m studies.photographs` trains.

(none)        the laptop's PINet on crowded photographs of COCO
opecnet       the laptop's OPEC-Net on the entangled people of OCHuman
couplegraph   CoupleGraph on the same people; `init_from` is the run before

Each is scored on what it saw; the command says where that is (`data.dir`).
"""

from ml_collections import ConfigDict

from configs import common, couplegraph, opecnet, pinet


def get_config(variant: str = "") -> ConfigDict:
    """The settings of a method.

    Raises:
        ValueError: there is no such variant.
    """
    variants = {"": crowded, "opecnet": entangled, "couplegraph": couples}
    return common.choose(variants, variant)


def crowded() -> ConfigDict:
    """PINet; views keep the scale of the test and move about to see every part."""
    config = pinet.get_config()
    config.steps, config.batch_size = 1500, 8
    config.eval_every = config.steps
    config.log_every = 50
    del config.data["crowd"]
    config.data.update(dict(dataset="coco", split="chosen", eval_split="chosen"))
    config.data.update(dict(size=192, max_persons=4, eval_images=0))
    config.data.augment.update(dict(scale=(1.0, 1.0), rotate=0.0, translate=0.3))
    # Small maps: narrow Gaussians keep people apart. A short schedule: offsets learn
    # faster with a larger share of the loss than the paper's.
    config.model.update(dict(sigma=1.0, part_sigma=1.0))
    config.loss.update(dict(offset=0.3, refine=0.3))
    return config


def entangled() -> ConfigDict:
    """OPEC-Net; all twenty people in every batch, upright or mirrored."""
    config = opecnet.laptop()
    config.steps, config.batch_size = 1000, 20
    config.eval_every = config.steps
    config.log_every = 50
    del config.data["crowd"]
    config.data.update(dict(dataset="ochuman", split="chosen", eval_split="chosen"))
    config.data.update(dict(eval_images=0))
    config.data.augment.update(dict(scale=(1.0, 1.0), rotate=0.0))
    # Everybody teaches, and every limb is the graph's, however sure the base is.
    config.model.update(dict(least_joints=1, keep_above=2.0))
    return config


def couples() -> ConfigDict:
    """CoupleGraph; all ten couples in every batch."""
    config = couplegraph.after(entangled(), people=2)
    config.batch_size = 10
    return config
