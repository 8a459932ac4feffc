"""OASNet's parts one by one: what `python -m studies.mimicry` trains.

A variant is crowd_ROW or lsp_ROW. With each seed `base` comes first, a plain network
trained from scratch; all other rows go on from it for as long as each other, with as
many views a step: 32 crops, or 16 in two views. The network has half the channels of
oasnet.laptop, or the study would take a day of two cores. On photographs all also learn
where joints are, or so short a training from scratch would end with empty maps; the
crowd's is longer, as its people are apart by a few pixels.

base            plain crops
plain           the same, trained on
patches         both views, patches on one
reconstruct     + reconstruction of the features, nothing erased
erase           + occlusion found and erased
transport, l2, cosine, kl    + that mimicry
"""

from ml_collections import ConfigDict

from configs import common, oasnet, study_lsp

SETS = ("crowd", "lsp")
SCENES = {"train": 12_000, "test": 500}
STEPS = {"crowd": (2000, 600), "lsp": (1000, 250)}  # base, rows
BACKBONE = dict(widths=(24, 48, 96), depths=(1, 1, 2), features=48)
NOTHING = dict(told="nothing", erase=False, reconstruct=False)
ROWS = {
    "base": dict(repair=NOTHING, mimic="none"),
    "plain": dict(repair=NOTHING, mimic="none"),
    "patches": dict(repair=NOTHING, mimic="none"),
    "reconstruct": dict(repair=dict(NOTHING, reconstruct=True), mimic="none"),
    "erase": dict(mimic="none"),
    "transport": dict(mimic="transport"),
    "l2": dict(mimic="l2"),
    "cosine": dict(mimic="cosine"),
    "kl": dict(mimic="kl"),
}


def get_config(variant: str = "") -> ConfigDict:
    """The experiment of a set and a row.

    Raises:
        ValueError: there is no such variant.
    """
    variant = variant or "crowd_transport"
    common.check(variant, tuple(f"{name}_{row}" for name in SETS for row in ROWS))
    where, row = variant.split("_", 1)
    config = oasnet.laptop()
    if where == "lsp":
        crops = study_lsp.get_config("hrnet")
        config.data = crops.data
        config.model.sharpness = crops.model.sharpness
        config.loss.location = crops.loss.location
    else:
        del config.data["crowd"]
        config.data.update(dict(dataset="ordinary", eval_images=0))
    config.model.backbone.update(dict(BACKBONE, name="pyramid"))
    config.model.repair.update(dict(read=BACKBONE["features"], inner=24))
    config.model.repair.update(ROWS[row].get("repair", {}))
    config.model.mimic = ROWS[row]["mimic"]
    if config.model.mimic == "none":
        del config.loss["mimic"]
    elif config.model.mimic == "kl":
        config.loss.mimic = 100.0
    if config.model.repair.told == "nothing":
        del config.loss["occlusion"]
    config.steps = STEPS[where][row != "base"]
    if row in ("base", "plain"):
        config.update(dict(batch_size=32, occlusion=()))
    config.update(dict(eval_every=config.steps, checkpoint_every=config.steps))
    return config
