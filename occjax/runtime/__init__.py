"""How a job runs: mesh, step, optimiser, checkpoints, metrics."""
