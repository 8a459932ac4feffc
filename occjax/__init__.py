"""Human pose estimation for people who are hidden, in JAX and Flax."""

__version__ = "0.1.0"
