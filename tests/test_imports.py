"""The layout is kept: who imports whom, how long things are, what loads what."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAX_FILE, MAX_FUNCTION, MAX_TRAIN, MAX_MAIN = 400, 60, 120, 25

HOST = ("types", "skeletons", "errors", "files")

# Folder or file below occjax (or the root) -> what of the project it may import.
TABLE = {
    "occjax/types": (),
    "occjax/errors": (),
    "occjax/skeletons": (),
    "occjax/files": (),
    "occjax/ops": ("types", "skeletons"),
    "occjax/nn": ("ops", "types", "skeletons"),
    "occjax/methods": ("nn", "ops", "types", "skeletons"),
    "occjax/data": HOST,
    "occjax/evaluation": HOST,
    "occjax/draw": HOST,
    "occjax/scoring": (*HOST, "data", "draw", "evaluation"),
    "occjax/video": (*HOST, "draw", "evaluation"),
    "occjax/estimator": (*HOST, "data", "runtime"),
    "occjax/artefact": (),
    "occjax/runtime": ("types", "errors", "files", "ops", "skeletons"),
    "data_prep": (*HOST, "data", "evaluation", "draw"),
    "configs": (),
}
NO_JAX = ("occjax/types", "occjax/skeletons", "occjax/errors", "occjax/files")
NO_JAX = (
    *NO_JAX,
    "occjax/scoring",
    "occjax/data",
    "occjax/evaluation",
    "occjax/draw",
    "occjax/video",
    "data_prep",
)
# Imports that the folder's own rule does not allow, and why.
EXCEPTIONS = {
    ("occjax/runtime/step.py", "methods"),  # through methods.load alone
    ("occjax/runtime/cli.py", ""),  # the version
    ("data_prep/browse.py", "runtime"),  # reading configs
    ("data_prep/builder.py", ""),  # the version
}
EXTENDS = {"combined": {"occjax.methods.pinet"}}  # whose model it inherits
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}
HEAVY = ("cv2", "pycocotools", "faster_coco_eval", "tensorflow_datasets", "grain")
HEAVY = (*HEAVY, "matplotlib", "array_record")
FILES = sorted(
    path.relative_to(ROOT)
    for folder in ("occjax", "configs", "data_prep")
    for path in (ROOT / folder).rglob("*.py")
)
COMMANDS = [path.stem for path in FILES if str(path.parent) == "occjax"]
COMMANDS = [
    name for name in COMMANDS if name != "__init__" and f"occjax/{name}" not in TABLE
]


@functools.cache
def tree(path):
    return ast.parse((ROOT / path).read_text())


def imported(path):
    """Dotted names of everything a file imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def folder_of(path):
    """The row of TABLE that a file belongs to; commands have none."""
    name = str(path.with_suffix(""))
    rows = [row for row in TABLE if name == row or name.startswith(f"{row}/")]
    return rows[0] if rows else None


def top(name):
    """occjax.nn.hrnet.Backbone -> nn; occjax.__version__ -> ''."""
    first = name.split(".")[1] if "." in name else ""
    here = ROOT / "occjax" / first
    return first if here.is_dir() or here.with_suffix(".py").is_file() else ""


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_only_what_its_folder_may(path):
    folder = folder_of(path)
    if folder is None:
        pytest.skip("commands may import anything in occjax")
    for name in imported(path):
        project, _, _ = name.partition(".")
        if project == "occjax":
            other = top(name)
            allowed = (*TABLE[folder], folder.removeprefix("occjax/"))
            known = (str(path), other) in EXCEPTIONS
            assert known or other in allowed, f"{path} imports {name}"
        elif project in ("configs", "data_prep", "tests", "studies"):
            assert folder == project, f"{path} imports {name}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if folder_of(p) == "occjax/methods"], ids=str
)
def test_methods_do_not_import_one_another(path):
    named = {name for name in imported(path) if name.startswith("occjax.methods.")}
    assert named <= EXTENDS.get(path.stem, set())  # others ask `methods.load`


@pytest.mark.parametrize(
    "path", [p for p in FILES if folder_of(p) == "configs"], ids=str
)
def test_a_config_imports_little_more_than_numbers(path):
    allowed = ("ml_collections", "configs")
    assert {name.partition(".")[0] for name in imported(path)} <= set(allowed)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_nobody_imports_a_command(path):
    for name in imported(path):
        assert not (name.startswith("occjax.") and top(name) in COMMANDS), name


@pytest.mark.parametrize(
    "path", [p for p in FILES if (folder_of(p) or "") in NO_JAX], ids=str
)
def test_the_host_side_never_asks_for_jax(path):
    assert not JAX & {name.partition(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_and_functions_stay_short(path):
    lines = len((ROOT / path).read_text().splitlines())
    assert lines <= MAX_FILE, f"{path} has {lines} lines"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            limit = {"train": MAX_TRAIN, "main": MAX_MAIN}.get(node.name, MAX_FUNCTION)
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= limit, f"{path}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_public_name_is_documented(path):
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        inner = any(
            node in ast.walk(other)
            for other in ast.walk(tree(path))
            if isinstance(other, ast.FunctionDef) and other is not node
        )
        if not node.name.startswith("_") and not inner:
            assert ast.get_docstring(node), f"{path}: {node.name}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_random_numbers_come_from_a_generator_that_was_passed_in(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            if ast.unparse(node.value) in ("np.random", "numpy.random"):
                allowed = ("Generator", "default_rng", "Philox", "SeedSequence")
                assert node.attr in allowed, f"{path}: {ast.unparse(node)}"


def loaded_by(code):
    """Modules in memory after a fresh Python ran some code."""
    code = f"{code}\nimport sys; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.decode().split()}


def test_importing_the_package_loads_next_to_nothing():
    extra = loaded_by("import occjax") - loaded_by("")
    assert extra == {"occjax"}


def test_scoring_a_detections_file_loads_no_jax():
    assert not JAX & loaded_by("import occjax.evaluate")


def modules(folder):
    return [
        ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for path in FILES
        if folder_of(path) == folder
    ]


@pytest.mark.parametrize(
    "folder", ["occjax/ops", "occjax/nn", "occjax/methods", "occjax/runtime"]
)
def test_the_device_side_loads_no_image_or_data_library(folder):
    loaded = loaded_by("\n".join(f"import {name}" for name in modules(folder)))
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("folder", ["occjax/data", "occjax/evaluation", "occjax/draw"])
def test_the_host_side_loads_no_jax(folder):
    loaded = loaded_by("\n".join(f"import {name}" for name in modules(folder)))
    assert not loaded & JAX


# Calls that only local paths can take, and why they may.
LOCAL = {
    "occjax/files.py": {"os.path", "os.replace", "os.unlink"},  # where it is local
    "occjax/runtime/cli.py": {"pathlib.Path"},  # the cache in the home folder
    "occjax/runtime/config.py": {"os.path", "pathlib.Path"},  # experiments are code
    # Weights from elsewhere are read array by array where they lie.
    "occjax/runtime/weight_files.py": {"os.path", "open"},
    "occjax/runtime/torch_files.py": {"os.path", "open"},
    "occjax/evaluation/speed.py": {"pathlib.Path"},  # this checkout
    "occjax/data/speed.py": {"pathlib.Path"},  # a temporary folder
}
FOLDERS = {"os.replace", "os.unlink", "os.rename", "os.makedirs", "os.mkdir"}
FOLDERS |= {"os.listdir", "os.remove", "os.stat", "pathlib.Path", "shutil.rmtree"}


@pytest.mark.parametrize("path", [p for p in FILES if p.parts[0] == "occjax"], ids=str)
def test_paths_of_users_may_lead_into_a_bucket(path):
    found = set()
    for node in ast.walk(tree(path)):
        name = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
        if name in FOLDERS or name == "os.path":
            found.add(name)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "open":
            found.add("open")
    assert found == LOCAL.get(str(path), set()), "epath.Path and occjax.files instead"
