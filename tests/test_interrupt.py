import os
import signal
import threading

import pytest

from birdinfer.interrupt import StopRequest


class TestStopRequest:
    def test_a_second_signal_does_not_wait(self):
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)

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
