"""DAG (Xu et al., ICASSP 2024): occlusion in the data, attention, a graph on top.

A top-down network whose attention tells the person of the crop from others, after maps
of everybody's joints have been learnt, and whose pose a graph network moves, guided by
the attended features at its joints. Occluded crops come from `config.occlusion`. Each
part is a field of every method that sees crops (see crop_model.py), so it can be had in
other systems: here they are on.

The published code differs from the paper; the settings of configs/dag.py:released are
those of its behaviours that can be reproduced.
"""

from collections.abc import Mapping
from typing import Any

from flax.core import FrozenDict

from occjax.nn import crop_model, heatmap_net
from occjax.ops import crop_maps

PUBLISHED, PRETRAINED = heatmap_net.PUBLISHED, heatmap_net.PRETRAINED
loss_terms = crop_model.loss_terms
decode, suppress = crop_maps.decode, crop_maps.suppress


class Model(crop_model.CropModel):
    """The plain network with attention, graph and maps of stride 2."""

    attend: Mapping[str, Any] | None = FrozenDict()  # fields of `Discriminate`
    refine: Mapping[str, Any] | None = FrozenDict()  # fields of `GuidedRefine`
    double: bool = True  # as in the published settings
    sigma: float = 3.0  # of the Gaussians, map pixels; the plain network's and one
