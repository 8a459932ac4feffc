"""One paper or baseline per file: `Model`, `loss_terms` and `decode`.

A method file defines

- `Model`, a linen module: `__call__(inputs, *, train)` returns a NamedTuple;
- `loss_terms(model, outputs, labels)`: name -> (values, weights), float32, unreduced;
- `decode(model, outputs, inputs)`: outputs -> Poses in source pixels, inside jit;
- optionally `proposals(model, labels)`: where training asks the model for poses. Its
  result is handed to `__call__` as the keyword `proposals`. It says where to look,
  never what is there;
- optionally `suppress(model, poses, area)`: for methods that see a person a crop, the
  scores of all poses of an image, -inf for those that another one makes superfluous.
- optionally `PUBLISHED` and `PRETRAINED`: name of a backbone -> table of the names that
  files of the whole model, and of the backbone alone, have; see nn/torch_names.py.

`model` is the unbound module: its fields are the method's settings.
"""

import importlib
import importlib.util
import types

CONTRACT = ("Model", "loss_terms", "decode")


def load(name: str) -> types.ModuleType:
    """Imports `occjax/methods/NAME.py` and checks that it keeps the contract.

    Raises:
        ValueError: there is no such file, or it lacks one of the three names.
    """
    known = name.isidentifier() and importlib.util.find_spec(f"{__name__}.{name}")
    if not known:
        raise ValueError(f"method: {name!r} is no file of occjax/methods.")
    method = importlib.import_module(f"{__name__}.{name}")
    missing = [part for part in CONTRACT if not hasattr(method, part)]
    if missing:
        raise ValueError(f"occjax/methods/{name}.py lacks {', '.join(missing)}.")
    return method
