"""Files that torch has saved (torch_saved/make.py), and files made to do harm."""

import io
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from occjax.errors import UserError
from occjax.runtime import stored, torch_files, weight_files

SAVED = pathlib.Path(__file__).parent / "torch_saved"
FORMS = ("zip.pth", "old.pth")


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        weight_files.read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def archive(path, pickled, **parts):
    """A zip as torch makes it, with any pickle in it."""
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x/data.pkl", pickled)
        for name, data in parts.items():
            made.writestr(f"x/data/{name}", data)


@pytest.fixture(params=FORMS)
def saved(request):
    return SAVED / request.param


def test_arrays_are_those_that_torch_saved(saved):
    """Views, scalars, empty arrays, halves and parameters among them."""
    expected = np.load(SAVED / "expected.npz")
    found = weight_files.read(saved)
    assert list(found) == expected.files
    for name in found:
        np.testing.assert_array_equal(found[name].astype(np.float32), expected[name])
        assert found[name].flags.c_contiguous
    types = [found[name].dtype for name in ("half", "bf16", "double", "0.bias")]
    assert [t.name for t in types] == ["float16", "bfloat16", "float64", "float32"]


def test_a_snapshot_of_training_gives_its_state_dict_without_prefix():
    found = weight_files.read(SAVED / "run.pth.tar")
    assert list(found)[:3] == ["0.weight", "0.bias", "1.weight"]
    assert found["0.weight"].shape == (4, 3, 3, 3)


def test_a_graph_that_is_kept_beside_the_network_belongs_to_it():
    found = weight_files.read(SAVED / "dag.pth")
    assert list(found)[:2] == ["0.weight", "0.bias"]
    assert list(found)[-2:] == ["W", "bias"]
    np.testing.assert_array_equal(found["W"], np.arange(24.0).reshape(4, 6))


def test_a_pickled_module_is_refused_by_the_name_it_asks_for():
    refused(SAVED / "whole.pth", "asks for torch.nn.modules.container.Sequential")


class Harm:
    """Unpickling it the usual way makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


HARMFUL = {
    "system": b"cos\nsystem\n(X\x05\x00\x00\x00false" + b"tR.",
    "eval": b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
    "instance": b"(X\x05\x00\x00\x00falseios\nsystem\n.",
    "nested": b"ctorch.storage\n_load_from_bytes\n(C\x01.tR.",
    "dotted": b"\x80\x04\x8c\x0bcollections\x8c\x11OrderedDict.clear\x93.",
    "new object": b"ccollections\nOrderedDict\n)\x81.",
    "changed": b"ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb.",
    "extension": b"\x82\x01.",
}


@pytest.mark.parametrize("name", HARMFUL)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_nothing_in_a_pickle_is_run(tmp_path, name, old):
    path = tmp_path / "bad.pth"
    if old:
        system = {"little_endian": True}
        heads = [pickle.dumps(x, 2) for x in (torch_files._MAGIC, 1001, system)]
        path.write_bytes(b"".join(heads) + HARMFUL[name])
    else:
        archive(path, HARMFUL[name])
    refused(path, "not read: ")


def test_a_file_that_would_act_does_not(tmp_path):
    mark = tmp_path / "ran"
    harm = pickle.dumps({"state_dict": Harm(mark)})
    archive(tmp_path / "bad.pth", harm)
    refused(tmp_path / "bad.pth", "asks for pathlib.*nothing was run")
    assert not mark.exists()
    pickle.loads(harm)  # the pickle does what it says
    assert mark.exists()


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, saved, part):
    data = saved.read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: int(part * len(data))])
    refused(tmp_path / "cut.pth", "not read: ")


def test_a_changed_byte_in_a_zip_is_noticed(tmp_path):
    data = bytearray((SAVED / "zip.pth").read_bytes())
    first = np.load(SAVED / "expected.npz")["0.weight"].tobytes()
    data[data.index(first)] ^= 1
    (tmp_path / "bad.pth").write_bytes(data)
    refused(tmp_path / "bad.pth", "damaged at")


def test_changed_bytes_give_one_line_or_arrays(tmp_path, saved):
    """Half of the time in the pickle, whose checksum is then put right."""
    rng, refusals = np.random.default_rng(0), []
    with zipfile.ZipFile(SAVED / "zip.pth") as made:
        parts = {name: made.read(name) for name in made.namelist()}
    (inner,) = (name for name in parts if name.endswith("data.pkl"))
    path = tmp_path / "x.pth"
    for i in range(300):
        data = bytearray(parts[inner] if i % 2 else saved.read_bytes())
        for place in rng.integers(len(data), size=3):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        if i % 2:
            with zipfile.ZipFile(path, "w") as made:
                for name, part in (parts | {inner: bytes(data)}).items():
                    made.writestr(name, part)
        try:
            assert all(array.size >= 0 for array in weight_files.read(path).values())
        except UserError as error:
            refusals.append(str(error))
    assert 100 < len(refusals) < 300
    assert all(said.startswith(f"{path}: ") for said in refusals)
    assert not any("\n" in said for said in refusals)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.pth").write_text("weights\n")
    refused(tmp_path / "text.pth", "no file of torch.save")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as made:
        made.writestr("a", "b")
    refused(tmp_path / "zip.pth", "data.pkl is not in it")
    with zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("x/data.pkl", b"N.")
    refused(tmp_path / "small.pth", "compressed")


@pytest.mark.parametrize(
    ("shape", "stored_bytes", "said"),
    [
        ((2, 3), 24, None),
        ((2, 3), 20, "shorter"),
        ((2, 3), None, "storage 0 is missing"),
    ],
)
def test_a_tensor_must_lie_in_its_storage(tmp_path, shape, stored_bytes, said):
    parts = {} if stored_bytes is None else {"0": bytes(stored_bytes)}
    archive(tmp_path / "x.pth", torch_files._pickled({"a": shape}), **parts)
    if said is None:
        assert weight_files.read(tmp_path / "x.pth")["a"].shape == shape
    else:
        refused(tmp_path / "x.pth", said)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (1, (2, 3), (3, 1)),  # past the end
        (0, (2, 3), (4, 1)),
        (0, (1000, 1000), (0, 0)),  # more elements than there are
        (-1, (2,), (1,)),
        (0, (2,), (1, 1)),
        (0, (2.0,), (1,)),
    ],
)
def test_views_outside_of_a_storage_are_refused(offset, shape, strides):
    storage = torch_files._Storage("0", "float32", 6)
    with pytest.raises(pickle.UnpicklingError):
        torch_files._tensor(storage, offset, shape, strides)


def test_big_endian_files_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as made:
        made.writestr("x/data.pkl", torch_files._pickled({"a": (2,)}))
        made.writestr("x/byteorder", "big")
        made.writestr("x/data/0", np.array([1.5, -2], ">f4").tobytes())
    np.testing.assert_array_equal(weight_files.read(tmp_path / "x.pth")["a"], [1.5, -2])


def test_writing_is_exact_and_always_the_same():
    rng = np.random.default_rng(0)
    arrays = {"a.weight": rng.random((2, 3, 4), np.float32), "b": np.float32(7)}
    arrays["turned"] = arrays["a.weight"].T
    files = []
    for _ in range(2):
        files.append(io.BytesIO())
        torch_files.write(files[-1], arrays)
    assert files[0].getvalue() == files[1].getvalue()


def test_torch_reads_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32(7)}
    weight_files.write(tmp_path / "x.pth", arrays)
    found = torch.load(tmp_path / "x.pth", weights_only=True)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].numpy(), array)


def test_strides_count_elements():
    assert stored.row_major((2, 3, 4)) == (12, 4, 1)
    assert stored.span((2, 3, 4), (12, 4, 1)) == 24
    assert stored.span((2, 0), (1, 1)) == 0
