"""Options that several commands share: bundle, blend and post-processing, jobs of a cluster, names of runs, folds."""

import os
from enum import StrEnum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from birdinfer.cli.console import shown, stderr
from birdinfer.errors import ConfigError, InputNotFoundError, MissingExtraError
from birdinfer.inference.blend_text import parse_blend
from birdinfer.inference.bundle import MANIFEST_NAME, Bundle, demo_bundle_path
from birdinfer.postprocess.config import PostConfig
from birdinfer.postprocess.steps import parse_steps

EXPORTS, DEMO = Path("exports"), "demo"


def bundle_folder(given: Path | None, quiet: bool = False, demo: str = f"--bundle {DEMO}") -> Path:
    """Return the bundle that ``--bundle`` names, a folder or ``demo``; if none, the newest in exports/, and print it.

    Raises:
        InputNotFoundError: it is left out, and ``exports/`` holds none but the demo.
    """
    if given is not None:
        return demo_bundle_path() if str(given) == DEMO and not (given / MANIFEST_NAME).is_file() else given
    found = [path for path in EXPORTS.glob(f"*/{MANIFEST_NAME}") if path.parent.name != DEMO and path.is_file()]
    if not found:
        hint = f"birdinfer export makes one from a run; {demo} takes one that knows eight invented species"
        raise InputNotFoundError("bundle", f"none is named, and {EXPORTS}/ holds none of your own", hint)
    newest = max(found, key=lambda path: (path.stat().st_mtime, path)).parent
    if not quiet:
        others = f", the newest of {len(found)} in {EXPORTS}/" if len(found) > 1 else ""
        stderr().print(f"[dim]bundle: {shown(str(newest))}{others}[/]")
    return newest


def with_scoring(bundle: Bundle, smooth: str | None, post: list[str] | None, blend: str | None) -> Bundle:
    """Return the bundle with the blend and the post-processing of the command line."""
    wanted = bundle.manifest.blend if blend is None else parse_blend(blend)
    return bundle.with_scoring(wanted, parse_post(bundle.manifest.post, smooth, post))


def parse_post(own: PostConfig, smooth: str | None, steps: list[str] | None) -> PostConfig:
    """Return the bundle's post-processing, except for what the command line asks for."""
    kernel = parse_kernel(smooth) or own.smoothing_kernel
    wanted = own.steps if steps is None else () if steps == ["none"] else parse_steps(steps)
    return msgspec.structs.replace(own, smoothing_kernel=kernel, steps=wanted)


def parse_kernel(text: str | None) -> tuple[float, ...] | None:
    """``"0.2,0.6,0.2"`` -> (0.2, 0.6, 0.2); ``"none"`` -> (1.0,); None stays None."""
    if text is None:
        return None
    if text == "none":
        return (1.0,)
    try:
        return PostConfig(tuple(float(weight) for weight in text.split(","))).smoothing_kernel
    except ValueError as error:
        raise ConfigError("--smooth", f"{text!r}: {error}", "write it as 0.2,0.6,0.2 or none") from error


class Voice(StrEnum):
    """What becomes of human speech."""

    skip = "skip"
    mute = "mute"


VoiceOption = Annotated[Voice | None, typer.Option(
    "--voice", help="Look for human speech with Silero VAD (pip install --no-deps silero-vad): leave its windows out, "
    "or replace it by silence before anything is scored.")]  # fmt: skip
Output = Annotated[Path, typer.Option("--output", "-o", help="The table to write, a .csv; - is standard output.")]
ScoreFile = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="The table to write: a .csv, .parquet (extra detect) or .npz; - is standard output, CSV."
    ),
]
Channel = Annotated[str, typer.Option(
    "--channel", metavar="mean|1|2|loudest|each",
    help="For files with several channels: their mean, one of them by its number, the loudest with which nothing is "
    "wrong (dead, noise, DC-shifted, clipped), or each as a recording of its own, NAME_ch1 and so on.")]  # fmt: skip
Force = Annotated[bool, typer.Option("--force", help="Replace a file that birdinfer has not written.")]

Recordings = Annotated[list[Path], typer.Argument(help="Sound files and folders of them (searched to the bottom).")]
BundleFolder = Annotated[
    Path | None, typer.Option("--bundle", help="Bundle folder, or demo; the newest in exports/ if left out.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings only.")]


class Merge(StrEnum):
    """How the scores of overlapping windows are combined."""

    mean = "mean"
    max = "max"


class MissingSpecies(StrEnum):
    """What species get that a graph does not know."""

    zero = "zero"
    genus = "genus"


# Options of a run over recordings; the same for predict and detect.
Smooth = Annotated[
    str | None,
    typer.Option(help="Kernel over neighbouring windows, as 0.2,0.6,0.2, or none; the bundle's if left out."),
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="auto measures on this machine which is fastest within the bundle's tolerance; onnxruntime, openvino or "
        "cuda, with a precision if need be (openvino:bf16, onnxruntime:int8). Left out: ONNX Runtime in fp32, on the "
        "GPU where onnxruntime-gpu finds one."
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", "--jobs", "-j", min=1, help="Threads; one per core if left out.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", "-b", min=1,
        help="Windows in one call of a graph. OpenVINO fills up a file's last call: take 1 for files of a window.",
    ),
]  # fmt: skip
Overlap = Annotated[
    float | None,
    typer.Option(min=0, help="Seconds that neighbouring windows share (2.5: half of 5); the bundle's if left out."),
]
MergeOverlapping = Annotated[
    Merge | None, typer.Option(help="How scores of overlapping windows are combined; the bundle's if left out.")
]
Post = Annotated[
    list[str] | None,
    typer.Option(
        help="A step of post-processing, as file_max:power=0.5, or a .toml or .json file of steps; several follow "
        "each other, after the smoothing. none: no step. The bundle's if left out."
    ),
]
BlendMembers = Annotated[
    str | None,
    typer.Option(
        help="How members are combined: mean, geometric, rms, minimum ..., or rank, as rank:GROUP.weight=2 or a .toml "
        "file; the bundle's if left out."
    ),
]
EmbeddingsFolder = Annotated[
    Path | None,
    typer.Option(
        "--embeddings",
        help="Keep the embeddings of all windows in this folder: float16 .npy by recording, and index.csv.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Continue a run that was killed or stopped; repeat the files that were not well."),
]
StartAgain = Annotated[
    bool,
    typer.Option(
        "--force", help="Start again and discard what a stopped run has done; replace what birdinfer has not written."
    ),
]

# Options that submit a command to a cluster instead of running it here; the same for train and tune.
cluster_option = partial(typer.Option, rich_help_panel="Cluster")
ClusterName = Annotated[str | None, cluster_option("--cluster", help="slurm: submit as jobs instead of running here.")]
Partition = Annotated[str | None, cluster_option(help="Partition for the jobs; the cluster's default if left out.")]
Gres = Annotated[str | None, cluster_option(help="What a job needs, as gpu:1 or gpu:V100:1.")]
TimeLimit = Annotated[
    str | None, cluster_option("--time", help="A job's limit, as 12:00:00; it is requeued and continues.")
]
Memory = Annotated[str | None, cluster_option("--mem", help="A job's memory, as 32G.")]
Cpus = Annotated[int | None, cluster_option("--cpus-per-task", min=1, help="Cores for each process.")]
Further = Annotated[
    list[str] | None, cluster_option("--sbatch", help="Any other option of sbatch, as account=birds; repeatable.")
]
Setup = Annotated[
    list[str] | None,
    cluster_option("--setup", help="A line of shell before the work, as 'module load cuda'; repeatable."),
]
Nodes = Annotated[int | None, cluster_option("--nodes", min=1, help="Nodes that train one fold together.")]
ProcessesPerNode = Annotated[
    int | None, cluster_option("--processes", min=1, help="Processes of a node, a GPU each, for one fold.")
]
Template = Annotated[
    Path | None, cluster_option("--template", help="A job's script, a changed copy of one of train/slurm/.")
]
PrintOnly = Annotated[bool, cluster_option("--print", help="Show what would be submitted, submit nothing.")]

SPELLINGS = {"time_limit": "--time", "memory": "--mem", "cpus": "--cpus-per-task", "print_only": "--print"}
"""Options of a cluster that are spelled otherwise than their parameter."""

DEFAULT_RECIPE, DEFAULT_DATA = Path("efficientnet_b0"), Path("data")
"""A recipe by its name; a folder."""
KAGGLE_INPUT = Path("/kaggle/input")
_TRAINING_TABLES = {"train.csv", "train_metadata.csv"}


def find_data(given: Path | None) -> Path | None:
    """The folder of training data: as given, else ``data`` if it is there, else the one that Kaggle has mounted.

    None if there is none of them. ConfigError if Kaggle has mounted several.
    """
    if given is not None or DEFAULT_DATA.exists() or not KAGGLE_INPUT.is_dir():
        return given
    found = []
    for folder, folders, names in os.walk(KAGGLE_INPUT):
        if "train_audio" in folders and _TRAINING_TABLES & set(names):
            found.append(Path(folder))
        # Sound and spectrograms are tens of thousands of files, on a slow disk: mounts are at most three folders deep.
        is_deep = len(Path(folder).relative_to(KAGGLE_INPUT).parts) > 2
        folders[:] = [] if is_deep or found[-1:] == [Path(folder)] else sorted(folders)
    if len(found) > 1:
        raise ConfigError("--data", f"{len(found)} data sets are mounted: {', '.join(map(str, found))}", "name one")
    if found:
        stderr().print(f"data: {shown(str(found[0]))}", highlight=False)
    return found[0] if found else None


def check_name(run: str, option: str = "--run") -> str:
    """Check that the name of a run, or of a study, is that of a folder in the runs' folder and nowhere else."""
    if run in {"", ".", ".."} or Path(run).name != run:
        raise ConfigError(option, f"{run!r} is no name for a folder", "choose its parent with --runs-dir")
    return run


def parse_folds(text: str) -> tuple[int, ...] | None:
    """``"2"`` -> (2,); ``"0,3"`` -> (0, 3); ``"all"`` -> None."""
    if text == "all":
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError("--fold", f"is {text!r}, allowed are 0, 1, ..., several as 0,2, and all")
    return tuple(dict.fromkeys(int(part) for part in parts))


def need_modules(extra: str, *modules: str) -> None:
    """Raise MissingExtraError if a module of an extra is not installed; none of them is imported."""
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtraError(module, extra)
