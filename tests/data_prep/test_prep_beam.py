"""Apache Beam's local runner writes the same files; `make beam` has what it needs."""

import json
import sys

import pytest
from test_prep_builder import content, ids, load, small_files, write

from occjax.data import records
from occjax.errors import UserError

__all__ = ["small_files"]  # a fixture

LOCAL = {"beam_runner": "DirectRunner", "beam_options": ["direct_num_workers=1"]}


@pytest.mark.filterwarnings("ignore")  # Beam's own
def test_beam_writes_the_same_files(tmp_path, small_files):
    pytest.importorskip("apache_beam")
    write(tmp_path / "here", count=10)
    write(tmp_path / "here", "val", count=4)
    account = write(tmp_path / "beam", count=10, how=LOCAL)
    write(tmp_path / "beam", "val", count=4, how=LOCAL)
    assert account.kept["images"] == 9
    assert account.dropped["images"] == {"seventh": 1}
    assert content(tmp_path / "beam") == content(tmp_path / "here")
    assert ids(load(tmp_path / "beam", "val")) == [100, 101, 102, 103]


@pytest.mark.filterwarnings("ignore")
def test_beam_goes_on_where_another_run_was_killed(tmp_path, small_files, capsys):
    pytest.importorskip("apache_beam")
    from test_prep_builder import failing

    write(tmp_path / "here", count=10)
    with pytest.raises(KeyError):
        write(tmp_path / "beam", count=10, read=failing)
    write(tmp_path / "beam", count=10, how=LOCAL)
    assert "goes on: 2 of 4 files are finished" in capsys.readouterr().out
    assert content(tmp_path / "beam") == content(tmp_path / "here")


@pytest.mark.filterwarnings("ignore")
def test_beam_that_fails_leaves_nothing_that_loads(tmp_path, small_files):
    pytest.importorskip("apache_beam")
    from test_prep_builder import failing

    with pytest.raises(Exception, match="broken input"):
        write(tmp_path, count=10, read=failing, how=LOCAL)
    with pytest.raises(UserError, match="is not there"):
        load(tmp_path)
    write(tmp_path, count=10)
    path = tmp_path / "scenes" / records.VERSION / "metadata.json"
    assert json.loads(path.read_text())["splits"]["train"]["images"]["kept"] == 9


def test_beam_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(UserError, match=r"pip install 'occjax\[beam\]'") as caught:
        write(tmp_path, how=LOCAL)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
