"""Start values of models whose poses DAG's graph moves: its last layer is 0 there."""

import jax
import jax.numpy as jnp


def moving(state, by=0.05):
    """The same variables with a last layer that is `by` everywhere; none, no change."""
    params = state["params"]
    if "refiner" not in params:
        return state
    gcn = dict(params["refiner"]["gcn"])
    gcn["output"] = jax.tree.map(lambda x: jnp.full_like(x, by), gcn["output"])
    refiner = {**params["refiner"], "gcn": gcn}
    return {**state, "params": {**params, "refiner": refiner}}
