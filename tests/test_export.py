"""A run as an artefact, opened where this package is not."""

import json
import pathlib
import subprocess
import sys
import zipfile

import commands
import numpy as np
import pytest
import runs

import occjax
from occjax import artefact, export
from occjax.errors import UserError
from occjax.runtime import config as configs

# Only what jax brings along may be imported beside the artefact's own file.
ALONE = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("occjax", "flax", "optax", "orbax", "cv2", "etils"):
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Refuse())
import artefact, numpy as np

model = artefact.load(sys.argv[1])
found = model(np.load(sys.argv[2]))
np.savez(sys.argv[3], **{name: np.asarray(value) for name, value in found.items()})
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run and its artefact."""
    folder = tmp_path_factory.mktemp("exported")
    run = str(runs.make(folder / "run")[0])
    export.write(run, str(folder / "model.zip"), ("cpu",))
    return run, folder / "model.zip"


def test_the_artefact_alone_finds_what_the_run_finds(exported, tmp_path):
    run, path = exported
    size = artefact.load(path).size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, *size, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    source = pathlib.Path(artefact.__file__)
    (tmp_path / source.name).write_text(source.read_text())
    files = str(path), str(tmp_path / "images.npy"), str(tmp_path / "found.npz")
    subprocess.run(
        [sys.executable, "-c", ALONE, *files], check=True, cwd=tmp_path, timeout=300
    )
    with np.load(tmp_path / "found.npz") as file:
        found = dict(file)
    expected = occjax.load(run)(list(images))
    for row, poses in enumerate(expected):
        order = np.argsort(-found["score"][row], kind="stable")[: len(poses.score)]
        for name in ("joints", "joint_score", "score"):
            theirs, ours = found[name][row][order], getattr(poses, name)
            np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-3)


def test_it_tells_what_it_is(exported):
    run, path = exported
    model = artefact.load(path)
    assert model.joints[0] == "nose"
    assert len(model.bones) > 10
    assert (model.crops, model.needs, model.platforms) == (0, (), ("cpu",))
    with zipfile.ZipFile(path) as file:
        about = json.loads(file.read("about.json"))
    kept = json.loads((pathlib.Path(run) / "checkpoints/0/config/metadata").read_text())
    assert about["config"] == kept
    assert about["step"] == 0


def test_a_source_is_read_through_its_map(exported):
    model = artefact.load(exported[1])
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (1, *model.size, 3), dtype=np.uint8)
    plain = model(images)
    moved = model(images, to_source=[[[2, 0, 10], [0, 2, -5]]])
    there = np.asarray(plain["score"]) > -np.inf
    expected = 2 * np.asarray(plain["joints"])[there] + (10, -5)
    np.testing.assert_allclose(np.asarray(moved["joints"])[there], expected, atol=1e-2)


def test_another_size_and_crops(tmp_path):
    settings = configs.load("configs/hrnet.py:smoke")
    run = runs.save(tmp_path / "run", settings)[0]
    export.write(str(run), str(tmp_path / "m.zip"), ("cpu",), (96, 64))
    model = artefact.load(tmp_path / "m.zip")
    assert (model.size, model.needs) == ((96, 64), ("box",))
    image = np.zeros((2, 96, 64, 3), np.uint8)
    assert model(image)["joints"].shape == (2, 1, 17, 2)
    with pytest.raises(UserError, match="cannot be exported"):
        export.write(str(run), str(tmp_path / "n.zip"), ("cpu",), (97, 64))
    assert not (tmp_path / "n.zip").exists()


def test_wrong_inputs_are_told(exported, tmp_path):
    model = artefact.load(exported[1])
    height, width = model.size
    with pytest.raises(ValueError, match=r"image: expected .* uint8, found .*float32"):
        model(np.zeros((1, height, width, 3), np.float32))
    with pytest.raises(ValueError, match="image: expected"):
        model(np.zeros((1, height + 1, width, 3), np.uint8))
    with pytest.raises(ValueError, match="box: this model takes none"):
        model(np.zeros((1, height, width, 3), np.uint8), box=[[0, 0, 1, 1]])
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="no artefact"):
        artefact.load(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output=a.zip"], "--workdir is missing"),
        (["--workdir=absent", "--output=a.zip"], "absent"),
        (["--workdir=w", "--output=a.zip", "--platforms=vpu"], "--platforms=vpu"),
        (["--workdir=w", "--output=a.zip", "--size=12"], "--size=12"),
    ],
)
def test_mistakes_are_one_line(arguments, words, tmp_path):
    assert words in commands.mistake("occjax.export", arguments, tmp_path)
