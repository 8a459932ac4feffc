"""DAG's parts, and all papers' in one: what `python -m studies.combination` trains.

A variant is KIND_ROW. With each seed a `base` of the kind comes first, trained from
scratch; all rows go on from it with as many views a step as each other: 8 images, or 4
in two views; 16 crops, or 8 in two views. KIND is

whole   PINet and the combination, on whole images of the crowd: `pinet`, each part
        added to it and taken from all of them
control what else the mimicry changes: PINet on `half` as many images a step, and on as
        many with their `patches` in a second view; both go on from the base of `whole`
crop    DAG's Table 2, the other papers' systems, and Poseur with and without DAG, which
        goes on from a `poseur_base`, on crops of the same people
lsp     DAG's Table 2 on crops of LSP Extended
"""

from ml_collections import ConfigDict

from configs import (
    common,
    dag,
    hrnet,
    ksnet,
    oahpe,
    oasnet,
    occjax,
    opecnet,
    pinet,
    poseur,
    study_lsp,
)

CROWD = dict(common.CROWD, overlap=0.4)
SCENES = {"train": 12_000, "test": 900}
STEPS = {"whole": (3000, 1000), "crop": (2500, 800), "lsp": (1500, 600)}  # base, rows
VIEWS = {"whole": 8, "crop": 16, "lsp": 16}  # a step
TABLE = ("hrnet", "augmentation", "attention", "graph", "dag")
REGRESSED = ("poseur", "poseur_dag")
PARTS = ("occluders", "mimicry", "graph", "attention", "scores")
ROWS = {
    "whole": (
        *("base", "pinet", "full"),
        *(f"{how}_{part}" for how in ("with", "without") for part in PARTS[:-1]),
    ),
    "control": ("half", "patches"),
    "crop": (
        *("base", *TABLE, "opecnet", "oasnet", "oahpe", "ksnet"),
        *("poseur_base", *REGRESSED),
    ),
    "lsp": ("base", *TABLE),
}


def get_config(variant: str = "") -> ConfigDict:
    """The experiment of a kind and a row.

    Raises:
        ValueError: there is no such variant.
    """
    variant = variant or "whole_full"
    common.check(variant, tuple(f"{a}_{b}" for a, rows in ROWS.items() for b in rows))
    kind, row = variant.split("_", 1)
    if row == "ksnet":  # all else is OA-HPE's
        config = ksnet.laptop()
    elif kind == "control":
        return _control(row)
    else:
        config = _whole(row) if kind == "whole" else _crop(row)
    twins = any(one["name"] == "paste_patches" for one in config.occlusion)
    config.batch_size = VIEWS[kind] // (1 + twins)
    config.steps = STEPS[kind][not row.endswith("base")]
    config.update(dict(eval_every=config.steps, checkpoint_every=config.steps))
    if kind == "lsp":
        photographs = study_lsp.get_config("hrnet")
        persons = config.data.max_persons
        config.data = photographs.data
        config.data.max_persons = persons
        config.model.sharpness = photographs.model.sharpness
        config.loss.location = photographs.loss.location
        return config
    if row != "ksnet":
        del config.data["crowd"]
        config.data.update(dict(dataset="crowded", eval_images=0))
    return config


def _whole(row: str) -> ConfigDict:
    """PINet with some parts, or without some of all."""
    if row == "base":
        config = pinet.laptop()
        config.model.update(dict(refine="none"))
        del config.loss["refine"]
        return config
    how, _, part = row.partition("_")
    chosen = {"pinet": (), "full": PARTS, "with": (part,)}.get(
        how, tuple(x for x in PARTS if x != part)
    )
    config = occjax.full()
    parted = pinet.laptop()
    if "occluders" not in chosen:
        config.occlusion = oasnet.PATCHES if "mimicry" in chosen else ()
    elif "mimicry" not in chosen:
        config.occlusion = dag.OCCLUSION
    if "mimicry" not in chosen:
        config.model.mimic = "none"
        del config.loss["mimic"]
    if "graph" not in chosen:
        config.model.refine = parted.model.refine
    if "attention" not in chosen:
        config.model.weigh_channels = False
        del config.model["attend"]
    return config


def _control(row: str) -> ConfigDict:
    """PINet that sees as many images as with the mimicry, or all but mimics."""
    config = get_config("whole_pinet" if row == "half" else "whole_with_mimicry")
    config.batch_size = VIEWS["whole"] // 2
    if row == "patches":
        config.model.mimic = "none"
        del config.loss["mimic"]
    return config


def _crop(row: str) -> ConfigDict:
    """One of DAG's Table 2, or a paper's system."""
    if row == "opecnet":
        return opecnet.laptop()
    if row == "oasnet":
        config = oasnet.laptop()
        config.model.repair.read = 0  # as the base reads its features
        return config
    if row == "oahpe":
        config = oahpe.laptop()
        config.model.backbone = hrnet.laptop().model.backbone
        config.model.coarse_sigmas = ()
        del config.loss["coarse"]
        return config
    if row.startswith("poseur"):
        return poseur.with_dag() if row == "poseur_dag" else poseur.laptop()
    if row in ("base", "hrnet"):
        return hrnet.laptop()
    config, all_parts = dag.laptop(), row == "dag"
    if not all_parts and row != "augmentation":
        config.occlusion = ()
    if not all_parts and row != "attention":
        config.model.attend = None
        del config.loss["everybody"]
    if not all_parts and row != "graph":
        config.model.refine = None
        del config.loss["pose"]
    return config
