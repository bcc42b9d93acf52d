"""A trained run -> a bundle, whole or not at all.

Everything is made in a folder of its own beside the target and takes the target's place only when each graph has
passed its checks; an export that fails leaves an older bundle as it was. One fold's weights are in memory at a time.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

import birdinfer
from birdinfer.bundle import MANIFEST_NAME, Bundle, save_manifest
from birdinfer.bundle_settings import stored_post
from birdinfer.errors import CheckpointError, InputNotFoundError, LabelError
from birdinfer.export.fused_bundle import check_fusable, fused_if_faster
from birdinfer.export.members import MemberMaker
from birdinfer.export.options import ExportOptions, Reporter, Silent
from birdinfer.export.windows.held_out import fallback_probabilities
from birdinfer.files import atomic_folder
from birdinfer.manifest import FORMAT, Manifest, Provenance
from birdinfer.training.checkpoint import Checkpoint, load_header
from birdinfer.training.fold_job import BEST


def export_run(
    run: Path,
    out: Path,
    data_dir: Path | None = None,
    engines: Sequence[str] = ("onnxruntime",),
    options: ExportOptions = ExportOptions(),  # noqa: B008 - frozen
    reporter: Reporter = Silent(),  # noqa: B008 - holds nothing
) -> Bundle:
    """Export every trained fold of a run into a bundle.

    Args:
        run: ``runs/NAME`` with ``fold*/best.safetensors``.
        out: the bundle's folder; an older bundle there is replaced.
        data_dir: where the training clips are now; where they were in training if None.
        engines: each graph is compared with its torch model in these.
        options: what else is made of each graph.
        reporter: is told about each step.

    Raises:
        InputNotFoundError: the run has no trained fold.
        LabelError: folds were trained on different labels.
        ConfigError: members cannot be fused, or nothing is there to judge variants on.
        MissingExtraError: what makes a variant, or an engine, is not installed.
        CheckpointError: folds were trained with different front ends, or their weights make no soup.
        ParityError: a graph does not answer as its model does; nothing is written.
        OutputError: the bundle cannot be written there.
    """
    folds = _folds(run)
    first = next(iter(folds.values()))
    labels = tuple(species.label for species in first.species)
    if options.fuse:
        heard = [checkpoint.recipe.hearing for checkpoint in folds.values()]
        check_fusable(heard[:1] if options.soup else heard)
    with atomic_folder(out, "a bundle", "choose another place: --out", MANIFEST_NAME) as staging:
        maker = MemberMaker(staging, data_dir, engines, options, reporter)
        members = [maker.soup(folds)] if options.soup else [maker.member(folder) for folder in folds]
        if options.fuse:
            members = fused_if_faster(members, staging, maker.heard, reporter)
        manifest = Manifest(
            format=FORMAT,
            name=out.name,
            species=first.species,
            rows=first.recipe.frontend.window,
            post=stored_post(first.recipe.post, staging),
            members=tuple(members),
            fallback_probabilities=fallback_probabilities(folds, labels),
            provenance=_provenance(run, first),
            for_other_hosts=maker.for_other_hosts,
        )
        save_manifest(staging, manifest)
        Bundle.load(staging)
    return Bundle.load(out)


def _folds(run: Path) -> dict[Path, Checkpoint]:
    """Each trained fold's folder and what its best checkpoint says of itself, without weights, in order of folds."""
    if not run.is_dir():
        raise InputNotFoundError(run, "no such run", "birdinfer train makes one")
    folders = sorted(path.parent for path in run.glob(f"fold*/{BEST}"))
    if not folders:
        raise InputNotFoundError(run, f"holds no trained fold (fold*/{BEST})", "birdinfer train makes one")
    folds = {folder: Checkpoint(folder / BEST, load_header(folder / BEST), {}) for folder in folders}
    folds = dict(sorted(folds.items(), key=lambda item: item[1].fold))
    first_folder, first = next(iter(folds.items()))
    for folder, checkpoint in folds.items():
        if [species.label for species in checkpoint.species] != [species.label for species in first.species]:
            raise LabelError(
                folder, f"was trained on other labels than {first_folder}", "train all folds on one taxonomy"
            )
        if checkpoint.recipe.frontend != first.recipe.frontend:
            raise CheckpointError(
                folder, f"has another front end than {first_folder}", "train all folds with one recipe"
            )
    return folds


def _provenance(run: Path, first: Checkpoint) -> Provenance:
    return Provenance(
        created_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        run=run.name,
        versions={**first.versions, **_versions()},
        recipe=msgspec.to_builtins(first.recipe),
    )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("onnx", "onnxscript", "onnxruntime")} | {
        "birdinfer": birdinfer.__version__
    }
