"""A trained run -> a bundle, whole or not at all.

Everything is made in a folder of its own beside the target and takes the target's place only when each graph has
passed its checks; an export that fails leaves an older bundle as it was.
"""

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

import birdinfer
from birdinfer import mel
from birdinfer.bundle import MANIFEST_NAME, Bundle, file_sha256, labels_sha256, save_manifest
from birdinfer.config import FrontEndConfig, TimelineConfig, WaveformConfig
from birdinfer.errors import CheckpointError, InputNotFoundError, LabelError
from birdinfer.export.held_out import clips_to_check, fallback_probabilities
from birdinfer.export.onnx import FRAMES_NAME, OUTPUT_NAME, export_graph
from birdinfer.export.parity import check_parity, real_windows
from birdinfer.files import atomic_folder
from birdinfer.manifest import FORMAT, Graph, Manifest, Member, Outputs, Provenance
from birdinfer.training.checkpoint import Checkpoint, load_checkpoint
from birdinfer.training.fold_job import BEST
from birdinfer.training.recipe.learning import LossConfig


def export_run(
    run: Path,
    out: Path,
    data_dir: Path | None = None,
    engines: Sequence[str] = ("onnxruntime",),
    report: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Export every trained fold of a run into a bundle.

    Args:
        run: ``runs/NAME`` with ``fold*/best.safetensors``.
        out: the bundle's folder; an older bundle there is replaced.
        data_dir: where the training clips are now; where they were in training if None.
        engines: each graph is compared with its torch model in these.
        report: is told about each step in one line.

    Raises:
        InputNotFoundError: the run has no trained fold.
        LabelError: folds were trained on different labels.
        CheckpointError: folds were trained with different front ends.
        ParityError: a graph does not answer as its model does; nothing is written.
        OutputError: the bundle cannot be written there.
    """
    checkpoints = _checkpoints(run)
    first = next(iter(checkpoints.values()))
    labels = tuple(species.label for species in first.species)
    with atomic_folder(out, "a bundle", "choose another place: --out", MANIFEST_NAME) as staging:
        members = []
        for folder, checkpoint in checkpoints.items():
            member = _export_member(checkpoint, folder, staging, data_dir, engines)
            members.append(member)
            report(f"{folder.name}: {_summary(member)}")
        manifest = Manifest(
            format=FORMAT,
            name=out.name,
            species=first.species,
            rows=first.recipe.frontend.window,
            post=first.recipe.post,
            members=tuple(members),
            fallback_probabilities=fallback_probabilities(checkpoints, labels),
            provenance=Provenance(
                created_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                run=run.name,
                versions={**first.versions, **_versions()},
                recipe=msgspec.to_builtins(first.recipe),
            ),
        )
        save_manifest(staging, manifest)
        Bundle.load(staging)
    return Bundle.load(out)


def _checkpoints(run: Path) -> dict[Path, Checkpoint]:
    """Each trained fold's folder and best checkpoint, in order of folds."""
    if not run.is_dir():
        raise InputNotFoundError(run, "no such run", "birdinfer train makes one")
    folders = sorted(path.parent for path in run.glob(f"fold*/{BEST}"))
    if not folders:
        raise InputNotFoundError(run, f"holds no trained fold (fold*/{BEST})", "birdinfer train makes one")
    checkpoints = {folder: load_checkpoint(folder / BEST) for folder in folders}
    checkpoints = dict(sorted(checkpoints.items(), key=lambda item: item[1].fold))
    first_folder, first = next(iter(checkpoints.items()))
    for folder, checkpoint in checkpoints.items():
        if [species.label for species in checkpoint.species] != [species.label for species in first.species]:
            raise LabelError(
                folder, f"was trained on other labels than {first_folder}", "train all folds on one taxonomy"
            )
        if checkpoint.recipe.frontend != first.recipe.frontend:
            raise CheckpointError(
                folder, f"has another front end than {first_folder}", "train all folds with one recipe"
            )
    return checkpoints


def _export_member(
    checkpoint: Checkpoint, folder: Path, staging: Path, data_dir: Path | None, engines: Sequence[str]
) -> Member:
    """One fold: graph, checks, and its entry in the manifest."""
    recipe, model = checkpoint.recipe, checkpoint.build_model()
    hearing, activation = recipe.hearing, recipe.loss.activation
    labels = tuple(species.label for species in checkpoint.species)
    path = staging / f"{folder.name}.onnx"
    stamp = {"labels_sha256": labels_sha256(labels), "birdinfer": birdinfer.__version__}
    outputs = export_graph(model, hearing, path, stamp)
    clips = clips_to_check(folder, checkpoint, data_dir)
    difference = check_parity(model, path, real_windows(clips, hearing), engines, activation)
    auc = checkpoint.val_macro_auc
    return Member(
        name=folder.name,
        graphs={"fp32": Graph(path.name, file_sha256(path), difference)},
        frontend=hearing if isinstance(hearing, FrontEndConfig) else None,
        frontend_fingerprint=tuple(mel.fingerprint(hearing)) if isinstance(hearing, FrontEndConfig) else None,
        waveform=hearing if isinstance(hearing, WaveformConfig) else None,
        outputs=Outputs(OUTPUT_NAME, FRAMES_NAME if FRAMES_NAME in outputs else None, activation),
        timeline=_timeline(outputs, recipe.loss),
        backbone=recipe.model.backbone,
        fold=checkpoint.fold,
        out_of_fold_macro_auc=None if math.isnan(auc) else auc,
    )


def _timeline(outputs: Sequence[str], loss: LossConfig) -> TimelineConfig:
    """A detector's row is what it was trained for: the clip's score and its loudest frame's, in the loss's shares."""
    return TimelineConfig(frame_share=loss.frame_share) if FRAMES_NAME in outputs else TimelineConfig()


def _summary(member: Member) -> str:
    """What was exported, in one line."""
    auc = member.out_of_fold_macro_auc
    score = "not validated" if auc is None else f"out-of-fold macro AUC {auc:.4f}"
    difference = member.graphs["fp32"].max_probability_difference
    return f"{member.backbone}, {score}, largest |p_onnx - p_torch| {difference:.1e}"


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("onnx", "onnxscript", "onnxruntime")} | {
        "birdinfer": birdinfer.__version__
    }
