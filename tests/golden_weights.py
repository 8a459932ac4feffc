"""Rebuilds the weights of the reference figures from the rule in their README."""

import functools
import json
import pathlib
import zlib

import numpy as np

GAIN_KINDS = ("conv", "linear", "graphconv", "weight", "weight_T")


def generate(manifest: dict) -> dict[str, np.ndarray]:
    """Torch name -> float32 array, checked against `weight_check` if there is one."""
    weights = {
        name: _value(name, tuple(shape), kind, manifest["g"])
        for name, shape, kind in manifest["entries"]
        if not name.endswith("num_batches_tracked")
    }
    check = manifest.get("weight_check")
    if check is None:
        return weights
    for name, sample in check["samples"].items():
        first = weights[name].ravel()[: len(sample["first"])]
        np.testing.assert_array_equal(first, np.float32(sample["first"]), name)
    made = {name for name, _, kind in manifest["entries"] if kind != "const"}
    squares = sum(
        np.sum(np.square(array, dtype=np.float64))
        for name, array in weights.items()
        if name in made
    )
    np.testing.assert_allclose(squares, check["total_sum_sq"], rtol=1e-9)
    return weights


@functools.lru_cache(maxsize=2)
def load(
    folder: pathlib.Path, part: str | None = None
) -> tuple[dict, dict[str, np.ndarray]]:
    """The manifest of a folder of reference figures and its weights.

    Some manifests describe several networks: `part` names one.
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    if part is not None:
        manifest = {"g": manifest["g"], **manifest[part]}
    return manifest, generate(manifest)


def _value(name: str, shape: tuple[int, ...], kind: str, gain: float) -> np.ndarray:
    if kind == "const":  # DEKR's grid of taps: rows, then columns
        return np.stack(np.mgrid[-1:2, -1:2]).reshape(shape).astype(np.float32)
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    z = rng.standard_normal(shape)
    if kind in GAIN_KINDS:
        transposed = kind == "weight_T"  # (in, out, height, width)
        fan_in = np.prod(shape[1:]) * (shape[0] / shape[1] if transposed else 1)
        z *= np.sqrt(2 / fan_in) * gain
    else:
        z = {
            "bn_weight": lambda: 1 + 0.1 * z,
            "bn_bias": lambda: 0.1 * z,
            "bn_mean": lambda: 0.1 * z,
            "bn_var": lambda: np.exp(0.2 * z),
            "bias": lambda: 0.01 * z,
            "other": lambda: 0.1 * z,
        }[kind]()
    return z.astype(np.float32)
