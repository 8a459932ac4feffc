"""OPEC-Net on crops of LSP Extended: what `python -m studies.occluders` trains.

    base      a feature pyramid, with the losses of configs/study_lsp.py, on the crops
    longer    the same, trained on with patches over joints for as long as the head is
    opec      OPEC-Net on the trained base, with patches over joints

The patches are those of the test, see studies/covered.py.
"""

from ml_collections import ConfigDict

from configs import common, opecnet, study_lsp

BASE_STEPS, HEAD_STEPS = 4000, 2000
PATCHES = dict(patches=(2, 4), size=(0.15, 0.3))  # of the test as well
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
    if variant != "base":
        config.occlusion = (dict(name="paste_patches", **PATCHES),)
    if variant == "opec":
        head = opecnet.frozen()
        for key in ("method", "model", "loss", "optim", "trainable"):
            config[key] = head[key]
        config.steps = HEAD_STEPS
    config.update(dict(eval_every=config.steps, checkpoint_every=config.steps))
    return config
