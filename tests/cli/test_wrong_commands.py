"""Wrong command lines as people type them: one line each, which ends in the command that is right, or an example."""

import shlex

import pytest

from birdinfer.cli.app import COMMANDS, load_command
from birdinfer.cli.help import EXAMPLES


def example(name):
    """The first example of a command's help."""
    return f"{name} {EXAMPLES[name][0]}"


WRONG = {
    # Misspelt commands, and what other programs call them.
    "predit soundscapes": "predict soundscapes",
    "detct 'my recordings' -o found": "detect 'my recordings' -o found",
    "prediction soundscapes": "predict soundscapes",
    "recipe list": "recipes list",
    "infer soundscapes -o s.csv": "predict soundscapes -o s.csv",
    "analyze recordings -o found": "detect recordings -o found",
    "evaluate s.csv truth.csv": "score s.csv truth.csv",
    "ensemble a.csv b.csv -o c.csv": "blend a.csv b.csv -o c.csv",
    "version": "--version",
    "help": "--help",
    "list": "models",
    "fly": "--help",
    "bundle adpt p.onnx --bundle b": "bundle adopt p.onnx --bundle b",
    "kaggle pak --bundle b -o s": "kaggle pack --bundle b -o s",
    "kaggle dryrun submission": "kaggle dry-run submission",
    "submission chek s.csv": "submission check s.csv",
    "recipes shwo strong": "recipes show strong",
    "models download birdnet-2.4 -o b": "models get birdnet-2.4 -o b",
    # Commands of a group without its name.
    "adopt p.onnx --bundle b": "bundle adopt p.onnx --bundle b",
    "pack --bundle b -o s": "kaggle pack --bundle b -o s",
    "convert s.csv -o t.csv --year 2024": "submission convert s.csv -o t.csv --year 2024",
    "dry-run submission": "kaggle dry-run submission",
    # Misspelt options, options of other programs, options in the wrong place.
    "--verison": "--version",
    "--bundle b predict soundscapes": "predict soundscapes --bundle b",
    "predict soundscapes --bundel b": "predict soundscapes --bundle b",
    "predict soundscapes --batch 8": "predict soundscapes --batch-size 8",
    "predict soundscapes --smoothing=0.2,0.6,0.2": "predict soundscapes --smooth=0.2,0.6,0.2",
    "predict soundscapes --model b": "predict soundscapes --bundle b",
    "predict soundscapes --threads 4": "predict soundscapes --workers 4",
    "predict soundscapes --timeout 85m": "predict soundscapes --time-budget 85m",
    "predict soundscapes --verbose": "predict soundscapes",
    "predict soundscapes --zzz": "predict --help",
    "detect recordings -o found --confidence 0.5": "detect recordings -o found --min-confidence 0.5",
    "detect recordings -o found --latitude 48": "detect recordings -o found --lat 48",
    "train --epochs 20 --fold 0": "train --set loop.epochs=20 --fold 0",
    "train --lr=0.001": "train --set optim.lr=0.001",
    "train --backbone regnety_008": "train --set model.backbone=regnety_008",
    "train --config mine.toml": "train --recipe mine.toml",
    "train --folds all": "train --fold all",
    "export --int8": "export --help",
    # Something is missing, or there is too much.
    "predict": example("predict"),
    "detect": example("detect"),
    "models get birdnet-2.4": example("models get"),
    "predict soundscapes --batch-size": example("predict"),
    "train --fold": example("train"),
    "export runs/b0": "export --run runs/b0",
    "train mine.toml --fold 0": "train --recipe mine.toml --fold 0",
    "score s.csv truth.csv third.csv fourth.csv fifth.csv": "score s.csv truth.csv",
    # Values that cannot be.
    "predict soundscapes --batch-size many": "predict soundscapes --batch-size 4",
    "predict soundscapes --workers=all": "predict soundscapes --workers=4",
    "demo --files ten": "demo --files 10",
    "bundle adopt p.onnx --bundle b --activation sigmod": "bundle adopt p.onnx --bundle b --activation sigmoid",
    "bundle adopt perch.onnx --weight -1": example("bundle adopt"),
    "blend a.csv b.csv -o c.csv --how ranks": "blend a.csv b.csv -o c.csv --how rank",
    "detect recordings -o found --lat north": "detect recordings -o found --lat 4",
    "score": example("score"),
}


@pytest.mark.parametrize("typed", WRONG)
def test_a_wrong_command_line_is_one_line_with_the_right_one(birdinfer, typed):
    code, out, err = birdinfer(*shlex.split(typed))
    assert (code, out) == (2, "")
    assert err.startswith("birdinfer: ")
    assert err.endswith(f" - birdinfer {WRONG[typed]}\n")
    assert err.count("\n") == 1


def test_there_are_fifty():
    assert len(WRONG) >= 50


@pytest.mark.parametrize("right", sorted({line for line in WRONG.values() if "--help" not in line and line[0] != "-"}))
def test_the_right_one_can_be_read(right):
    name, *words = shlex.split(right)
    assert name in COMMANDS
    command = load_command(name)
    with command.make_context(name, words) as context:
        if hasattr(command, "commands") and words:
            child, child_name, rest = command.resolve_command(context, words)[1], words[0], words[1:]
            child.make_context(child_name, rest, parent=context)


def test_a_group_without_a_command_shows_its_help(birdinfer):
    code, out, err = birdinfer("kaggle")
    assert code == 2
    assert "dry-run" in out + err
