import os
import signal
import threading

import pytest

from birdinfer.interrupt import StopRequest, leaving_at_sigterm


class TestStopRequest:
    def test_a_second_signal_does_not_wait(self):
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)

    def test_the_same_signal_soon_after_is_an_echo_and_later_a_second_one(self, monkeypatch):
        clock = iter([100.0, 100.005, 102.0])
        monkeypatch.setattr("birdinfer.interrupt.time.monotonic", lambda: next(clock))
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
            with pytest.raises(SystemExit):
                os.kill(os.getpid(), signal.SIGTERM)

    def test_puts_the_handlers_back(self):
        before = signal.getsignal(signal.SIGTERM)
        with StopRequest() as stop:
            assert signal.getsignal(signal.SIGTERM) != before
            stop.check()
        assert signal.getsignal(signal.SIGTERM) == before

    def test_outside_the_main_thread_it_does_nothing(self):
        problems = []

        def enter():
            try:
                with StopRequest():
                    pass
            except ValueError as error:
                problems.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert problems == []


class TestLeavingAtSigterm:
    def test_leaves_with_the_exit_code_of_the_signal_and_closes_what_is_open(self):
        before, closed = signal.getsignal(signal.SIGTERM), []

        def work():
            with leaving_at_sigterm():
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                finally:
                    closed.append(True)

        with pytest.raises(SystemExit) as left:
            work()
        assert left.value.code == 143
        assert closed == [True]
        assert signal.getsignal(signal.SIGTERM) == before

    def test_gives_way_to_what_puts_signals_off(self):
        with leaving_at_sigterm():
            with StopRequest() as stop:
                os.kill(os.getpid(), signal.SIGTERM)
                assert stop.requested
            with pytest.raises(SystemExit):
                os.kill(os.getpid(), signal.SIGTERM)

    def test_outside_the_main_thread_it_does_nothing(self):
        entered = []

        def enter():
            with leaving_at_sigterm():
                entered.append(signal.getsignal(signal.SIGTERM))

        before = signal.getsignal(signal.SIGTERM)
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        assert entered == [before]
