"""The three systems that `python -m studies.parts` compares; the variant chooses.

`center`: the centre point regresses the pose (SPM). `parts`: three body parts do, the
best pose of each person is kept. `pinet`: parts, refinement on the graph, fusion. All
else is equal: scenes, backbone, steps, batch and schedule.
"""

from ml_collections import ConfigDict

from configs import common, pinet

SYSTEMS = {
    "center": dict(parts="center", refine="none", fuse=False),
    "parts": dict(parts="part-large", refine="none", fuse=False),
    "pinet": dict(parts="part-large", refine="dynamic", fuse=True),
}


def get_config(variant: str = "") -> ConfigDict:
    """The laptop's PINet with the parts of one system, on heavily overlapping people.

    Raises:
        ValueError: there is no such system.
    """
    variant = variant or "pinet"
    common.check(variant, tuple(SYSTEMS))
    config = pinet.get_config()
    config.model.update(SYSTEMS[variant])
    if config.model.refine == "none":
        del config.loss["refine"]
    config.data.crowd.update(dict(overlap=0.45, num_scenes=6000, test_scenes=1000))
    config.data.eval_images = 0
    config.eval_every = config.steps
    return config
