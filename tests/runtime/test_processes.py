"""How a process of several leaves; the runs of several are in test_multidevice.py."""

import jax
import pytest

from occjax.errors import UserError
from occjax.runtime import processes


class Client:
    """Of jax's coordination service; the others come to no barrier."""

    def __init__(self, others_come):
        self.others_come, self.waited = others_come, []

    def wait_at_barrier(self, name, milliseconds):
        self.waited.append((name, milliseconds))
        if not self.others_come:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out")


def pretend(monkeypatch, others_come=True):
    client = Client(others_come)
    monkeypatch.setattr(processes, "several", lambda: True)
    monkeypatch.setattr(processes, "_client", lambda: client)
    return client


def test_one_process_waits_for_nobody_and_reads_everything():
    processes.wait()
    assert not processes.several()
    assert processes.first()
    assert processes.share() == {"process_index": 0, "process_count": 1}


def test_a_process_waits_for_longer_than_any_scoring_takes(monkeypatch):
    client = pretend(monkeypatch)
    processes.wait()
    processes.wait()

    assert len({name for name, _ in client.waited}) == 2
    assert min(milliseconds for _, milliseconds in client.waited) > 24 * 3600 * 1000


@pytest.mark.parametrize("others_come", [True, False])
def test_a_failing_process_ends_in_good_order_only_with_the_others(
    monkeypatch, others_come
):
    def at_once(status):
        raise InterruptedError(status)

    client = pretend(monkeypatch, others_come)
    monkeypatch.setattr(processes.os, "_exit", at_once)
    with pytest.raises(SystemExit if others_come else InterruptedError) as ended:
        processes.leave(1)

    assert ended.value.args == (1,)
    assert client.waited[0][1] <= 30_000


def test_only_what_a_dead_process_makes_is_blamed_on_it(monkeypatch):
    gloo = jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed:\n Read error")
    assert processes.blame(gloo) is None  # there is no other process
    pretend(monkeypatch)
    damaged = UserError("checkpoints/3: damaged")
    damaged.__cause__ = gloo
    dispatch = ValueError(str(gloo))  # what jax makes of it in some places

    for error in (gloo, damaged, dispatch):
        line = processes.blame(error)
        assert line.startswith("another process of the job has ended or hangs (UNKNOWN")
        assert "goes on from the last checkpoint" in line
        assert "\n" not in line
    assert processes.blame(UserError("no such file")) is None
    assert processes.blame(ValueError("a shape")) is None
    assert processes.blame(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")) is None
