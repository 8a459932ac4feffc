"""PINet's training step with the reference weights against the published code's."""

import jax
import jax.numpy as jnp
import numpy as np
import published_pinet as published
from flax import linen as nn

from occjax.methods import pinet
from occjax.ops import losses

FACTORS = {"heatmap": 1.0, "offset": 0.03, "refine": 0.03}
TRAINED = ("pinet_ochuman", "pinet_crowdpose", "spm_center")


def nhwc(x, dtype):
    return jnp.asarray(np.moveaxis(x, 1, -1), dtype)


class Training:
    """The reference batch: its targets are stored as maps, so the loss is dense here."""

    def __init__(self, golden, name, dtype):
        self.name, self.golden = name, golden
        self.model, self.variables = published.build(golden, name, dtype)
        self.z = z = np.load(golden / name / "train_step.npz")
        image = published.image_from_normalised(z["image"], dtype)
        self.inputs = published.inputs_of(image)
        self.target, self.weight = (
            jnp.concatenate((nhwc(z[a], dtype), nhwc(z[b], dtype)), axis=-1)
            for a, b in (("heatmap_t", "detkpt_t"), ("kpt_mask", "detkpt_mask"))
        )
        flat = np.stack([z[k] for k in sorted(z) if k.startswith("gt_inds")], axis=1)
        width = image.shape[2] // 4
        pixels = np.stack((flat % width, flat // width), axis=-1).astype(np.int32)
        self.proposals = pinet.Proposals(
            jnp.asarray(pixels), jnp.ones(pixels.shape[:3], bool)
        )

    def terms(self, outputs):
        """Name -> reduced loss with its factor."""
        maps, z = outputs.maps, self.z
        pred = jnp.concatenate((maps.heatmap, maps.parts), axis=-1)
        offset = maps.offset.reshape(*pred.shape[:3], -1)
        terms = {
            "heatmap": losses.weighted_mse(pred, self.target, self.weight),
            "offset": losses.weighted_smooth_l1(
                offset, *(nhwc(z[k], pred.dtype) for k in ("offset_t", "offset_weight"))
            ),
        }
        if outputs.refined is not None:
            wanted, weight = (
                jnp.asarray(z[k], pred.dtype) for k in ("gt_offsets", "reg_weights")
            )
            refined = outputs.refined.reshape(wanted.shape)
            terms["refine"] = losses.weighted_smooth_l1(refined, wanted, weight)
        return {
            name: FACTORS[name] * jnp.sum(v * w) / jnp.maximum(jnp.sum(w), 1)
            for name, (v, w) in terms.items()
        }

    def loss(self, params, stats, frozen=False):
        """Total, and (terms, outputs, statistics)."""
        variables = {"params": params, "batch_stats": stats}
        steps = [published.frozen_norms] if frozen else []
        with nn.intercept_methods(published.one_backbone):
            for step in steps:
                with nn.intercept_methods(step):
                    outputs, changed = self.apply(variables)
                    break
            else:
                outputs, changed = self.apply(variables)
        terms = self.terms(outputs)
        return sum(terms.values()), (terms, outputs, changed["batch_stats"])

    def apply(self, variables):
        return self.model.apply(
            variables,
            self.inputs,
            train=True,
            proposals=self.proposals,
            mutable=["batch_stats"],
        )


def squares_by_name(training, tree):
    names = published.torch_names(training.golden, training.name, training.variables)
    pairs = zip(jax.tree.leaves(names["params"]), jax.tree.leaves(tree), strict=True)
    return {name: float(np.linalg.norm(np.ravel(x))) for name, x in pairs}
