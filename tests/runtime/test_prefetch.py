import threading

import numpy as np
import pytest

from occjax.errors import UserError
from occjax.runtime.mesh import Layout
from occjax.runtime.prefetch import Prefetch


@pytest.fixture(scope="module")
def layout():
    return Layout.create()


class Numbers:
    """Batches of equal numbers; its position is how many it gave."""

    def __init__(self, count=10**9, fail_at=None):
        self.given, self.count, self.fail_at = 0, count, fail_at

    def __iter__(self):
        return self

    def __next__(self):
        if self.given == self.fail_at:
            raise UserError("image 5 is damaged")
        if self.given == self.count:
            raise StopIteration
        self.given += 1
        return {"x": np.full((8, 2), self.given, np.float32)}

    def get_state(self):
        return {"given": self.given}


def test_batches_come_in_order_on_all_devices_each_with_its_own_position(layout):
    with Prefetch(Numbers(5), layout) as feed:
        found = list(feed)

    assert [position["given"] for _, position in found] == [1, 2, 3, 4, 5]
    for number, (batch, _) in enumerate(found, start=1):
        np.testing.assert_array_equal(batch["x"], np.full((8, 2), number))
        assert batch["x"].sharding.is_equivalent_to(layout.batch, 2)


def test_it_reads_no_more_than_asked_ahead(layout):
    source = Numbers()
    with Prefetch(source, layout, ahead=2) as feed:
        next(feed)
        next(feed)
        # Two are queued and one is in the thread's hand.
        assert source.given <= 2 + 2 + 1


def test_an_error_of_the_source_reaches_whoever_asks(layout):
    with Prefetch(Numbers(fail_at=2), layout) as feed:
        next(feed)
        next(feed)
        for _ in range(2):
            with pytest.raises(UserError, match="image 5 is damaged"):
                next(feed)


def test_leaving_ends_the_thread_even_when_the_queue_is_full(layout):
    before = threading.active_count()
    for _ in range(3):
        with Prefetch(Numbers(), layout, ahead=1) as feed:
            next(feed)
    assert threading.active_count() == before


def test_waiting_is_counted(layout):
    release = threading.Event()

    def slow():
        release.wait(5)
        yield np.zeros((8, 1), np.float32)

    with Prefetch(slow(), layout) as feed:
        assert feed.waited == 0
        threading.Timer(0.05, release.set).start()
        _, position = next(feed)
        assert feed.waited > 0
        assert position is None
