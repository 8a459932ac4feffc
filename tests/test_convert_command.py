"""Weights come in from files with torch's names and go out again."""

import json
import sys
import zipfile

import commands
import cv2
import jax
import numpy as np
import pytest
import tiny_hrnet

from occjax import convert, predict, skeletons
from occjax.data import folder
from occjax.errors import UserError
from occjax.methods import pinet
from occjax.runtime import checkpoint, config, step, trained, weight_files, weights
from occjax.runtime.options import Options

HEADS = "ppg.heatmap_head.weight"


@pytest.fixture(scope="module")
def published():
    return tiny_hrnet.published(seed=5)


@pytest.fixture(scope="module")
def converted(published, tmp_path_factory):
    """The file and the folder made of it."""
    place = tmp_path_factory.mktemp("converted")
    weight_files.write(place / "w.pth", published)
    convert.read_torch(
        tiny_hrnet.get_config(), str(place / "w.pth"), str(place / "run"), False, False
    )
    return place / "w.pth", place / "run"


def refused(path, out, match, widen=False):
    with pytest.raises(UserError, match=match) as caught:
        convert.read_torch(
            tiny_hrnet.get_config(), str(path), str(out), False, widen=widen
        )
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not out.exists()


def test_the_folder_is_a_run_with_these_weights(converted, published):
    _, run = converted
    number, settings = trained.last(run, None)
    assert number == 0
    expected = config.as_json(tiny_hrnet.get_config())
    assert config.as_json(settings) == expected
    assert json.loads((run / "config.json").read_text()) == expected
    model = trained.load(run, number, settings, skeletons.COCO)
    found = weights.revert(model.variables, pinet.TORCH_NAMES)
    for name, array in found.items():
        np.testing.assert_array_equal(array, published[name])
    assert len(found) == sum("num_batches" not in name for name in published)


def test_it_predicts_what_a_run_with_these_weights_does(converted, tmp_path):
    settings, state = tiny_hrnet.state(seed=5)
    with checkpoint.Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(0, state, None, settings)
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    found = []
    for run in (converted[1], tmp_path / "run"):
        out, paths = tmp_path / "out", folder.find(tmp_path / "a.png")
        predict.predict(str(run), paths, str(out), Options(None, (1.0,)), None)
        found.append(json.loads((out / "poses.json").read_text()))
    assert found[0]
    assert found[0] == found[1]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_weights_go_out_as_they_came_in(converted, published, tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    convert.write_torch(str(converted[1]), str(out))
    found = weight_files.read(out)
    assert found.keys() == {name for name in published if "num_batches" not in name}
    for name, array in found.items():
        np.testing.assert_array_equal(array, published[name])


def test_averaged_parameters_go_out(tmp_path):
    settings, state = tiny_hrnet.state()
    state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.params))
    with checkpoint.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state, None, settings)
    convert.write_torch(str(tmp_path), str(tmp_path / "w.npz"))
    found = weight_files.read(tmp_path / "w.npz")["ppg.heatmap_head.bias"]
    np.testing.assert_array_equal(found, np.ones(skeletons.COCO.num_joints))


def test_a_dry_run_prints_every_array_and_writes_nothing(converted, tmp_path, capsys):
    out = tmp_path / "out"
    convert.read_torch(
        tiny_hrnet.get_config(), str(converted[0]), str(out), True, False
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 1 + len(weight_files.read(converted[0]))
    assert lines[0] == ["name", "variable", "shape", "kind"]
    assert [HEADS, "params/heatmap_head/kernel", "17x60x1x1", "conv"] in lines
    assert not out.exists()


def changed(published, kind):
    """The file's arrays after an accident, and what is said of them."""
    arrays = dict(published)
    if kind == "renamed":
        arrays["ppg.heatmap.weight"] = arrays.pop(HEADS)
        said = "2 arrays .*params/heatmap_head/kernel is missing; ppg.heatmap.weight"
    elif kind == "missing":
        del arrays[HEADS]
        said = "1 arrays .*params/heatmap_head/kernel is missing"
    elif kind == "transposed":
        arrays[HEADS] = arrays[HEADS].swapaxes(0, 1)
        said = r"1 arrays .*the shape \(1, 1, 17, 60\), expected \(1, 1, 60, 17\)"
    else:
        arrays = tiny_hrnet.published("wide")
        said = "arrays do not fit the model: backbone"
    return arrays, said


@pytest.mark.parametrize("kind", ["renamed", "missing", "transposed", "wide"])
def test_arrays_that_do_not_fit_are_all_named(published, tmp_path, kind):
    arrays, said = changed(published, kind)
    weight_files.write(tmp_path / "w.pth", arrays)
    refused(tmp_path / "w.pth", tmp_path / "out", said)


def test_a_file_for_another_depth_is_refused(published, tmp_path):
    arrays = dict(published)
    for name, array in published.items():
        if ".layer1.0." in name:
            arrays[name.replace("layer1.0.", "layer1.1.")] = array
    weight_files.write(tmp_path / "w.pth", arrays)
    said = "leads to params/trunk/layer1_1/conv1/conv/kernel, which does not exist"
    refused(tmp_path / "w.pth", tmp_path / "out", said)


def test_files_that_harm_or_are_cut_or_absent_are_refused(converted, tmp_path):
    path, out = tmp_path / "w.pth", tmp_path / "out"
    refused(path, out, "no such file")
    data = converted[0].read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refused(path, out, "truncated")
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x/data.pkl", b"cos\nsystem\n(X\x04\x00\x00\x00exitR.")
    refused(path, out, "asks for os.system")
    refused(tmp_path / "w.ckpt", out, "expected a file named")


def test_halves_are_refused_unless_asked_for(published, tmp_path):
    halves = {name: np.float16(array) for name, array in published.items()}
    np.savez(tmp_path / "w.npz", **halves)
    refused(tmp_path / "w.npz", tmp_path / "out", "16 bits, the first .*float16")
    out = str(tmp_path / "out")
    convert.read_torch(
        tiny_hrnet.get_config(), str(tmp_path / "w.npz"), out, False, widen=True
    )
    convert.write_torch(out, str(tmp_path / "back.npz"))
    found = weight_files.read(tmp_path / "back.npz")
    np.testing.assert_array_equal(found[HEADS], np.float32(halves[HEADS]))


def test_a_folder_with_checkpoints_is_left_alone(converted):
    path, run = converted
    before = sorted(run.rglob("*"))
    with pytest.raises(UserError, match="has checkpoints; choose a new folder"):
        convert.read_torch(tiny_hrnet.get_config(), str(path), str(run), False, False)
    assert sorted(run.rglob("*")) == before


def test_training_does_not_go_on_there_but_tells_how_to_start(converted):
    settings, state = tiny_hrnet.state()
    with checkpoint.Checkpoints(converted[1]) as checkpoints:
        with pytest.raises(UserError, match=f"--config.init_from={converted[1]}"):
            checkpoint.resume(checkpoints, state, settings)


def test_a_method_without_published_names_has_no_way_out(tmp_path):
    with pytest.raises(UserError, match="expected a file named"):
        convert.write_torch(str(tmp_path), str(tmp_path / "x.bin"))
    with pytest.raises(UserError, match="has no checkpoints"):
        convert.write_torch(str(tmp_path / "none"), str(tmp_path / "x.pth"))


def test_the_command_goes_both_ways(converted, tmp_path):
    path, out = str(converted[0]), str(tmp_path / "run")
    there = ("--config", "tests/tiny_hrnet.py", "--torch", path, "--workdir", out)
    code, said, _ = commands.run("-m", "occjax.convert", *there)
    assert code == 0
    assert "pinet" in said
    back = ("--workdir", out, "--output", str(tmp_path / "back.pth"))
    code, _, error = commands.run("-m", "occjax.convert", *back)
    assert (code, error) == (0, "")
    assert weight_files.read(tmp_path / "back.pth").keys() <= set(
        weight_files.read(path)
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--workdir is missing"),
        (["--config", "tests/tiny_hrnet.py"], "--torch is missing"),
        (["--torch", "x"], "--config is missing"),
        (["--workdir", "x", "--torch", "y", "--output", "z"], "--torch does not go"),
        (["--workdir", "x"], "--output is missing"),
    ],
)
def test_flags_that_do_not_go_together(flags, said):
    code, _, error = commands.run("-m", "occjax.convert", *flags)
    assert code == 1
    assert error.startswith(f"error: {said}")
    assert error.count("\n") == 1


MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], check=True, capture_output=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.slow
def test_a_large_file_needs_three_times_its_size_in_memory_at_most(tmp_path):
    """HRNet-W48, 70 million numbers; libraries and all."""
    settings = config.load("configs/pinet.py:coco")
    with settings.unlocked():
        settings.model.backbone.width = 48
    _, model = step.build_model(settings, skeletons.COCO)
    shapes = step.variable_shapes(model, (64, 64, 3))
    rng = np.random.default_rng(0)
    values = jax.tree.map(lambda x: rng.random(x.shape, np.float32), shapes)
    path = tmp_path / "w.pth"
    weight_files.write(path, weights.revert(values, pinet.TORCH_NAMES))
    run, back = str(tmp_path / "run"), str(tmp_path / "back.pth")
    wide = ("--config=configs/pinet.py:coco", "--config.model.backbone.width=48")
    for flags in (
        (*wide, f"--torch={path}", f"--workdir={run}"),
        (f"--workdir={run}", f"--output={back}"),
    ):
        argv = ("-c", MEASURE, sys.executable, "-m", "occjax.convert", *flags)
        code, peak, error = commands.run(*argv)
        assert code == 0, error
        assert int(peak) * 1024 <= 3 * path.stat().st_size
    assert path.read_bytes() == (tmp_path / "back.pth").read_bytes()
