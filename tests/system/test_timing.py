import threading
import time

import pytest

from birdinfer.system import timing as stopwatch
from birdinfer.system.timing import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    seconds = [0.0]
    monkeypatch.setattr(stopwatch, "perf_counter", lambda: seconds[0])
    return seconds


def test_parts_have_their_shares_of_all_seconds(clock):
    watch = Stopwatch()
    assert watch.shares() == {}
    for part, seconds in (("mel", 1.0), ("fold0", 2.0), ("mel", 1.0)):
        with watch.timing(part):
            clock[0] += seconds
    assert watch.shares() == {"mel": 0.5, "fold0": 0.5}


def test_parts_that_are_done_in_one_share_the_time_equally(clock):
    watch = Stopwatch()
    with watch.timing("fold0", "fold1"):
        clock[0] += 3.0
    with watch.timing("mel"):
        clock[0] += 1.0
    assert watch.shares() == {"fold0": 0.375, "fold1": 0.375, "mel": 0.25}


def test_what_fails_is_not_counted(clock):
    watch = Stopwatch()
    with watch.timing("mel"):
        clock[0] += 1.0

    def fail():
        with watch.timing("fold0"):
            clock[0] += 5.0
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert watch.shares() == {"mel": 1.0}


def test_many_threads_lose_nothing():
    watch, n = Stopwatch(), 300

    def work(part):
        for _ in range(n):
            with watch.timing(part):
                time.sleep(0)

    threads = [threading.Thread(target=work, args=(part,)) for part in ("a", "a", "b", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shares = watch.shares()
    assert set(shares) == {"a", "b"}
    assert sum(shares.values()) == pytest.approx(1)
