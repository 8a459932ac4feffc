"""Torch checkpoints to Flax variables, by a table that must account for every array.

In, and exactly the same out again:

    rows = pinet.TORCH_NAMES  # rows as described in occjax/nn/torch_names.py
    shapes = step.variable_shapes(model, image_shape)
    state_dict = weight_files.read("model.pth")  # name -> NumPy array
    variables = convert(state_dict, rows, shapes)
    state_dict = revert(variables, rows)
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from occjax.errors import UserError

Rows = Sequence[tuple[str, str, str]]  # see occjax/nn/torch_names.py
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
_LEAVES["linear"] = _LEAVES["pointwise"] = _LEAVES["conv?"] = _LEAVES["conv"]
_LEAVES["norm?"] = _LEAVES["norm"]


def convert(
    state_dict: Mapping[str, np.ndarray],
    rows: Rows,
    shapes: Mapping[str, Any],
    pattern: str = "",
    place: Callable[[np.ndarray], Any] = np.asarray,
) -> dict[str, Any]:
    """Renames and transposes the arrays of a torch checkpoint.

    Args:
        state_dict: torch name -> array.
        rows: (pattern, target, kind); the first row that matches a name decides.
        shapes: the model's variables, or their shapes and dtypes from `jax.eval_shape`.
        pattern: regular expression; variables whose path lacks it are left out.
        place: what becomes of each array at once; it may put it on the devices.

    Returns:
        Nested dict of what `place` gives, structure, shapes and dtypes as in `shapes`.

    Raises:
        UserError: some name of the checkpoint matches no row or leads to no variable,
            some variable is not filled, some shape differs, or an array is no float or
            narrower than its variable; all are listed.
    """
    compiled = _compiled(rows)
    wanted = {x: v for x, v in _flatten(shapes).items() if _asked(x, pattern)}
    found: dict[_Leaf, Any] = {}
    problems, halves = [], []
    for name, array in state_dict.items():
        try:
            leaf, kind = _match(name, compiled)
        except LookupError:
            problems.append(f"{name} matches no row")
            continue
        if leaf is None or not _asked(leaf, pattern):
            continue
        if kind.endswith("?") and leaf not in wanted:
            continue
        array = _to_flax(np.asarray(array), kind, leaf)
        if array.dtype.itemsize == 2:
            halves.append(f"{name} is {array.dtype}")
        problem = _problem(name, array, leaf, wanted, found)
        if problem:
            problems.append(problem)
            found[leaf] = None
        else:  # at once, so that no more than one array is in memory twice
            found[leaf] = place(np.require(array, wanted[leaf].dtype, "C"))
    problems += [f"{'/'.join(leaf)} is missing" for leaf in wanted.keys() - found]
    if problems:
        raise UserError(
            f"weights: {len(problems)} arrays do not fit the model: "
            + "; ".join(sorted(problems))
        )
    if halves:
        raise UserError(
            f"weights: {len(halves)} arrays have been rounded to 16 bits, the first "
            f"({halves[0]}); expected float32; `occjax.convert --widen` takes them."
        )
    return _unflatten({leaf: found[leaf] for leaf in wanted})


def revert(variables: Mapping[str, Any], rows: Rows) -> dict[str, np.ndarray]:
    """The inverse of `convert`: variables under their torch names, in torch's layout.

    What a table drops cannot come back, nor the counters `num_batches_tracked`, which
    torch does without.

    Args:
        variables: "params" and "batch_stats" of a model.
        rows: the table that `convert` takes.

    Raises:
        UserError: the table leads to some variable from no name; all are listed.
    """
    compiled = _compiled(rows)
    ways = [way for way in map(_inverse, rows) if way is not None]
    state_dict, problems = {}, []
    for leaf, value in _flatten(variables).items():
        names = (name for way in ways for name in way(leaf))
        named = next((x for x in names if _leads(x, compiled, leaf)), None)
        if named is None:
            problems.append("/".join(leaf))
        else:
            kind = _match(named, compiled)[1]
            state_dict[named] = _to_torch(np.asarray(value), kind, leaf)
    if problems:
        raise UserError(
            f"weights: {len(problems)} variables have no torch name: "
            + "; ".join(sorted(problems))
        )
    return dict(sorted(state_dict.items()))


def listing(state_dict: Mapping[str, np.ndarray], rows: Rows) -> list[tuple[str, ...]]:
    """What `convert` makes of each array: name, variable, shape in torch, kind."""
    compiled, lines = _compiled(rows), []
    for name, array in state_dict.items():
        try:
            leaf, kind = _match(name, compiled)
        except LookupError:
            leaf, kind = None, "no row"
        shape = "x".join(map(str, np.shape(array))) or "1"
        lines.append((name, "/".join(leaf or ("-",)), shape, kind))
    return lines


def matching(names: Iterable[str], rows: Rows) -> int:
    """How many names match a row of a table."""
    compiled, count = _compiled(rows), 0
    for name in names:
        with contextlib.suppress(LookupError):
            _match(name, compiled)
            count += 1
    return count


def _compiled(rows: Rows) -> list[tuple[re.Pattern[str], str, str]]:
    return [(re.compile(pattern), target, kind) for pattern, target, kind in rows]


def _asked(leaf: _Leaf, pattern: str) -> bool:
    return re.search(pattern, "/".join(leaf[1:])) is not None


def _problem(
    name: str,
    array: np.ndarray,
    leaf: _Leaf,
    wanted: Mapping[_Leaf, Any],
    found: Mapping[_Leaf, Any],
) -> str | None:
    """Why an array cannot have its place, if it cannot."""
    path = "/".join(leaf)
    if leaf not in wanted:
        return f"{name} leads to {path}, which does not exist"
    if leaf in found:
        return f"{name} fills {path} a second time"
    if array.shape != wanted[leaf].shape:
        return (
            f"{name} gives {path} the shape {array.shape}, "
            f"expected {tuple(wanted[leaf].shape)}"
        )
    if array.dtype.kind in "iub":
        return f"{name} is {array.dtype}, expected {wanted[leaf].dtype}"
    return None


def _match(name: str, rows: list[Any]) -> tuple[_Leaf | None, str]:
    """Where an array goes, None where it is left out; and the kind of its row.

    Raises:
        LookupError: no row matches.
    """
    module, _, last = name.rpartition(".")
    for pattern, target, kind in rows:
        if kind in ("keep", "drop"):
            if match := pattern.fullmatch(name):
                path = ("params", *match.expand(target).split("/"))
                return (path if kind == "keep" else None), kind
        elif (match := pattern.fullmatch(module)) and last in _LEAVES[kind]:
            leaf = _LEAVES[kind][last]
            if leaf is None:
                return None, "drop"
            return (leaf[0], *match.expand(target).split("/"), leaf[1]), kind
    raise LookupError(name)


def _to_flax(array: np.ndarray, kind: str, leaf: _Leaf) -> np.ndarray:
    """Torch puts output channels first, Flax last."""
    if kind == "keep" or leaf[-1] != "kernel":
        return array
    if kind == "pointwise":
        array = array[..., 0]  # [O, I, 1] -> [O, I]
    return np.moveaxis(array, (0, 1), (-1, -2))  # [O, I, ...] -> [..., I, O]


def _to_torch(array: np.ndarray, kind: str, leaf: _Leaf) -> np.ndarray:
    """The inverse of `_to_flax`."""
    if kind == "keep" or leaf[-1] != "kernel":
        return array
    array = np.moveaxis(array, (-1, -2), (0, 1))
    return array[..., None] if kind == "pointwise" else array


def _leads(name: str, rows: list[Any], leaf: _Leaf) -> bool:
    with contextlib.suppress(LookupError):
        return _match(name, rows)[0] == leaf
    return False


_Way = Callable[[_Leaf], Iterator[str]]  # a variable -> torch names that may lead there


def _inverse(row: tuple[str, str, str]) -> _Way | None:
    """A row read backwards; None if it cannot be, or drops what it matches."""
    pattern, target, kind = row
    backwards = None if kind == "drop" else _backwards(pattern, target)
    if backwards is None:
        return None
    path_pattern, pieces = backwards

    def names(leaf: _Leaf) -> Iterator[str]:
        path = leaf[1:] if kind == "keep" else leaf[1:-1]
        if not (match := path_pattern.fullmatch("/".join(path))):
            return
        name = "".join(match[p] if isinstance(p, int) else p for p in pieces)
        if kind == "keep":
            yield name
            return
        for last, ours in _LEAVES[kind].items():
            if ours == (leaf[0], leaf[-1]):
                yield f"{name}.{last}" if name else last

    return names


def _backwards(
    pattern: str, target: str
) -> tuple[re.Pattern[str], list[str | int]] | None:
    """A target as a pattern, and what its groups then give: text and group numbers.

    That needs a pattern of plain text and groups, all of which the target has.
    """
    parts = re.split(r"(\([^()]*\))", pattern)  # text, group, text, ..., text
    texts, groups = parts[::2], parts[1::2]
    if any(re.search(r"(?<!\\)[][.*+?{}^$|()]|\\\w", text) for text in texts):
        return None
    if any(group.startswith("(?") for group in groups):
        return None
    order: list[int] = []  # group of the pattern -> its place in the target
    made = []
    for i, piece in enumerate(re.split(r"\\(\d)", target)):
        if i % 2 == 0:
            made.append(re.escape(piece))
        elif int(piece) in order:
            made.append(f"\\{order.index(int(piece)) + 1}")
        else:
            order.append(int(piece))
            made.append(groups[int(piece) - 1])
    if sorted(order) != list(range(1, len(groups) + 1)):
        return None
    plain = [re.sub(r"\\(.)", r"\1", text) for text in texts]
    pieces: list[str | int] = [plain[0]]
    for number, text in enumerate(plain[1:], start=1):
        pieces += [order.index(number) + 1, text]
    return re.compile("".join(made)), pieces


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
