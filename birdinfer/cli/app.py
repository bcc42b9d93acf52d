"""``birdinfer``: a table of commands, and the one place where an error becomes a line and an exit code.

Exit codes: 0 all good; 1 a fault in birdinfer itself (one line; BIRDINFER_TRACEBACK=1 shows where); 2 the command
cannot be carried out as asked, or not to its end, or a disk or a permission does not allow it (one line says why); 3
finished, with files that failed, are damaged or are not there, or a submission that has faults; 4 finished, but there
was no time for some files; 129 its terminal was closed, 130 stopped with Ctrl-C, 143 with SIGTERM.
"""

import gc
import os
import sys
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from birdinfer.cli.help import GROUPS, arrange_help
from birdinfer.errors import BirdinferError
from birdinfer.system.streams import lasting_streams
from birdinfer.system.threads import leave
from birdinfer.version import __version__

EXIT_FAULT = 1
EXIT_REFUSED = 2
EXIT_HUNG_UP = 129
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]
"""What a command line that cannot be read raises: newer versions of typer carry a click of their own."""
_WORDS = "birdinfer.words"
_STOPPED = {
    EXIT_HUNG_UP: "because its terminal was closed",
    EXIT_INTERRUPTED: "with Ctrl-C",
    EXIT_TERMINATED: "by SIGTERM",
}

COMMANDS = {
    "data": "Report what there is to train on: one page, a CSV of each table, and what is wrong, the gravest first.",
    "look": "Make a page of clips: a spectrogram and a player for each, with label, author and rating.",
    "train": "Train a fold, or all of them, of one recipe or of several; or train a run on, for INT8.",
    "recipes": "List the recipes that come with birdinfer, the keys of a recipe, and check one.",
    "rounds": "Train rounds of a noisy student, each on labels and on the pseudo-labels of the best round before it.",
    "tune": "Search for a recipe's best values, trial by trial, each a run of train.",
    "runs": "Compare all runs of a folder: scores, epochs, the settings that differ, scores of the leaderboard.",
    "plot": "Draw runs: loss, scores and learning rate over epochs (history.png), ROC-AUC per species (species.png).",
    "export": "Export every trained fold of a run, compare each graph with its torch model on real windows, write the "
    "bundle.",
    "predict": "Predict soundscapes of any number and length and write submission.csv.",
    "pseudo-label": "Score recordings, and write a folder of pseudo-labels to train on.",
    "detect": "Find which species is present when, and write a folder of results.",
    "scale": "Predict an archive that has outgrown one machine: planned, run anywhere, gathered into one result.",
    "demo": "Predict, score and detect three minutes of real sound, and make the page to look at and listen to.",
    "blend": "Blend the score tables of several models into one, and post-process it file by file.",
    "score": "Score a submission against the truth: macro ROC-AUC (BirdCLEF 2024-2026) and padded cmAP (2023).",
    "calibrate": "Find from reviews the confidence from which on detections are right, and store it in the bundle.",
    "prior": "Count in labelled soundscapes which species are recorded where and when: the table of the step "
    "prior_shift.",
    "doctor": "Show what this machine and installation can do, and the command that installs what is missing.",
    "steps": "List the steps of post-processing, as --post takes them, with their defaults.",
    "bundle": "Inspect a bundle, or make an external ONNX model a member of it.",
    "models": "List the public models that are known, and make a bundle of one.",
    "similar": "Find the embedded windows that are most like an example, and write a folder of results.",
    "head": "Fit a head of one's own on embeddings, and pack it into a bundle.",
    "kaggle": "From the data to the leaderboard: fetch it, pack a submission, try it out as Kaggle would, push it.",
    "submission": "Check a submission before Kaggle does, or convert it to another year's format.",
}
"""Command -> the line that ``birdinfer --help`` shows. Its function, or group, has its name, with _ for -, in the
module of that name.
"""


class CommandGroup(TyperGroup):
    """Import a command's module when it runs, so that ``birdinfer --help`` answers at once."""

    def __init__(self, **options: Any) -> None:
        commands = [
            TyperCommand(name, help=COMMANDS[name], rich_help_panel=group)
            for group, names in GROUPS.items()
            for name in names
        ]
        super().__init__(**{**options, "commands": commands})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def make_context(self, info_name: Any, args: list[str], *rest: Any, **extra: Any) -> Any:
        """Keep the words as typed, for the line about a command that cannot be read."""
        words = list(args)
        try:
            context = super().make_context(info_name, args, *rest, **extra)
        except USAGE_ERROR as error:
            _explain(error, words)
            raise
        context.meta[_WORDS] = words
        return context

    def invoke(self, ctx: Any) -> Any:
        """Run the command; one that cannot be read is an error of one line."""
        try:
            return super().invoke(ctx)
        except USAGE_ERROR as error:
            _explain(error, ctx.meta[_WORDS])
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """List the commands as they stand in the table."""
        listed = TyperGroup(name=self.name, commands=dict(self.commands), params=self.params, help=self.help)
        listed.format_help(ctx, formatter)


def _explain(error: Any, words: list[str]) -> None:
    """Raise what is wrong in one line; a group without a command shows its help instead."""
    if type(error).__name__ != "NoArgsIsHelpError":
        from birdinfer.cli.wrong import explain

        raise explain(error, words) from None


def load_command(name: str) -> Any:
    """Import a command of the table and return it with its options."""
    module = name.replace("-", "_")
    found = steps if name == "steps" else getattr(import_module(f"birdinfer.cli.{module}"), module)
    if isinstance(found, typer.Typer):
        group = typer.main.get_group(found)
        group.name = name
        return arrange_help(group, name)
    single = typer.Typer(add_completion=False)
    single.command(name)(found)
    return arrange_help(typer.main.get_command(single), name)


def steps() -> None:
    """List the steps of post-processing, as --post takes them, with their defaults.

    Each stands in birdinfer/postprocess/ with its formula and its source. `birdinfer score --ablate` measures which of
    them help.
    """
    from birdinfer.postprocess.steps import summaries

    for line in summaries():
        step, _, what = line.partition("  ")
        typer.secho(step, bold=True)
        typer.echo(f"    {what}")


app = typer.Typer(
    cls=CommandGroup,
    help="Bird-sound recognition ensembles on long field recordings: train folds, export a bundle, predict, score.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def make_group(name: str) -> typer.Typer:
    """Make the group of commands of a name in the table."""
    settings = {"help_option_names": ["-h", "--help"]}
    return typer.Typer(help=COMMANDS[name], no_args_is_help=True, context_settings=settings)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and leave.")
    ] = False,
) -> None:
    if not gc.isenabled():  # the command's modules are loaded
        gc.freeze()
        gc.enable()


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command line and leave with its exit code; birdinfer's own errors become one line.

    A screen that is gone costs nothing; a result that standard output could not take is an error. Without arguments,
    the process is that of this command, and ends whatever its threads do.
    """
    # What imports make stays: to search it for garbage, again and again and once more at the end, takes 50 ms.
    gc.disable()
    with lasting_streams() as out:
        try:
            code = _run(arguments)
        finally:
            gc.freeze()
            gc.enable()
        out.flush()
        if out.problem is not None and not isinstance(out.problem, BrokenPipeError):
            _print_error(f"standard output: cannot be written ({out.problem.strerror}) - send it elsewhere")
            code = code or EXIT_REFUSED
    if arguments is not None:
        sys.exit(code)
    leave(code)


def _run(arguments: list[str] | None) -> int:
    try:
        app(args=arguments, prog_name="birdinfer", standalone_mode=True)
    except BirdinferError as error:
        _print_error(str(error))
        return EXIT_REFUSED
    except OSError as error:
        if os.environ.get("BIRDINFER_TRACEBACK"):
            raise
        _print_error(_disk_line(error))
        return EXIT_REFUSED
    except SystemExit as left:
        # typer turns Ctrl-C into this exit code without a word.
        if left.code in _STOPPED:
            _print_error(f"stopped {_STOPPED[left.code]}")
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except Exception as error:
        if os.environ.get("BIRDINFER_TRACEBACK"):
            raise
        fault = f"{type(error).__name__}: {' '.join(str(error).split())}"
        _print_error(f"a fault in birdinfer, or of this machine: {fault} - BIRDINFER_TRACEBACK=1 shows where")
        return EXIT_FAULT
    return 0


def _disk_line(error: OSError) -> str:
    """What a disk or a permission does not allow, in one line."""
    where = f"{error.filename}: " if isinstance(error.filename, str | os.PathLike) else ""
    return f"{where}cannot be read or written ({error.strerror or error})"


def _print_error(line: str) -> None:
    from birdinfer.cli import console

    console.stderr().print(f"[bold red]birdinfer:[/] {console.shown(line)}")


if __name__ == "__main__":
    main()
