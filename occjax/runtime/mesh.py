"""Which devices work together, and how batches and state lie on them."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from occjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layout:
    """All devices of the job: batches are split over them, the state is replicated.

    The mesh has a second axis, "model", of size 1: the place to split parameters.
    """

    mesh: Mesh

    @classmethod
    def create(cls) -> "Layout":
        """Layout over every device of every process."""
        # Auto axes: with Explicit ones a convolution of a split batch does not trace.
        axes = (AxisType.Auto, AxisType.Auto)
        shape = (jax.device_count(), 1)
        return cls(jax.make_mesh(shape, ("data", "model"), axis_types=axes))

    @property
    def batch(self) -> NamedSharding:
        """The first axis is split over the devices."""
        return NamedSharding(self.mesh, PartitionSpec("data"))

    @property
    def replicated(self) -> NamedSharding:
        """Every device holds all of it."""
        return NamedSharding(self.mesh, PartitionSpec())

    def check_batch_size(self, batch_size: int) -> None:
        """Raises UserError where the global batch cannot be split evenly."""
        devices = self.mesh.shape["data"]
        if batch_size % devices:
            raise UserError(
                f"config.batch_size: {batch_size} images cannot be split evenly over "
                f"{devices} devices; use a multiple of {devices}."
            )

    def shard_batch(self, batch: Any) -> Any:
        """This process's share of a batch (NumPy pytree) -> the global batch."""
        return _place(batch, self.batch)

    def replicate(self, tree: Any) -> Any:
        """Values that all processes hold alike -> one copy on every device."""
        return _place(tree, self.replicated)


def _place(tree: Any, sharding: NamedSharding) -> Any:
    def place(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_process_local_data(sharding, x)

    return jax.tree.map(place, tree)
