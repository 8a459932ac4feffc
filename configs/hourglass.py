"""Stacked hourglasses (Newell, Yang, Deng, ECCV 2016), each of which predicts.

    python -m occjax.train --config configs/hourglass.py[:VARIANT]

(none)      built-in crowd, 96 x 96 crops, two narrow stacks, for two CPU cores
smoke       two steps of a tiny model, in seconds: what tests run
mpii        MPII, two stacks at 256 x 256: RMSProp 5e-4, drops by ten after epochs 150,
            170 and 200 of 220, 32 crops, as OASNet trains them
mpii_8      the same with eight stacks

Their images are normalised as those of pytorch-pose, so that its files start a run:
`--config.init_from=hg_s2_b1.pth.tar`. Files of princeton-vl's code want
`--config.model.backbone.stem=(128,128,256) --config.model.mean=(0.,0.,0.)`.
"""

from ml_collections import ConfigDict

from configs import common, hrnet


def get_config(variant: str = "") -> ConfigDict:
    """Returns the experiment of a variant.

    Raises:
        ValueError: there is no such variant.
    """
    variants = {"": laptop, "smoke": smoke, "mpii": mpii, "mpii_8": mpii_8}
    return common.choose(variants, variant)


def laptop() -> ConfigDict:
    """People of the built-in crowd and a model for two CPU cores."""
    config = hrnet.laptop()
    config.model.backbone = ConfigDict(
        dict(name="hourglass", stacks=2, levels=3, stem=(32, 64, 64))
    )
    return config


def smoke() -> ConfigDict:
    """Two steps of a tiny model, in seconds."""
    config = hrnet.smoke()
    config.model.backbone = ConfigDict(
        dict(name="hourglass", stacks=2, levels=1, stem=(4, 8, 8))
    )
    return config


def mpii() -> ConfigDict:
    """MPII with two stacks."""
    config = hrnet.mpii()
    config.batch_size = 32
    epoch = common.MPII_PEOPLE // config.batch_size
    config.update(dict(steps=220 * epoch, eval_every=10 * epoch))
    config.checkpoint_every = epoch
    config.data.augment.colour = 0.2
    config.model.backbone = ConfigDict(dict(name="hourglass", stacks=2))
    config.model.update(dict(mean=(0.4404, 0.4440, 0.4327), std=(1.0, 1.0, 1.0)))
    config.model.sigma = 1.0
    schedule = dict(name="steps", at=(150 * epoch, 170 * epoch, 200 * epoch))
    config.optim = ConfigDict(
        dict(name="rmsprop", lr=5e-4, decay=0.99, clip=0.0, ema=0.0, schedule=schedule)
    )
    config.optim.update(dict(eps=1e-8, eps_in_sqrt=False))
    return config


def mpii_8() -> ConfigDict:
    """MPII with eight stacks."""
    config = mpii()
    config.model.backbone.stacks = 8
    return config
