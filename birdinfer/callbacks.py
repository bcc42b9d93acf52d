"""What a long run reports on its way: one base class whose methods do nothing until they are overridden.

Each stage extends it beside its own code (``prediction``, ``training``, ``tuning``, ``export``) with the events that
only that stage has. ``cli/progress.py`` shows all of them; a notebook or a test overrides the few that it wants.
"""


class Callback:
    """Receive what every kind of run reports.

    Methods are called from the thread that started the run unless a stage says otherwise.

    >>> class Printer(Callback):
    ...     def on_message(self, line: str) -> None:
    ...         print(line)
    >>> Printer().on_message("3 of 8 files are done")
    3 of 8 files are done
    """

    def on_message(self, line: str) -> None:
        """Report something worth a line; a quiet command leaves it out."""

    def on_warning(self, line: str) -> None:
        """Report something that the user must see, also from a quiet command."""

    def on_progress(self, task: str, done: float, total: float) -> None:
        """Report how far a task is, in files, steps or whatever it counts; the last call has ``done == total``."""
