"""Run a command line in this process."""

import pytest

from birdinfer.cli.app import main


@pytest.fixture
def birdinfer(capsys):
    """``birdinfer("predict", folder)`` -> (exit code, standard output, standard error)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return left.value.code or 0, printed.out, printed.err

    return run
