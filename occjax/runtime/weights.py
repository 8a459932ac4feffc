"""Torch checkpoints to Flax variables, by a table that must account for every array.

    rows = pinet.TORCH_NAMES  # rows as described in occjax/nn/torch_names.py
    shapes = jax.eval_shape(model.init, key, inputs)  # "params" and "batch_stats"
    variables = convert(state_dict, rows, shapes)

Arrays are NumPy's: `{name: tensor.numpy() for name, tensor in state_dict.items()}`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from occjax.errors import UserError

_Leaf = tuple[str, ...]  # collection, then the path of the array

# kind -> last part of the torch name -> (collection, leaf); None is left out.
_LEAVES: dict[str, dict[str, tuple[str, str] | None]] = {
    "conv": {"weight": ("params", "kernel"), "bias": ("params", "bias")},
    "norm": {
        "weight": ("params", "scale"),
        "bias": ("params", "bias"),
        "running_mean": ("batch_stats", "mean"),
        "running_var": ("batch_stats", "var"),
        "num_batches_tracked": None,
    },
}
_LEAVES["linear"] = _LEAVES["pointwise"] = _LEAVES["conv"]


def convert(
    state_dict: Mapping[str, np.ndarray],
    rows: Iterable[tuple[str, str, str]],
    shapes: Mapping[str, Any],
) -> dict[str, Any]:
    """Renames and transposes the arrays of a torch checkpoint.

    Args:
        state_dict: torch name -> array.
        rows: (pattern, target, kind); the first row that matches a name decides.
        shapes: the model's variables, or their shapes and dtypes from `jax.eval_shape`.

    Returns:
        Nested dict of NumPy arrays with the structure, shapes and dtypes of `shapes`.

    Raises:
        UserError: some name of the checkpoint matches no row or leads to no variable,
            some variable is not filled, or some shape differs; all are listed.
    """
    compiled = [(re.compile(pattern), *rest) for pattern, *rest in rows]
    wanted = _flatten(shapes)
    found: dict[_Leaf, np.ndarray] = {}
    problems = []
    for name, array in state_dict.items():
        try:
            placed = _place(name, np.asarray(array), compiled)
        except LookupError:
            problems.append(f"{name} matches no row")
            continue
        if placed is None:
            continue
        leaf, array = placed
        if leaf not in wanted:
            problems.append(f"{name} leads to {'/'.join(leaf)}, which does not exist")
        elif leaf in found:
            problems.append(f"{name} fills {'/'.join(leaf)} a second time")
        elif array.shape != wanted[leaf].shape:
            problems.append(
                f"{name} gives {'/'.join(leaf)} the shape {array.shape}, "
                f"expected {tuple(wanted[leaf].shape)}"
            )
        found[leaf] = array
    problems += [f"{'/'.join(leaf)} is missing" for leaf in wanted.keys() - found]
    if problems:
        raise UserError(
            f"weights: {len(problems)} arrays do not fit the model: "
            + "; ".join(sorted(problems))
        )
    return _unflatten({leaf: found[leaf].astype(wanted[leaf].dtype) for leaf in wanted})


def _place(
    name: str, array: np.ndarray, rows: list[Any]
) -> tuple[_Leaf, np.ndarray] | None:
    """Where an array goes and in which layout; None where it is left out.

    Raises:
        LookupError: no row matches.
    """
    module, _, last = name.rpartition(".")
    for pattern, target, kind in rows:
        if kind in ("keep", "drop"):
            if match := pattern.fullmatch(name):
                path = ("params", *match.expand(target).split("/"))
                return (path, array) if kind == "keep" else None
        elif (match := pattern.fullmatch(module)) and last in _LEAVES[kind]:
            leaf = _LEAVES[kind][last]
            if leaf is None:
                return None
            path = (leaf[0], *match.expand(target).split("/"), leaf[1])
            return path, _to_flax(array, kind) if leaf[1] == "kernel" else array
    raise LookupError(name)


def _to_flax(kernel: np.ndarray, kind: str) -> np.ndarray:
    """Torch puts output channels first, Flax last."""
    if kind == "pointwise":
        kernel = kernel[..., 0]  # [O, I, 1] -> [O, I]
    return np.moveaxis(kernel, (0, 1), (-1, -2))  # [O, I, ...] -> [..., I, O]


def _flatten(tree: Any, path: _Leaf = ()) -> dict[_Leaf, Any]:
    """Nested mappings -> path -> leaf."""
    if not isinstance(tree, Mapping):
        return {path: tree}
    return {
        leaf: value
        for key, subtree in tree.items()
        for leaf, value in _flatten(subtree, (*path, key)).items()
    }


def _unflatten(leaves: Mapping[_Leaf, Any]) -> dict[str, Any]:
    """The inverse of `_flatten`."""
    tree: dict[str, Any] = {}
    for (*parents, last), value in leaves.items():
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree
