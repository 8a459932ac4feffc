"""DAG (Xu et al., ICASSP 2024): occlusion in the data, attention, a graph on top.

A top-down network whose attention tells the person of the crop from others, after maps
of everybody's joints have been learnt, and whose pose a graph network moves, guided by
the attended features at its joints. Occluded crops come from `config.occlusion`. Each
part is a field of every method that sees crops (see crop_model.py), so it can be had in
other systems: here they are on.

The published code differs from the paper; configs/dag.py:released has its settings, and
reads its files: HRNet and heads under "state_dict", the graph under "gcn_state_dict".
"""

from collections.abc import Mapping
from typing import Any

from flax.core import FrozenDict

from occjax.nn import crop_model, heatmap_net, hrnet
from occjax.nn.attention import ATTEND_NAMES
from occjax.nn.guided_refine import REFINE_NAMES
from occjax.nn.torch_names import prefixed
from occjax.ops import crop_maps

PUBLISHED = heatmap_net.PUBLISHED | {
    "hrnet": (
        # whether a joint is there at all, which teaches next to nothing; HRNet's head
        (r"(context_head|context_predictor|final_layer)\..*", "", "drop"),
        ("kpt_layer", "head/conv", "conv"),
        *prefixed(ATTEND_NAMES, "", "attend"),
        *prefixed(REFINE_NAMES, "", "refiner"),
        *prefixed(hrnet.TORCH_NAMES, "", "trunk"),
    )
}
PRETRAINED = heatmap_net.PRETRAINED
loss_terms = crop_model.loss_terms
decode, suppress = crop_maps.decode, crop_maps.suppress


class Model(crop_model.CropModel):
    """The plain network with attention, graph and maps of stride 2."""

    attend: Mapping[str, Any] | None = FrozenDict()  # fields of `Discriminate`
    refine: Mapping[str, Any] | None = FrozenDict()  # fields of `GuidedRefine`
    double: bool = True  # as in the published settings
    sigma: float = 3.0  # of the Gaussians, map pixels; the plain network's and one
