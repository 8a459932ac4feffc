"""Top-down heatmap regression: one person a crop, one heatmap a joint.

With HRNet as backbone it is HRNet's pose network (Sun et al., CVPR 2019), with a ResNet
and deconvolutions SimpleBaseline's (Xiao et al., ECCV 2018), with hourglasses Newell's
(ECCV 2016), whose stacks all predict. They learn by the mean squared error of Gaussians
and test with the mirrored crop and a quarter offset.
"""

from occjax.nn import crop_model, heatmap_net
from occjax.ops import crop_maps

PUBLISHED, PRETRAINED = heatmap_net.PUBLISHED, heatmap_net.PRETRAINED
Model = crop_model.CropModel
loss_terms = crop_model.loss_terms
decode, suppress = crop_maps.decode, crop_maps.suppress
