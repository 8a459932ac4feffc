"""SPM (Nie et al., ICCV 2019) as PINet's authors compare with it.

    python -m occjax.train --config configs/spm.py[:VARIANT] [--config.KEY=VALUE]

One centre per person (the mean of all its labelled joints) regresses all joints; no
refinement, no fusion: PINet's first row of Table 1. Variants as in configs/pinet.py:
none (2 CPU cores, about 10 minutes), smoke, ochuman (the paper's AP: 47.6), crowdpose
(63.7), coco.
"""

from ml_collections import ConfigDict

from configs import pinet


def get_config(variant: str = "") -> ConfigDict:
    """PINet's settings of the variant, with the centre for the parts.

    Raises:
        ValueError: there is no such variant.
    """
    config = pinet.get_config(variant)
    config.model.parts = "center"
    config.model.refine = "none"
    config.model.fuse = False
    del config.loss["refine"]
    return config
