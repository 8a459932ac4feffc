import json
import struct

import ml_dtypes
import numpy as np
import pytest

from occjax.errors import UserError
from occjax.runtime import weight_files

SUFFIXES = weight_files.SUFFIXES


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    made = {"a.weight": rng.random((3, 2, 4, 5), np.float32), "b": np.float32(7)}
    made["turned"] = made["a.weight"].transpose(2, 3, 1, 0)
    made["empty"] = np.zeros((0, 3), np.float32)
    return made


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        weight_files.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file_comes_back_exactly(tmp_path, arrays, suffix):
    path = tmp_path / f"x{suffix}"
    weight_files.write(path, arrays)
    found = weight_files.read(path)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.float32
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("prefix", ["module.", "model.module."])
@pytest.mark.parametrize("suffix", [".pth", ".npz"])
def test_a_prefix_of_all_names_is_left_out(tmp_path, arrays, prefix, suffix):
    path = tmp_path / f"x{suffix}"
    weight_files.write(path, {f"{prefix}{name}": x for name, x in arrays.items()})
    assert list(weight_files.read(path)) == list(arrays)
    weight_files.write(path, {f"{prefix}a": arrays["b"], "c": arrays["b"]})
    assert list(weight_files.read(path)) == [f"{prefix}a", "c"]


@pytest.mark.parametrize("name", ["x.ckpt", "x.tar", "x.zip", "x"])
def test_another_name_is_refused(tmp_path, arrays, name):
    (tmp_path / name).write_bytes(b"")
    refused(tmp_path / name, r"expected a file named \*\.pth, ")
    with pytest.raises(UserError, match="expected a file named"):
        weight_files.write(tmp_path / name, arrays)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_a_cut_and_an_empty_file_are_refused(tmp_path, arrays, suffix):
    path = tmp_path / f"x{suffix}"
    refused(path, "there is no such file")
    weight_files.write(path, arrays)
    data = path.read_bytes()
    path.write_bytes(data[:-40])
    refused(path, "truncated|not fit|not read")
    path.write_bytes(b"")
    refused(path, "not read|no sound")
    weight_files.write(path, {})
    refused(path, "has no arrays")


def test_arrays_that_need_a_pickle_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="a is not read: .*allow_pickle"):
        weight_files.read(path)["a"]


def test_a_compressed_npz_is_read(tmp_path, arrays):
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    found = weight_files.read(tmp_path / "x.npz")
    np.testing.assert_array_equal(found["turned"], arrays["turned"])


def safetensors(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_safetensors_of_every_type(tmp_path):
    """Written by hand from the format's description."""
    path = tmp_path / "x.safetensors"
    values = np.array([1.5, -2, 0.25], np.float32)
    wide = values.astype(np.float64).tobytes()
    half = values.astype(ml_dtypes.bfloat16).tobytes()
    header = {
        "__metadata__": {"format": "pt"},
        "wide": {"dtype": "F64", "shape": [3], "data_offsets": [0, 24]},
        "half": {"dtype": "BF16", "shape": [3, 1], "data_offsets": [24, 30]},
    }
    safetensors(path, header, wide + half)
    found = weight_files.read(path)
    assert list(found) == ["wide", "half"]
    np.testing.assert_array_equal(found["wide"], values)
    np.testing.assert_array_equal(found["half"].astype(np.float32), values[:, None])
    widened = found.widened()
    assert widened["half"].dtype == np.float32
    assert widened["wide"].dtype == np.float64


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]}},
        {"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}},
        {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}},
        {"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": 3},
    ],
)
def test_an_unsound_safetensors_header_is_refused(tmp_path, header):
    safetensors(tmp_path / "x.safetensors", header, bytes(8))
    refused(tmp_path / "x.safetensors", "no sound .safetensors file")


def test_a_header_longer_than_the_file_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    refused(tmp_path / "x.safetensors", "longer than the file")


def test_files_are_read_together_but_no_name_twice(tmp_path):
    one, other = tmp_path / "one.npz", tmp_path / "other.npz"
    weight_files.write(one, {"a": np.zeros(2), "b": np.ones(2)})
    weight_files.write(other, {"c": np.full(3, 5.0)})
    found = weight_files.read_together([one, other])
    assert list(found) == ["a", "b", "c"]
    np.testing.assert_array_equal(found["c"], np.full(3, 5.0))
    weight_files.write(other, {"b": np.ones(2)})
    with pytest.raises(UserError, match=r"other.npz: has 1 arrays .* the first b\."):
        weight_files.read_together([one, other])
