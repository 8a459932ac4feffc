"""OPEC-Net on crops of LSP Extended: what `python -m studies.occluders` trains.

    base      a feature pyramid, with the losses of configs/study_lsp.py
    longer    the same, trained on for as long as the head is
    opec      OPEC-Net on the trained base

All see black rectangles on joints in training. Every limb is corrected: the base learns
by cross-entropy of places too, which makes all of its scores high.
"""

from ml_collections import ConfigDict

from configs import common, opecnet, study_lsp

BASE_STEPS, HEAD_STEPS = 4000, 2000
SYSTEMS = ("base", "opec", "longer")


def get_config(variant: str = "") -> ConfigDict:
    """The experiment of a system.

    Raises:
        ValueError: there is no such system.
    """
    variant = variant or "base"
    common.check(variant, SYSTEMS)
    config = study_lsp.get_config("hrnet")
    config.model.backbone = ConfigDict(dict(name="pyramid", all_levels=True))
    config.steps = HEAD_STEPS if variant == "longer" else BASE_STEPS
    config.occlusion = (dict(name="mask_joints", probability=0.5, joints=3),)
    if variant == "opec":
        head = opecnet.frozen()
        for key in ("method", "model", "loss", "optim", "trainable"):
            config[key] = head[key]
        config.model.keep_above = 2.0
        config.steps = HEAD_STEPS
    config.update(dict(eval_every=config.steps, checkpoint_every=config.steps))
    return config
