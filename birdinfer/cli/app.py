"""``birdinfer``: the commands, put together; and the one place where an error becomes a line and an exit code.

Exit codes: 0 all good; 1 a fault of birdinfer's own (one line; BIRDINFER_TRACEBACK=1 shows where); 2 the command cannot
be carried out as asked (one line says why); 3 finished, with files that failed or are damaged, or a submission that has
faults; 4 finished, with files left out for want of time; 130 stopped with Ctrl-C, 143 with SIGTERM.
"""

import os
import sys
from typing import Annotated

import typer

import birdinfer
from birdinfer.cli.blend import blend
from birdinfer.cli.bundle import bundle
from birdinfer.cli.bundle_set import set_bundle
from birdinfer.cli.demo import demo
from birdinfer.cli.doctor import doctor
from birdinfer.cli.export import export
from birdinfer.cli.kaggle import kaggle
from birdinfer.cli.kaggle_dry_run import dry_run
from birdinfer.cli.plot import plot
from birdinfer.cli.predict import predict
from birdinfer.cli.prior import prior
from birdinfer.cli.score import score
from birdinfer.cli.steps import steps
from birdinfer.cli.submission import submission
from birdinfer.cli.train import train
from birdinfer.cli.tune import tune
from birdinfer.errors import BirdinferError

EXIT_FAULT = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

app = typer.Typer(
    help="Bird-sound recognition ensembles on long field recordings: train folds, export a bundle, predict, score.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (train, tune, plot, export, predict, demo, blend, score, prior, doctor, steps):
    app.command()(command)
bundle.command("set")(set_bundle)
app.add_typer(bundle, name="bundle")
kaggle.command("dry-run")(dry_run)
app.add_typer(kaggle, name="kaggle")
app.add_typer(submission, name="submission")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(birdinfer.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run a command line and leave with its exit code; errors of birdinfer's own become one line."""
    try:
        app(args=arguments, standalone_mode=True)
    except BirdinferError as error:
        _complain(str(error))
        sys.exit(EXIT_REFUSED)
    except SystemExit as left:
        # typer turns Ctrl-C into this exit code without a word.
        how = {EXIT_INTERRUPTED: "with Ctrl-C", EXIT_TERMINATED: "by SIGTERM"}
        if left.code in how:
            _complain(f"stopped {how[left.code]}")
        raise
    except Exception as error:
        if os.environ.get("BIRDINFER_TRACEBACK"):
            raise
        text = " ".join(str(error).split())
        _complain(
            f"a fault of ours, or of this machine: {type(error).__name__}: {text} - BIRDINFER_TRACEBACK=1 shows where"
        )
        sys.exit(EXIT_FAULT)


def _complain(line: str) -> None:
    from rich.markup import escape

    from birdinfer.cli.console import stderr

    stderr().print(f"[bold red]birdinfer:[/] {escape(line)}")


if __name__ == "__main__":
    main()
