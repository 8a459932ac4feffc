import pytest

from occjax import files


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_json(path, {"new": 2})
    assert path.read_text() == '{"old": 1}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_json_that_no_reader_takes_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", [float("nan")])
    assert not list(tmp_path.iterdir())


def test_missing_folders_are_made(tmp_path):
    files.write_bytes(tmp_path / "a/b/c.bin", b"xyz")
    assert (tmp_path / "a/b/c.bin").read_bytes() == b"xyz"
