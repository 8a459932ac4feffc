"""The least that keeps the method contract: tests of the runtime train it in seconds.

It looks at the mean of every colour and says where the first person's joints are.
`install()` makes it available as method "tiny".
"""

import importlib.machinery
import sys
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from occjax.skeletons import Skeleton
from occjax.types import Array, Batch, Inputs, Labels, Poses


class Outputs(NamedTuple):
    joints: Array  # [B, J, 2] input pixels
    score: Array  # [B]


class Model(nn.Module):
    skeleton: Skeleton
    features: int = 8
    rate: float = 0.0  # of dropout
    dtype: Any = jnp.float32

    def __post_init__(self):
        if self.features < 1:
            raise ValueError(f"features: expected >= 1, got {self.features}.")
        super().__post_init__()

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool) -> Outputs:
        x = inputs.image.astype(self.dtype) / 255
        for i in range(2):
            x = nn.Conv(self.features, (3, 3), 2, dtype=self.dtype, name=f"conv{i}")(x)
            norm = nn.BatchNorm(not train, dtype=jnp.float32, name=f"bn{i}")
            x = nn.relu(norm(x.astype(jnp.float32)).astype(self.dtype))
        x = nn.Dropout(self.rate, deterministic=not train)(x)
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        joints = self.skeleton.num_joints
        x = nn.Dense(2 * joints + 1, name="head")(x)
        where = x[:, :-1].reshape(-1, joints, 2) * inputs.image.shape[1]
        return Outputs(where, nn.sigmoid(x[:, -1]))


def loss_terms(model: Model, outputs: Outputs, labels: Labels) -> dict:
    del model
    first = labels.joints[:, 0]
    seen = (labels.visibility[:, 0] > 0).astype(first.dtype)
    error = jnp.mean(jnp.square((outputs.joints - first) / 32), axis=-1)
    there = (labels.area[:, 0] > 0).astype(first.dtype)
    score = jnp.square(outputs.score - there)
    return {"joints": (error, seen), "score": (score, jnp.ones_like(score))}


def decode(model: Model, outputs: Outputs, inputs: Inputs) -> Poses:
    del model
    matrix = inputs.to_source
    joints = jnp.einsum("bxy,bjy->bjx", matrix[:, :, :2], outputs.joints)
    joints = joints + matrix[:, None, :, 2]
    score = outputs.score[:, None]
    per_joint = jnp.broadcast_to(score[:, :, None], (*score.shape, joints.shape[1]))
    return Poses(joints[:, None], per_joint, per_joint, per_joint, score)


def install() -> None:
    name = "occjax.methods.tiny"
    this = sys.modules[__name__]
    if name not in sys.modules:
        this.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = this


def config(**changes: Any) -> ConfigDict:
    values = ConfigDict(
        dict(
            method="tiny",
            seed=0,
            steps=6,
            batch_size=8,
            eval_every=4,
            checkpoint_every=2,
            log_every=1,
            dtype="float32",
            init_from="",
            trainable="",
            state_shards=1,
            accumulate=1,
            norm_group=0,
            data=dict(
                dataset="crowd",
                dir="datasets",
                split="train",
                eval_split="test",
                size=32,
                max_persons=4,
                eval_images=8,
                threads=1,
                augment=dict(scale=(0.9, 1.1), rotate=9.0, translate=0.1, flip=0.5),
                crowd=dict(size=(32, 32), people=(1, 2), overlap="crowdpose"),
            ),
            model=dict(features=8),
            loss=dict(joints=1.0, score=0.1),
            optim=dict(
                name="adam",
                lr=1e-2,
                clip=0.0,
                ema=0.0,
                schedule=dict(name="constant"),
            ),
        )
    )
    values.update_from_flattened_dict(changes)
    return values.lock()


def batch(rng: np.random.Generator, size: int = 8, side: int = 32) -> Batch:
    """A random batch of `size` images with two people each and two padded rows."""
    joints = rng.uniform(0, side, (size, 4, 17, 2)).astype(np.float32)
    there = np.arange(4) < 2
    return Batch(
        Inputs(
            image=rng.integers(0, 256, (size, side, side, 3), np.uint8),
            valid=np.full((size, 2), side, np.int32),
            to_source=np.tile(np.eye(2, 3, dtype=np.float32), (size, 1, 1)),
        ),
        Labels(
            joints=joints * there[:, None, None],
            visibility=np.where(
                there[:, None], rng.integers(0, 3, (size, 4, 17)), 0
            ).astype(np.uint8),
            area=np.where(there, 400.0, 0.0).astype(np.float32) + np.zeros((size, 1)),
            ignore=np.zeros((size, side // 4, side // 4), bool),
            head_size=np.zeros((size, 4), np.float32),
        ),
        np.arange(size, dtype=np.int64),
    )


def get_config(variant: str = "") -> ConfigDict:
    """This file is also an experiment: --config tests/tiny_method.py."""
    if variant:
        raise ValueError(f"there is no variant {variant!r}")
    return config()
