import sys
import threading
from threading import Event, Thread

import pytest

from birdinfer.errors import ConfigError, MissingExtraError
from birdinfer.training.tracking.base import client
from birdinfer.training.tracking.reporter import call_with_timeout, failure_line


class TestWithin:
    def test_gives_the_answer(self):
        assert call_with_timeout(5, lambda: 7) == 7

    def test_none_is_an_answer_too(self):
        assert call_with_timeout(5, lambda: None) is None

    def test_raises_what_the_call_raised(self):
        with pytest.raises(ZeroDivisionError):
            call_with_timeout(5, lambda: 1 / 0)

    @pytest.mark.parametrize("end", [SystemExit(3), KeyboardInterrupt()])
    def test_a_client_that_would_end_the_process_ends_nothing(self, end):
        def leave():
            raise end

        with pytest.raises(RuntimeError, match=type(end).__name__):
            call_with_timeout(5, leave)

    def test_waits_no_longer_than_asked(self):
        release = Event()
        with pytest.raises(ConfigError, match=r"tracking.wait_seconds: no answer within 0.05 s - raise it"):
            call_with_timeout(0.05, release.wait)
        release.set()

    def test_what_a_client_prints_stays_off_standard_output(self, capsys):
        call_with_timeout(5, lambda: print("View run at https://example.org"))
        print("ours")
        assert capsys.readouterr().out == "ours\n"

    def test_what_dies_in_a_clients_own_thread_stays_off_the_screen(self, capsys, monkeypatch):
        monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # pytest has one of its own

        def flush():
            writer = Thread(target=lambda: 1 / 0)
            writer.start()
            writer.join()

        call_with_timeout(5, flush)
        print("ours", file=sys.stderr)
        assert capsys.readouterr().err == "ours\n"

    def test_standard_output_is_given_back_while_a_client_hangs(self, capsys):
        release = Event()
        with pytest.raises(ConfigError):
            call_with_timeout(0.02, release.wait)
        print("ours")
        release.set()
        assert capsys.readouterr().out == "ours\n"


class TestFailureLine:
    def test_an_error_of_birdinfer_is_shown_as_it_is(self):
        line = failure_line("wandb", ConfigError("tracking.mode", "is online, WANDB_API_KEY is not set", "set it"))
        given_up = "tracker wandb is given up, the training continues: "
        assert line == given_up + "tracking.mode: is online, WANDB_API_KEY is not set - set it"

    def test_an_error_of_theirs_is_one_line_without_colours_and_rules(self):
        line = failure_line("neptune", ValueError("\x1b[95m\n----NoProject----------\n\x1b[0m\nno   such project\r\n"))
        assert "ValueError: NoProject no such project - mend it and --resume" in line
        assert line.isprintable()

    def test_an_error_of_a_client_is_cut(self):
        assert len(failure_line("mlflow", OSError("x" * 100_000))) < 400


class TestClient:
    def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "wandb", None)
        with pytest.raises(MissingExtraError, match=r'wandb: is not installed - pip install "birdinfer\[wandb\]"'):
            client("wandb", "wandb")

    def test_a_deprecation_is_silenced_only_where_it_is_known(self, monkeypatch, tmp_path):
        (tmp_path / "made_up_client.py").write_text("import warnings\nwarnings.warn('old ways', DeprecationWarning)\n")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(DeprecationWarning, match="old ways"):
            client("made_up_client", "wandb", "new ways")
        assert client("made_up_client", "wandb", "old ways").__name__ == "made_up_client"
