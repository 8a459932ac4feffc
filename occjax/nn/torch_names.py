"""Rows that say where the weights of a torch checkpoint go in a Flax model.

A module that reproduces a published network keeps a table `TORCH_NAMES` beside it: rows
(pattern, target, kind) that `occjax.runtime.weights.convert` applies, first match wins.

- pattern: regular expression that matches a torch *module* name in full, so without
  the last part (`.weight`, `.running_mean`, ...); for kinds "keep" and "drop" the
  whole name.
- target: path of the Flax module, parts joined by "/", with groups as in `re.sub`; for
  "keep" the path of the parameter itself; for "drop" empty.
- kind: "conv" (2-D), "pointwise" (1-D convolution of size 1 -> Dense), "linear",
  "norm" (batch norm), "keep" (one array, unchanged), "drop" (not part of our model).
  "conv?" and "norm?" are dropped where the model lacks their module.
"""

import re

Row = tuple[str, str, str]  # pattern, target, kind


def prefixed(rows: tuple[Row, ...], torch: str, flax: str) -> tuple[Row, ...]:
    """The rows of a part, for the model that contains it.

    Args:
        rows: table of the part.
        torch: what precedes the part's names in the checkpoint, "backbone." for one.
        flax: path of the part in our model, "backbone" for one.
    """
    return tuple(
        (re.escape(torch) + pattern, f"{flax}/{target}" if target else "", kind)
        for pattern, target, kind in rows
    )
