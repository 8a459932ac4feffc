"""Records to padded batches: NumPy and OpenCV, never jax."""
