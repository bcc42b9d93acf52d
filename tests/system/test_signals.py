import os
import signal
import threading

import pytest

from birdinfer.system.signals import StopRequest, leaving_at_sigterm


class TestStopRequest:
    def test_a_second_signal_does_not_wait(self):
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)

    def test_the_same_signal_soon_after_is_an_echo_and_later_a_second_one(self, monkeypatch):
        clock = iter([100.0, 100.005, 102.0])
        monkeypatch.setattr("birdinfer.system.signals.time.monotonic", lambda: next(clock))
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

    @pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows closes terminals in another way")
    @pytest.mark.parametrize("is_survived", [False, True])
    def test_a_closed_terminal_asks_to_stop_unless_it_is_to_be_survived(self, is_survived):
        """As nohup has it."""
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN if is_survived else signal.SIG_DFL)
        try:
            with leaving_at_sigterm(), StopRequest() as stop:
                if is_survived:
                    os.kill(os.getpid(), signal.SIGHUP)
                    assert not stop.requested
                else:
                    os.kill(os.getpid(), signal.SIGHUP)
                    assert stop.requested
                    with pytest.raises(SystemExit) as left:
                        stop.leave()
                    assert left.value.code == 129
            assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if is_survived else signal.SIG_DFL)
        finally:
            signal.signal(signal.SIGHUP, before)

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
