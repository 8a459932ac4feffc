import json

import numpy as np
import pytest
import tiny_method

from occjax.errors import UserError
from occjax.runtime import progress
from occjax.runtime.metrics import Mean

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboardX")


def measured(value, weight=1.0):
    return {"loss": Mean(np.float32(value * weight), np.float32(weight))}


def lines(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_figures_go_to_json_lines_and_the_board(tmp_path):
    with progress.Writer(tmp_path, 0) as writer:
        writer.write(1, {"loss": np.float32(0.5), "rate": 2.0})
        writer.write(2, {"loss": 0.25})

    assert lines(tmp_path)[0] == {"step": 1, "loss": 0.5, "rate": 2.0}
    assert lines(tmp_path)[1] == {"step": 2, "loss": 0.25}
    (board,) = tmp_path.glob("events.out.tfevents*")
    assert b"rate" in board.read_bytes()


def test_a_run_that_goes_on_forgets_what_came_after_its_checkpoint(tmp_path):
    with progress.Writer(tmp_path, 0) as writer:
        for step in range(1, 6):
            writer.write(step, {"loss": step})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    with progress.Writer(tmp_path, 3) as writer:
        writer.write(4, {"loss": 40})

    found = [(line["step"], line["loss"]) for line in lines(tmp_path)]
    assert found == [(1, 1), (2, 2), (3, 3), (4, 40)]


def test_steps_between_two_lines_are_averaged_by_weight(tmp_path, capsys):
    config = tiny_method.config(log_every=3, steps=7)
    with (
        progress.Writer(tmp_path, 0) as writer,
        progress.Progress(writer, 0, config, lambda: "nowhere") as shown,
    ):
        for step in range(1, 8):
            shown.add(step, measured(step, weight=step), 0.0)
        shown.flush()

    found = {line["step"]: line["loss"] for line in lines(tmp_path)}
    assert found == pytest.approx({3: 14 / 6, 6: 77 / 15, 7: 7})
    out = capsys.readouterr().out
    assert "step 3/7  loss 2.333" in out
    assert "compiled in" in out


def test_the_figures_of_a_step_are_read_after_the_next_one_was_added(tmp_path):
    class Late:
        """Stands for a figure that the device has not finished."""

        read = False

        def __array__(self, dtype=None, copy=None):
            self.read = True
            return np.ones((), np.float32)

    config, first, second = tiny_method.config(steps=9), Late(), Late()
    with (
        progress.Writer(tmp_path, 0) as writer,
        progress.Progress(writer, 0, config, lambda: "nowhere") as shown,
    ):
        shown.add(1, {"loss": Mean(first, np.float32(1))}, 0.0)
        assert not first.read
        shown.add(2, {"loss": Mean(second, np.float32(1))}, 0.0)
        assert first.read
        assert not second.read


def test_a_step_that_is_not_finite_stops_at_the_next_flush(tmp_path):
    config = tiny_method.config()
    with (
        progress.Writer(tmp_path, 0) as writer,
        progress.Progress(writer, 0, config, lambda: "at 3") as shown,
    ):
        shown.add(4, measured(np.nan), 0.0)
        with pytest.raises(UserError, match="step 4: loss = nan.*at 3"):
            shown.flush()


def test_rates_leave_out_what_was_no_training(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    config = tiny_method.config(log_every=2, steps=10, batch_size=8)
    with (
        progress.Writer(tmp_path, 0) as writer,
        progress.Progress(writer, 0, config, lambda: "") as shown,
    ):
        now[0] = 100.0  # compiling
        for step in range(1, 3):
            shown.add(step, measured(1), waited=0.5 * step)
            now[0] += 1
        shown.flush()
        shown.restart_clock()
        now[0] += 500  # evaluating
        for step in range(3, 5):
            shown.add(step, measured(1), waited=0.5 * step)
            now[0] += 4
        shown.flush()

    rates = [line["images_per_second"] for line in lines(tmp_path)]
    assert rates == [2 * 8 / 2, 2 * 8 / 8]
    assert lines(tmp_path)[0]["input_wait_share"] == pytest.approx(0.25)
