"""OPEC-Net, its ablations and CoupleGraph: what `python -m studies.couples` trains.

base            the base network, which all the others correct, trained on ordinary
                scenes whose hidden joints have no labels, as most of COCO's have none
longer          the same, trained on with entangled people for as long as a head is
opec            OPEC-Net on the trained base
opec_long       the same, trained three times as long
no_image ...    OPEC-Net with one thing changed, the rows of the paper's Table 6
couple          CoupleGraph after `opec`
couple_apart    the same without edges between the two people
"""

from ml_collections import ConfigDict

from configs import common, couplegraph, opecnet

DATASETS = {  # name -> options of the crowd
    "ordinary": dict(common.CROWD, skeleton="ocpose", label_hidden=False),
    "couples": dict(common.COUPLES),
}
SCENES = {"train": 12_000, "test": 500}
BASE_STEPS, HEAD_STEPS, COUPLE_STEPS = 4000, 2000, 1000
LONG = 3
ABLATIONS = {
    "opec": {},
    "opec_long": {},
    "no_image": dict(image_guided=False),
    "one_stage": dict(design="one_stage"),
    "last_pose": dict(design="last_pose"),
    "one_scale": dict(single_scale=True),
    "no_adaption": dict(adaption="none"),
    "no_fusion": dict(adaption="separate"),
}
COUPLES = {"couple": True, "couple_apart": False}  # edges across
SYSTEMS = ("base", *ABLATIONS, *COUPLES, "longer")


def get_config(variant: str = "") -> ConfigDict:
    """The experiment of a system.

    Raises:
        ValueError: there is no such system.
    """
    variant = variant or "base"
    common.check(variant, SYSTEMS)
    if variant in ABLATIONS:
        config = opecnet.frozen()
        config.steps = HEAD_STEPS * (LONG if variant == "opec_long" else 1)
        config.model.head.update(ABLATIONS[variant])
        for loss in _unused(config.model.head):
            del config.loss[loss]
    elif variant in COUPLES:
        config = couplegraph.laptop()
        config.steps = COUPLE_STEPS
        config.model.across = COUPLES[variant]
    else:
        config = opecnet.base()
        config.steps = HEAD_STEPS if variant == "longer" else BASE_STEPS
    config.update(dict(eval_every=config.steps, checkpoint_every=config.steps))
    config.data.update(dict(dataset="couples", eval_images=0))
    if variant == "base":
        config.data.dataset = "ordinary"
    del config.data["crowd"]
    return config


def _unused(head: ConfigDict) -> tuple[str, ...]:
    """Losses that an ablated head does not have."""
    if not head.get("image_guided", True):
        return ("start",)
    one_answer = head.get("design", "progressive") != "progressive"
    return ("pose1", "pose2") if one_answer else ()
