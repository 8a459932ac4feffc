"""Experiment files `configs/NAME.py[:VARIANT]` and their `--config.KEY=VALUE` changes.

A file has `get_config(variant="")`, which returns a ConfigDict and raises ValueError
for a variant that it lacks. Every mistake a user can make gives one UserError line.
"""

import ast
import difflib
import functools
import json
import operator
import os
import pathlib
import re
import runpy
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from occjax import files
from occjax.errors import UserError

# How a step is computed, and the values where a config lacks a key: older runs do.
COMPUTING = {
    "state_shards": 1,  # devices that share one copy of parameters and optimiser
    "accumulate": 1,  # parts of a batch that are computed one after the other
    "norm_group": 0,  # images whose batch statistics are taken together; 0: all
}
# What a continued run may change: how long it is, how it reports, where its files lie,
# how it lies on its devices.
MAY_CHANGE = (
    r"steps|eval_every|checkpoint_every|log_every|state_shards"
    r"|data\.(dir|threads|eval_dataset|eval_split|eval_images)"
)
_FLAGS = ("config", "against")  # of experiments; most commands have the first alone


def define_flag(
    flag: str = "config", purpose: str = "Experiment to run"
) -> flags.FlagHolder[Any]:
    """Declares `--config` with its `--config.KEY=VALUE` overrides; keys are locked."""
    return config_flags.DEFINE_config_file(
        flag,
        None,
        f"{purpose}: configs/NAME.py or configs/NAME.py:VARIANT. Any key in it can be "
        f"changed by --{flag}.KEY=VALUE, for instance --{flag}.optim.lr=1e-4.",
    )


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses a command line and returns what is no flag.

    Raises:
        UserError: an unknown flag, config key, file or variant, or a wrong type.
    """
    for flag in _FLAGS:
        spec = _flag_value(argv, flag)
        if flag in flags.FLAGS and spec is not None:
            _check_overrides(load(spec, flag), flag, argv)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(_first_line(error)) from error


def load(spec: str, flag: str = "config") -> ConfigDict:
    """Reads `configs/NAME.py` or `configs/NAME.py:VARIANT`; the result is locked.

    Messages name the flag that gave it.

    Raises:
        UserError: there is no such file or variant, or it defines no get_config.
    """
    path, _, variant = spec.partition(":")
    if not os.path.isfile(path):
        raise UserError(f"--{flag}: there is no file {path}.{_other_configs(path)}")
    get_config = runpy.run_path(path).get("get_config")
    if get_config is None:
        raise UserError(f"--{flag}: {path} defines no get_config(variant).")
    try:
        return get_config(variant).lock()
    except ValueError as error:
        raise UserError(f"--{flag}={spec}: {_first_line(error)}") from error


def run_name() -> str:
    """Name of the experiment that `--config` gave: NAME or NAME-VARIANT."""
    spec = config_flags.get_config_filename(flags.FLAGS["config"])
    path, _, variant = spec.partition(":")
    stem = pathlib.Path(path).stem
    return f"{stem}-{variant}" if variant else stem


def write(config: ConfigDict, path: epath.PathLike) -> None:
    """Leaves the resolved config as JSON, for people and for `read`."""
    files.write_json(path, as_json(config), 2)


def read(path: epath.PathLike) -> ConfigDict:
    """Config that `write` left; its lists are tuples again.

    Raises:
        UserError: there is no such file, or it is no JSON.
    """
    try:
        return from_json(json.loads(epath.Path(path).read_text()))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; is this the folder of a run?") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: damaged, no JSON ({error}).") from error


def as_json(config: ConfigDict) -> dict[str, Any]:
    """Config as nested dicts of JSON values."""
    return json.loads(json.dumps(config.to_dict()))


def from_json(values: dict[str, Any]) -> ConfigDict:
    """Inverse of `as_json`, locked."""
    return ConfigDict(_tuples(values)).lock()


def data_settings(config: ConfigDict) -> dict[str, Any]:
    """`config.data` and `config.occlusion` as the input pipeline wants them."""
    return {**config.data.to_dict(), "occlusion": config.get("occlusion", ())}


def computing(config: ConfigDict, key: str) -> int:
    """How a step is computed: the value of a key of COMPUTING."""
    return config.get(key, COMPUTING[key])


def input_shape(config: ConfigDict) -> tuple[int, ...]:
    """Height, width and channels of an input: `data.size` is one of them or both.

    A view of all people of an image has `data.max_persons` such crops.
    """
    size = config.data.size
    height, width = (size, size) if isinstance(size, int) else size
    people = config.data.get("view", "image") == "people"
    return (*((config.data.max_persons,) if people else ()), height, width, 3)


def change(config: ConfigDict, assignment: str) -> None:
    """Sets what `KEY=VALUE` says, as `--config.KEY=VALUE` does.

    Raises:
        UserError: there is no such key, or the value is of another type.
    """
    key, given, text = assignment.partition("=")
    path, _, name = key.rpartition(".")
    if not given or not _has(config, key):
        raise UserError(
            f"--set={assignment}: expected KEY=VALUE with a key of the run."
        )
    parent = functools.reduce(operator.getitem, path.split(".") if path else (), config)
    old = parent[name]
    try:
        new = text if isinstance(old, str) else ast.literal_eval(text)
        with config.unlocked():
            parent[name] = new
    except (ValueError, SyntaxError, TypeError) as error:
        raise UserError(
            f"--set={assignment}: expected {type(old).__name__}, got {text!r}."
        ) from error


def check_resumable(saved: ConfigDict, asked: ConfigDict) -> None:
    """Refuses to continue a run under a config that would make it another run.

    Raises:
        UserError: keys differ that do not match MAY_CHANGE; the line names them.
    """
    old, new = (COMPUTING | dict(leaves(as_json(x))) for x in (saved, asked))
    changed = [
        f"{key} (was {old.get(key)!r}, now {new.get(key)!r})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not re.fullmatch(MAY_CHANGE, key)
    ]
    if changed:
        raise UserError(
            f"config: the run to continue had another {', '.join(changed)}; "
            "choose a new --workdir or restore the old values."
        )


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in nested dicts that is no dict."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_overrides(config: ConfigDict, flag: str, argv: Sequence[str]) -> None:
    """Names the first `--FLAG.KEY` that the config lacks, and the nearest it has."""
    known = [key for key, _ in leaves(config.to_dict())]
    for argument in argv:
        match = re.match(rf"--?(?:no)?{flag}\.([^=]+)", argument)
        if match is None or _has(config, match[1]):
            continue
        key = match[1]
        by_last = {other.rpartition(".")[2]: other for other in known}
        near = difflib.get_close_matches(key, known, 1)
        near = near or difflib.get_close_matches(key.rpartition(".")[2], by_last, 1)
        hint = f" Did you mean {by_last.get(near[0], near[0])}?" if near else ""
        raise UserError(f"--{flag}.{key}: the config has no such key.{hint}")


def _has(config: ConfigDict, key: str) -> bool:
    """Whether a dotted key leads somewhere; `key[0]` indexes a tuple."""
    here: Any = config
    for part in re.sub(r"\[.*?\]", "", key).split("."):
        if not isinstance(here, ConfigDict) or part not in here:
            return False
        here = here[part]
    return True


def _flag_value(argv: Sequence[str], flag: str) -> str | None:
    """Value of `--flag=value` or `--flag value`, before flags are parsed."""
    for i, argument in enumerate(argv):
        if argument in (f"--{flag}", f"-{flag}") and i + 1 < len(argv):
            return argv[i + 1]
        if argument.startswith((f"--{flag}=", f"-{flag}=")):
            return argument.partition("=")[2]
    return None


def _other_configs(path: str) -> str:
    """Hint at the files that lie where the missing one should."""
    folder = pathlib.Path(path).parent
    names = sorted(file.name for file in folder.glob("*.py")) if folder.is_dir() else []
    return f" {folder} has {', '.join(names)}." if names else ""


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
