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

    The mesh has two axes, "data" and "model". Where the second is longer than 1, each
    device along it keeps its share of every kernel, and of what the optimiser keeps of
    it; shares are gathered where the step needs them. Batches are split over both axes.
    """

    mesh: Mesh

    @classmethod
    def create(cls, state_shards: int = 1) -> "Layout":
        """Layout over every device of every process.

        Args:
            state_shards: length of the axis "model".

        Raises:
            UserError: it does not divide the devices.
        """
        devices = jax.device_count()
        if state_shards < 1 or devices % state_shards:
            raise UserError(
                f"config.state_shards: expected a divisor of the {devices} devices, "
                f"got {state_shards}."
            )
        # Auto axes: with Explicit ones a convolution of a split batch does not trace.
        axes = (AxisType.Auto, AxisType.Auto)
        shape = (devices // state_shards, state_shards)
        return cls(jax.make_mesh(shape, ("data", "model"), axis_types=axes))

    @property
    def batch(self) -> NamedSharding:
        """The first axis is split over the devices."""
        return NamedSharding(self.mesh, PartitionSpec(("data", "model")))

    @property
    def replicated(self) -> NamedSharding:
        """Every device holds all of it."""
        return NamedSharding(self.mesh, PartitionSpec())

    def of_state(self, state: Any) -> Any:
        """The sharding of each array of a state, in the same tree.

        Kernels, which is all with two axes or more, are split along their longest axis
        where the shares come out even. The rest weighs nothing and is replicated.
        """
        shards = self.mesh.shape["model"]

        def sharding(x: Any) -> NamedSharding:
            axis = int(np.argmax(x.shape)) if x.ndim > 1 else None
            if axis is None or shards == 1 or x.shape[axis] % shards:
                return self.replicated
            return NamedSharding(self.mesh, PartitionSpec(*[None] * axis, "model"))

        return jax.tree.map(sharding, state)

    def check_batch_size(self, batch_size: int) -> None:
        """Raises UserError where the global batch cannot be split evenly."""
        devices = self.mesh.size
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

    def place_state(self, state: Any) -> Any:
        """A state that all processes hold alike (NumPy) -> onto the devices."""

        def place(x: Any, sharding: NamedSharding) -> jax.Array:
            x = np.asarray(x)
            return jax.make_array_from_callback(x.shape, sharding, lambda at: x[at])

        return jax.tree.map(place, state, self.of_state(state))

    def arrange_state(self, state: Any) -> Any:
        """A state that lies on the devices somehow -> as `of_state` says."""
        return jax.device_put(state, self.of_state(state))

    def gather(self, tree: Any) -> Any:
        """Arrays of a state -> one copy on every device."""
        return jax.device_put(tree, self.replicated)


def _place(tree: Any, sharding: NamedSharding) -> Any:
    def place(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_process_local_data(sharding, x)

    return jax.tree.map(place, tree)
