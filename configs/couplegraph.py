"""CoupleGraph (Qiu et al., ECCV 2020): OPEC-Net's second stage, for entangled people.

    python -m occjax.train --config configs/couplegraph.py[:VARIANT]
        --config.init_from=runs/opecnet

(none)      built-in crowd in OCPose's style, after configs/opecnet.py
smoke       two steps of a tiny model, in seconds: what tests run
ocpose      OCPose, after configs/opecnet.py:ocpose
crowdpose   the same on CrowdPose, up to eight people an image, each with the nearest

An example is an image with the crops of its people. All but the couples' graph stays
as `init_from` has it.
"""

from ml_collections import ConfigDict

from configs import common, opecnet


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment of a variant.

    Raises:
        ValueError: there is no such variant.
    """
    variants = {"": laptop, "smoke": smoke, "ocpose": ocpose, "crowdpose": crowdpose}
    return common.choose(variants, variant)


def after(config: ConfigDict, people: int) -> ConfigDict:
    """The second stage of an experiment, with so many people an image at most."""
    config.trainable = "^couple/"
    config.data.update(dict(view="people", max_persons=people, least_people=2))
    config.model.update(dict(couple=True, frozen_base=True))
    losses = {name: w for name, w in opecnet.LOSSES.items() if name != "start"}
    config.loss = ConfigDict(losses)
    return config


def laptop() -> ConfigDict:
    """Two people an image, for two CPU cores."""
    config = after(opecnet.frozen(), people=2)
    config.batch_size = 16
    return config


def smoke() -> ConfigDict:
    """Two steps of a tiny model, in seconds."""
    return after(opecnet.smoke(), people=2)


def ocpose() -> ConfigDict:
    """OCPose, as far as the paper tells."""
    config = after(opecnet.ocpose(), people=2)
    config.batch_size = 14
    return config


def crowdpose() -> ConfigDict:
    """CrowdPose: everybody with the nearest."""
    config = after(opecnet.crowdpose(), people=8)
    config.batch_size = 14
    return config
