"""What documents claim, checked: links, commands, settings, paths, quoted errors."""

import ast
import functools
import json
import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from occjax.errors import UserError
from occjax.runtime import config as configs

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
EXAMPLE = "direct"  # the method that docs/new_method.md makes up
FOLDERS = "occjax|data_prep|configs|studies|launch|tests|docs"
# What --help, --verbosity and the like belong to: every command has them.
COMMON = {"help", "helpfull", "verbosity"}
_ASK = """
import importlib, json, sys
from absl import flags
found = {}
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    before = set(flags.FLAGS)
    module.define_flags()
    found[name] = {}
    for flag in set(flags.FLAGS) - before:
        holder = flags.FLAGS[flag]
        found[name][flag] = list(getattr(holder.parser, "enum_values", None) or [])
        if holder.boolean:
            found[name]["no" + flag] = []
        delattr(flags.FLAGS, flag)
print(json.dumps(found))
"""
_LEAST = 12  # characters of a message that a quotation must share with the source


class Code(NamedTuple):
    """The code of a page."""

    lines: list[str]  # of blocks; a command that goes over several is one
    spans: list[str]  # within sentences


def code_of(text: str) -> Code:
    """Blocks, fenced or indented, and spans; blocks of Python are no commands."""
    lines, prose, fence = [], [], None
    for line in text.splitlines():
        if line.startswith("```"):
            fence = line.strip("`").strip() if fence is None else None
        elif fence is not None:
            lines += [line] if fence != "python" else []
        elif line.startswith("    "):
            lines.append(line[4:])
        else:
            prose.append(line)
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    spans = re.findall(r"`([^`]+)`", "\n".join(prose))
    return Code(joined, [" ".join(span.split()) for span in spans])


def anchors(text: str) -> set[str]:
    """Names of a page's headings as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    heads = re.findall(r"^#+ +(.+?) *$", text, flags=re.M)
    plain = (re.sub(r"[^\w\s-]", "", head.lower()) for head in heads)
    return {head.replace(" ", "-") for head in plain}


def wrong_links(path: pathlib.Path, text: str) -> Iterator[str]:
    """Relative links of a page that lead nowhere."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = path.parent / name if name else path
        if name and not there.exists():
            yield f"{target}: no such file"
        elif anchor:
            other = there.read_text(encoding="utf-8") if name else text
            if anchor not in anchors(other):
                yield f"{target}: no such heading"


def wrong_commands(text: str) -> Iterator[str]:
    """Commands whose module, flags, configs or settings do not exist."""
    code = code_of(text)
    for line in [*code.lines, *code.spans]:
        match = re.search(r"(?:^|\s)((?:occjax|data_prep|studies)\.[a-z_]+)\b", line)
        started = match and re.search(r"python -m|local\.sh|docker run", line)
        if match is None or not started:
            continue
        try:
            words = shlex.split(line[match.start(1) :], comments=True)
        except ValueError as error:
            yield f"{line}: {error}"
            continue
        yield from (f"{line}: {why}" for why in _wrong_command(words))


def _wrong_command(words: list[str]) -> Iterator[str]:
    module, *rest = words
    known = flags_of().get(module)
    if known is None:
        yield f"there is no command {module}"
        return
    given = dict(_flags(rest))
    for flag, value in given.items():
        holder, _, key = flag.partition(".")
        if holder not in known and holder not in COMMON:
            yield f"{module} has no flag --{holder}"
        elif key and isinstance(loaded(given.get(holder, "")), ConfigDict):
            if not has(loaded(given[holder]), key):
                yield f"{given[holder]} has no key {key}"
        elif value.startswith("configs/") and isinstance(loaded(value), str):
            yield str(loaded(value))
        elif known.get(holder) and not value.isupper() and value not in known[holder]:
            yield f"--{holder} takes {known[holder]}, not {value}"


def _flags(words: list[str]) -> Iterator[tuple[str, str]]:
    """Each flag with its value; brackets around an optional one are no part of it."""
    for word, following in zip(words, [*words, ""][1:], strict=True):
        word = word[1:].rstrip("]") if word.startswith("[--") else word
        if word.startswith("--") and word != "--":
            name, equals, value = word[2:].partition("=")
            if name not in ("config.KEY", "against.KEY"):
                yield name, value if equals else following


@functools.cache
def flags_of() -> dict[str, dict[str, list[str]]]:
    """Module -> flag -> the values it takes, empty where any will do."""
    names = {
        f"{folder}.{path.stem}"
        for folder in ("occjax", "data_prep", "studies")
        for path in (ROOT / folder).glob("*.py")
        if re.search(r"^def define_flags\(\) -> None:", path.read_text(), re.M)
        and '__name__ == "__main__"' in path.read_text()
    }
    command = [sys.executable, "-c", _ASK, *sorted(names)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@functools.cache
def loaded(spec: str) -> ConfigDict | str | None:
    """The config, what is wrong with it, or None where the name is made up."""
    match = re.fullmatch(r"(configs/(\w+)\.py)(?:\[?:(\w+)\]?)?", spec)
    if match is None or match[2] == EXAMPLE or match[2].isupper():
        return None
    variant = match[3] or ""
    try:
        return configs.load(f"{match[1]}:{'' if variant.isupper() else variant}")
    except UserError as error:
        return str(error)


@functools.cache
def every_config() -> list[ConfigDict]:
    """All variants of all configs."""
    found = []
    for path in sorted((ROOT / "configs").glob("*.py")):
        found += variants(f"configs/{path.name}")
    return found


def variants(path: str) -> list[ConfigDict]:
    """All variants of a config, which it tells when asked for one it lacks."""
    said = loaded(f"{path}:none_such")
    names = re.findall(r"\w+", said.partition("there are ")[2]) if said else []
    both = (loaded(f"{path}:{name}") for name in ("", *names))
    return [one for one in both if isinstance(one, ConfigDict)]


def has(config: Any, key: str) -> bool:
    """Whether --config.KEY is accepted."""
    for part in re.sub(r"\[.*?\]$", "", key).split("."):
        if not isinstance(config, ConfigDict) or part not in config:
            return False
        config = config[part]
    return True


def wrong_settings(text: str, among: list[ConfigDict] | None = None) -> Iterator[str]:
    """Settings named in sentences that no config has; `among`: those to look at."""
    for span in code_of(text).spans:
        for key in re.findall(r"(?<!\S)--config\.([^=\s`]+)", span):
            among = every_config() if among is None else among
            if key != "KEY" and not any(has(config, key) for config in among):
                yield f"--config.{key}: no config has it"


def wrong_paths(text: str) -> Iterator[str]:
    """Files and configs named in code that are not there."""
    code = code_of(text)
    for line in [*code.lines, *code.spans]:
        if line.startswith("error:"):
            continue
        for spec in re.findall(r"configs/\w+\.py:[a-z]\w*", line):
            if isinstance(loaded(spec), str):
                yield str(loaded(spec))
        for name in re.findall(rf"(?<![\w/.-])(?:{FOLDERS})/[\w/.*-]*", line):
            made_up = re.search(rf"[A-Z]{{4}}|{EXAMPLE}|study-", name)
            if not made_up and not any(ROOT.glob(name.rstrip("./"))):
                yield f"{name}: no such file"


def wrong_targets(text: str) -> Iterator[str]:
    """`make` with targets that the Makefile lacks."""
    known = re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.M)
    code = code_of(text)
    for line in [*code.lines, *code.spans]:
        match = re.match(r"make +([\w-]+)", line)
        if match and match[1] not in known:
            yield f"make {match[1]}: no such target"


def wrong_errors(text: str) -> Iterator[str]:
    """Quoted errors that no source file raises; `...` stands for what is left out."""
    for line in code_of(text).lines:
        if line.startswith("error: "):
            said, cut, _ = line.removeprefix("error: ").partition("...")
            if not any(_says(parts, said, bool(cut)) for parts in messages()):
                yield f"{line}: nothing says so"


def _says(parts: tuple[str, ...], said: str, cut: bool) -> bool:
    """Whether the words of a message stand in order in a quotation."""
    at, shared = 0, 0
    for part in parts:
        found = said.find(part, at)
        if found < 0:
            return cut and shared >= _LEAST
        at, shared = found + len(part), shared + len(part)
    return shared >= _LEAST


@functools.cache
def messages() -> set[tuple[str, ...]]:
    """The fixed words of every string in the sources, those in between left out."""
    found = set()
    for folder in ("occjax", "data_prep", "configs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    values = [getattr(part, "value", None) for part in node.values]
                    found.add(tuple(v for v in values if isinstance(v, str)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add((node.value,))
    return found
