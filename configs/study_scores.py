"""OA-HPE, HRNet and KS-net on them: what `python -m studies.scores` trains.

A variant is SET_SYSTEM. The sets are the built-in crowd whose hidden joints have no
labels, crops of LSP Extended, and photographs of COCO, on which the crowd's networks
are trained on; `longer` is a KS-net that learns longer on the crowd's OA-HPE. With each
seed `oahpe` and `hrnet` come first, then a KS-net on each: `ksnet_oahpe`, and
`ksnet_hrnet`, which takes the labels of `oahpe`; LSP Extended has `oahpe` alone.
Networks are half as wide as those for two cores, so that three seeds fit into two hours
of theirs. All also learn where joints are, or so short a training from scratch would
end with empty maps.
"""

from ml_collections import ConfigDict

from configs import common, hrnet, ksnet, oahpe

BASES = {
    "crowd": ("oahpe", "hrnet"),
    "longer": ("oahpe",),
    "lsp": ("oahpe",),
    "coco": ("oahpe", "hrnet"),
}
SYSTEMS = ("oahpe", "hrnet", "ksnet_oahpe", "ksnet_hrnet")
CROWD = dict(common.CROWD, overlap=0.4, objects=(0, 2), label_hidden=False)
SCENES = {"train": 12_000, "test": 800}
STEPS = {"crowd": 1000, "longer": 1000, "lsp": 1000, "coco": 150}
KS_STEPS = {"crowd": 400, "longer": 2000, "lsp": 400, "coco": 150}
BACKBONES = {
    "oahpe": dict(name="cpn", depth=18, width=16, features=32),
    "hrnet": dict(
        name="hrnet",
        width=8,
        modules=(1, 1, 1),
        blocks=1,
        stem=16,
        bottlenecks=1,
        concat=False,
    ),
}


def get_config(variant: str = "") -> ConfigDict:
    """The experiment of a set and a system.

    Raises:
        ValueError: there is no such variant.
    """
    variant = variant or "crowd_oahpe"
    common.check(variant, tuple(f"{a}_{b}" for a in BASES for b in SYSTEMS))
    name, system = variant.split("_", 1)
    if system.startswith("ksnet"):
        config = ksnet.laptop()
        config.steps = KS_STEPS[name]
    else:
        config = oahpe.laptop() if system == "oahpe" else hrnet.laptop()
        config.steps = STEPS[name]
        config.model.sharpness, config.loss.location = 10.0, 0.01
        config.model.backbone = ConfigDict(dict(BACKBONES[system]))
        del config.data["crowd"]
        config.data.update(dict(dataset=_dataset(name), eval_images=0))
        if name == "lsp":
            config.data.padding = 1.0
        if name == "coco":
            config.data.eval_split = "val"
            config.optim.lr = 5e-4
    config.update(dict(eval_every=config.steps, checkpoint_every=config.steps))
    return config


def _dataset(name: str) -> str:
    return {"lsp": "lsp_crops", "coco": "coco"}.get(name, "unlabelled")
