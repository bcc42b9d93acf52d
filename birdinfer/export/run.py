"""A trained run -> a bundle, whole or not at all.

In: a folder ``runs/NAME`` with a checkpoint per fold. Out: a folder with ``manifest.json`` and ONNX graphs. A staging
folder beside the target replaces it only when each graph has passed its checks: an export that fails leaves an older
bundle unchanged. The weights of one fold are in memory at a time.
"""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import msgspec

from birdinfer.errors import CheckpointError, InputNotFoundError, LabelError
from birdinfer.export.acceptance.held_out import fallback_probabilities
from birdinfer.export.callbacks import ExportCallback
from birdinfer.export.fuse import check_fusable, fused_if_faster
from birdinfer.export.member import MemberMaker
from birdinfer.export.overrides import with_overrides
from birdinfer.export.settings import ExportSettings
from birdinfer.inference.bundle import MANIFEST_NAME, Bundle, save_manifest, stored_post
from birdinfer.inference.manifest import FORMAT, Manifest, Provenance
from birdinfer.inference.trained_on import RECORD
from birdinfer.runs.layout import BEST, weights_file
from birdinfer.system.files import atomic_folder, check_replaceable, write_atomic
from birdinfer.system.locks import locked
from birdinfer.system.outputs import check_folder
from birdinfer.tables.csv import csv_text
from birdinfer.training.checkpoint import Checkpoint, load_header
from birdinfer.training.data.folds_file import FOLDS_FILE, folds_by_name
from birdinfer.training.data.source_tables import PREFIX
from birdinfer.training.recipe.schema import Recipe
from birdinfer.version import __version__

_SILENT = ExportCallback()
_ELSEWHERE = "choose another place: --out"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOutcome:
    """The bundle that an export wrote, and what it took."""

    bundle: Bundle
    size_mb: float  # of all files of the bundle, in 10^6 bytes
    seconds: float
    peak_memory_mb: float | None  # most held by this process so far, in 2^20 bytes; None if not reported


def export_run(settings: ExportSettings, callback: ExportCallback = _SILENT) -> ExportOutcome:
    """Export every trained fold of a run into a bundle.

    ::

        outcome = export_run(ExportSettings(run=Path("runs/esc10"), quantize=("static",)))
        outcome.bundle.manifest.members[0].variants

    Raises:
        InputNotFoundError: there is no run, or it has no trained fold.
        LabelError: folds were trained on different labels.
        ConfigError: members cannot be fused, or there is nothing to test variants on.
        MissingExtraError: what makes a variant, or an engine, is not installed.
        CheckpointError: folds were trained with different front ends, or their mean weights are no usable network.
        ParityError: a graph does not answer as its model does; nothing is written.
        OutputError: the bundle cannot be written there.
    """
    began = perf_counter()
    run = settings.run or latest_run(Path("runs"))
    out = settings.out or Path("exports") / Path(os.path.realpath(run)).name
    read = filter(None, (run, settings.data_dir, settings.soundscapes, settings.truth))
    check_folder(out, read, hint=_ELSEWHERE)
    check_replaceable(out, "a bundle", _ELSEWHERE, MANIFEST_NAME)
    folds = _folds(run, settings)
    first = next(iter(folds.values()))
    labels = tuple(species.label for species in first.species)
    if settings.fuse:
        inputs = [checkpoint.recipe.input_config for checkpoint in folds.values()]
        check_fusable(inputs[:1] if settings.soup else inputs)
    with ExitStack() as last, atomic_folder(out, "a bundle", _ELSEWHERE, MANIFEST_NAME) as staging:
        maker = MemberMaker(staging, settings, callback)
        members = [maker.soup(folds)] if settings.soup else [maker.member(folder) for folder in folds]
        if settings.fuse:
            members = fused_if_faster(members, staging, maker.inputs, callback)
        manifest = Manifest(
            format=FORMAT,
            name=out.name,
            species=first.species,
            rows=first.recipe.frontend.window,
            post=stored_post(first.recipe.post, staging),
            members=tuple(members),
            fallback_probabilities=fallback_probabilities(folds, labels),
            provenance=_provenance(run, first, settings.epoch),
            for_other_hosts=maker.for_other_hosts,
        )
        if (run / FOLDS_FILE).is_file():
            write_atomic(staging / RECORD, _labelled_files(run / FOLDS_FILE, first.recipe))
        save_manifest(staging, manifest)
        Bundle.load(staging)
        # While the folders change places, no process adds a member to the older one.
        last.enter_context(locked(out))
    bundle, peak = Bundle.load(out), _peak_memory_mb()
    size_mb = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    return ExportOutcome(bundle=bundle, size_mb=size_mb, seconds=perf_counter() - began, peak_memory_mb=peak)


def latest_run(runs: Path) -> Path:
    """Find the run with the newest checkpoint; raise InputNotFoundError if nothing has been trained there."""
    checkpoints = sorted(runs.glob(f"*/fold*/{BEST}"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        raise InputNotFoundError(runs, "holds no trained run", "birdinfer train --fold 0 makes one, or name one: --run")
    return checkpoints[-1].parents[1]


def _folds(run: Path, settings: ExportSettings) -> dict[Path, Checkpoint]:
    if not run.is_dir():
        raise InputNotFoundError(run, "no such run", "birdinfer train makes one")
    folders = sorted(path.parent for path in run.glob(f"fold*/{BEST}"))
    if not folders:
        raise InputNotFoundError(run, f"holds no trained fold (fold*/{BEST})", "birdinfer train makes one")
    paths = {folder: _weights(folder, settings.epoch) for folder in folders}
    headers = {folder: Checkpoint(path, load_header(path), {}) for folder, path in paths.items()}
    folds = {folder: with_overrides(header, settings.overrides) for folder, header in headers.items()}
    folds = dict(sorted(folds.items(), key=lambda item: item[1].fold))
    first_folder, first = next(iter(folds.items()))
    for folder, checkpoint in folds.items():
        if [species.label for species in checkpoint.species] != [species.label for species in first.species]:
            what, hint = f"was trained on other labels than {first_folder}", "train all folds on one taxonomy"
            raise LabelError(folder, what, hint)
        if checkpoint.recipe.frontend != first.recipe.frontend:
            what, hint = f"has another front end than {first_folder}", "train all folds with one recipe"
            raise CheckpointError(folder, what, hint)
    return folds


def _weights(folder: Path, epoch: int | None) -> Path:
    """The weights of a fold's epoch; InputNotFoundError, which names those that are there, if they were not kept."""
    path = weights_file(folder, epoch)
    if epoch is not None and not path.is_file():
        kept = [str(int(each.stem.removeprefix("epoch"))) for each in sorted(path.parent.glob("epoch*.safetensors"))]
        there = f"kept are {', '.join(kept)}" if kept else "train with --set loop.keep_epochs=1 to keep each"
        raise InputNotFoundError(folder, f"has no weights of epoch {epoch}", there)
    return path


def _labelled_files(folds: Path, recipe: Recipe) -> str:
    """Which labelled files the folds were trained on; of pseudo-labelled ones no model knows the truth."""
    pseudo = tuple(f"{PREFIX}{one.title}/" for one in recipe.data.sources if one.kind == "pseudo_labels")
    named = ((name, fold) for name, (_, fold) in folds_by_name(folds).items() if not name.startswith(pseudo))
    return csv_text(("filename", "fold"), named)


def _provenance(run: Path, first: Checkpoint, epoch: int | None) -> Provenance:
    own = {name: version(name) for name in ("onnx", "onnxscript", "onnxruntime")} | {"birdinfer": __version__}
    return Provenance(
        created_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        run=run.name,
        versions={**first.versions, **own},
        recipe=msgspec.to_builtins(first.recipe),
        epoch=epoch,
    )


def _peak_memory_mb() -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
    return kilobytes / 1024 if kilobytes else None
