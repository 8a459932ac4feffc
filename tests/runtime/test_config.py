import pathlib
import sys

import pytest
import tiny_method
from absl import flags
from ml_collections import ConfigDict

from occjax.errors import UserError
from occjax.runtime import cli, config

# ml_collections reads config files by a method that Python will drop in 3.15.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

FILE = """
from ml_collections import ConfigDict

def get_config(variant=""):
    if variant not in ("", "big"):
        raise ValueError(f"there is no variant {variant!r}; there is big")
    size = 512 if variant else 64
    return ConfigDict(dict(
        steps=10, batch_size=4, data=dict(size=size, scale=(0.5, 1.0), flip=True),
        optim=dict(lr=0.1, name="adam"),
    ))
"""


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "try.py"
    path.write_text(FILE)
    return str(path)


@pytest.fixture
def parse(monkeypatch):
    """Parses a command line with flags of its own."""

    def parse(*argv):
        values = flags.FlagValues()
        monkeypatch.setattr(flags, "FLAGS", values)
        monkeypatch.setattr(sys, "argv", ["train", *argv])
        for flag in ("config", "against"):
            config.config_flags.DEFINE_config_file(flag, None, flag_values=values)
        config.parse_flags(sys.argv)
        return values.config

    return parse


def test_a_config_is_read_with_its_variant_and_overrides(parse, spec):
    found = parse(
        "--config", f"{spec}:big", "--config.steps=7", "--config.data.scale=(0.1,0.2)"
    )
    assert found.data.size == 512
    assert found.steps == 7
    assert found.data.scale == (0.1, 0.2)
    assert found.optim.lr == 0.1


def test_a_second_config_has_overrides_and_messages_of_its_own(parse, spec):
    given = "--config", spec, "--against", f"{spec}:big", "--against.steps=7"
    assert parse(*given).steps == 10
    assert flags.FLAGS.against.steps == 7
    with pytest.raises(UserError, match="--against.stepz: .*Did you mean steps"):
        parse(*given, "--against.stepz=7")
    with pytest.raises(UserError, match="--against: there is no file"):
        parse("--config", spec, "--against", "nowhere.py")


def test_the_config_is_locked(spec):
    found = config.load(spec)
    with pytest.raises(AttributeError):
        found.stepz = 3


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--config.batchsize=4", "--config.batchsize: .*Did you mean batch_size"),
        ("--config.lr=1", "--config.lr: .*Did you mean optim.lr"),
        ("--config.optim.l=1", "Did you mean optim.lr"),
        ("--config.dta.size=1", "Did you mean data.size"),
        ("--config.qqqqqq=1", "--config.qqqqqq: the config has no such key.$"),
        ("--config.steps.deep=1", "--config.steps.deep: .*no such key"),
        ("--config.steps=many", "--config.steps=many: .*int"),
        ("--config.steps=2.5", "--config.steps=2.5"),
        ("--config.data.flip=maybe", "--config.data.flip=maybe"),
        ("--config.data=3", "--config.data=3"),
        ("--confg.steps=3", "confg"),
    ],
)
def test_a_mistake_in_an_override_is_one_line_that_names_it(
    parse, spec, argument, said
):
    with pytest.raises(UserError, match=said) as caught:
        parse("--config", spec, argument)
    assert "\n" not in str(caught.value)


def test_a_missing_file_an_unknown_variant_and_a_file_without_config_are_named(
    tmp_path, spec
):
    with pytest.raises(UserError, match=r"no file .*nope.py.* has try.py"):
        config.load(str(tmp_path / "nope.py"))
    with pytest.raises(UserError, match=r"no variant 'huge'; there is big"):
        config.load(f"{spec}:huge")
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    with pytest.raises(UserError, match="defines no get_config"):
        config.load(str(empty))


def test_a_mistake_inside_a_config_file_keeps_its_traceback(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config(variant=''):\n    return 1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        config.load(str(broken))


def test_a_config_written_as_json_reads_back_equal(tmp_path, spec):
    first = config.load(spec)
    config.write(first, tmp_path / "config.json")
    second = config.read(tmp_path / "config.json")

    assert second == first
    assert isinstance(second.data.scale, tuple)
    assert second.is_locked


def test_a_run_without_or_with_a_damaged_config_is_named(tmp_path):
    with pytest.raises(UserError, match="config.json: not found"):
        config.read(tmp_path / "config.json")
    (tmp_path / "config.json").write_text('{"steps": 1')
    with pytest.raises(UserError, match="config.json: damaged"):
        config.read(tmp_path / "config.json")


def test_a_run_may_go_on_longer_but_not_as_another_run():
    saved = tiny_method.config()
    config.check_resumable(
        saved, tiny_method.config(**{"steps": 99, "log_every": 7, "data.dir": "there"})
    )
    changed = tiny_method.config(**{"batch_size": 16, "optim.lr": 0.5})
    with pytest.raises(UserError) as caught:
        config.check_resumable(saved, changed)

    line = str(caught.value)
    assert "batch_size (was 8, now 16)" in line
    assert "optim.lr (was 0.01, now 0.5)" in line
    assert "seed" not in line
    assert "\n" not in line


def test_a_key_that_only_one_config_has_is_a_difference():
    asked = tiny_method.config()
    with asked.unlocked():
        asked.model.extra = 1
    with pytest.raises(UserError, match="model.extra"):
        config.check_resumable(tiny_method.config(), asked)


def test_a_setting_of_a_run_can_be_changed_by_name():
    settings = ConfigDict(dict(model=dict(nms=0.9, name="a"), seed=1)).lock()
    for assignment in ("model.nms=0.5", "model.name=b=c", "seed=7"):
        config.change(settings, assignment)
    assert settings.to_dict() == dict(model=dict(nms=0.5, name="b=c"), seed=7)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.nms", "expected KEY=VALUE"),
        ("model.oks=0.5", "expected KEY=VALUE with a key of the run"),
        ("model.nms=high", "expected float, got 'high'"),
        ("seed=0.5", "expected int, got '0.5'"),
        ("model=1", "expected ConfigDict, got '1'"),
    ],
)
def test_a_change_that_does_not_suit_a_run_is_one_line(assignment, message):
    settings = ConfigDict(dict(model=dict(nms=0.9), seed=1)).lock()
    with pytest.raises(UserError, match=f"^--set={assignment}: {message}"):
        config.change(settings, assignment)
    assert settings.to_dict() == dict(model=dict(nms=0.9), seed=1)


def test_the_name_of_a_run_is_that_of_file_and_variant(parse, spec):
    parse("--config", spec)
    assert config.run_name() == "try"
    parse("--config", f"{spec}:big")
    assert config.run_name() == "try-big"


@pytest.mark.parametrize(
    "path", sorted(pathlib.Path("configs").glob("*.py")), ids=lambda path: path.stem
)
def test_every_shipped_config_file_loads(path, monkeypatch):
    if path.stem == "common":
        pytest.skip("constants, no experiment")
    monkeypatch.syspath_prepend(".")
    assert isinstance(config.load(str(path)), ConfigDict)


def test_processes_are_given_all_three_flags_or_none():
    values = {"coordinator": "here:1", "num_processes": 2, "process_id": 0}
    assert cli._given_processes({}) == {}
    assert cli._given_processes(values) == {
        "coordinator_address": "here:1",
        "num_processes": 2,
        "process_id": 0,
    }
    with pytest.raises(UserError, match="--process_id"):
        cli._given_processes({**values, "process_id": None})


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "3", "SLURM_NTASKS": "8"}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "8"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ],
)
def test_other_processes_are_expected_only_where_a_launcher_started_them(
    variables, several
):
    assert cli._cluster_detected(variables) is several
