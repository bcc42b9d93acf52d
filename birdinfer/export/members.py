"""One fold of a run -> a member of a bundle: its graph, checked against the model, its variants, its entry.

In: a fold's folder. Out: :class:`~birdinfer.manifest.Member`, its files in the bundle's folder. Recordings are looked
for before anything is exported: a wrong folder of clips is told in a second, not after a minute.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import birdinfer
from birdinfer import mel
from birdinfer.bundle import file_sha256, labels_sha256
from birdinfer.config import FrontEndConfig, TimelineConfig, WaveformConfig
from birdinfer.errors import CheckpointError, ConfigError
from birdinfer.export.fold_soup import check_soup, soup_of_folds, soup_scores
from birdinfer.export.graphs.faster_export import export_faster
from birdinfer.export.graphs.onnx import FRAMES_NAME, OUTPUT_NAME, Exporter, export_graph
from birdinfer.export.graphs.parity import check_parity, real_waveforms, real_windows
from birdinfer.export.graphs.waveform_graph import export_with_frontend
from birdinfer.export.int8.nncf import import_nncf
from birdinfer.export.int8.quantize import Int8Settings
from birdinfer.export.judging.judge import Judge
from birdinfer.export.options import ExportOptions, Reporter
from birdinfer.export.variants import Variants, make_variants
from birdinfer.export.windows.calibration_windows import CalibrationWindows, draw_calibration
from birdinfer.export.windows.held_out import clips_to_check, validated_clips
from birdinfer.export.windows.labelled import LabelledWindows, held_out_windows, soundscape_windows
from birdinfer.manifest import Graph, Member, Outputs
from birdinfer.soundscapes import find_soundscapes
from birdinfer.tables.score_table import read_scores
from birdinfer.training.checkpoint import Checkpoint, load_checkpoint
from birdinfer.training.fold_job import BEST
from birdinfer.training.recipe.learning import LossConfig, ModelConfig

Float32 = npt.NDArray[np.float32]

SOUP = "soup"


class MemberMaker:
    """Makes the members of one bundle; what the first fold has found out serves the others."""

    def __init__(
        self, staging: Path, data_dir: Path | None, engines: Sequence[str], options: ExportOptions, reporter: Reporter
    ) -> None:
        """Nothing is made yet.

        Args:
            staging: the folder that becomes the bundle.
            data_dir: where the training clips are now; where they were in training if None.
            engines: each graph is compared with its torch model in these.
            options: what else is made of each graph.
            reporter: is told about each step.

        Raises:
            MissingExtraError: a variant is wanted whose maker is not installed.
        """
        if "nncf" in options.quantize:
            import_nncf()  # told now, not after minutes
        self._staging, self._data_dir, self._engines = staging, data_dir, engines
        self._options, self._reporter = options, reporter
        self._exporters: dict[ModelConfig, Exporter] = {}
        self._settings: dict[ModelConfig, Int8Settings] = {}
        self.heard = np.zeros((0, 0), np.float32)
        """Real windows of the last member, as it takes them [windows, ...]."""
        self.for_other_hosts: tuple[Graph, ...] = ()
        """Graphs with the front end inside."""

    def member(self, folder: Path) -> Member:
        """One fold.

        Raises:
            BirdinferError: as :func:`birdinfer.export.bundler.export_run`.
        """
        checkpoint = load_checkpoint(folder / BEST)
        clips = self._clips(folder, checkpoint)
        return self._made(folder.name, folder, checkpoint, checkpoint.build_model(), clips)

    def soup(self, folds: Mapping[Path, Checkpoint]) -> Member:
        """All folds, averaged into one network.

        Raises:
            CheckpointError: their weights make no soup.
            BirdinferError: as :func:`birdinfer.export.bundler.export_run`.
        """
        folder = next(iter(folds))
        checkpoints = [load_checkpoint(one / BEST) for one in folds]
        first = checkpoints[0]
        clips = self._clips(folder, first)
        windows = self._training_windows(folder, first, self._options.n_calibration_windows)
        model = soup_of_folds(checkpoints, np.concatenate(list(windows)))
        labelled = self._labelled(folder, first)
        networks = [checkpoint.build_model() for checkpoint in checkpoints]
        scores = soup_scores(model, networks, labelled.heard, labelled.truth, first.recipe.loss.activation)
        refused = check_soup(scores)
        if refused:
            raise CheckpointError(folder.parent, refused, "export the folds: leave --soup out")
        self._reporter.line(
            f"soup of {len(folds)} folds: macro AUC {scores.soup:.4f}, the folds {min(scores.folds):.4f} to "
            f"{max(scores.folds):.4f}, their ensemble {scores.ensemble:.4f}, on {len(labelled.heard)} labelled "
            f"windows; clips that {folder.name} held out, the other folds have learnt from"
        )
        return self._made(SOUP, folder, first, model, clips, labelled)

    def _clips(self, folder: Path, checkpoint: Checkpoint) -> list[Path]:
        """Recordings to compare on; whatever is wrong with the data is told here, before minutes are spent."""
        clips = clips_to_check(folder, checkpoint, self._data_dir)
        self.heard = real_windows(clips, checkpoint.recipe.hearing)
        options, has_held_out = self._options, not checkpoint.recipe.data.all_data
        if options.soundscapes is not None and options.truth is not None:
            find_soundscapes([options.soundscapes])
            read_scores(options.truth)
        elif options.needs_labels and not has_held_out:
            what = "the run trained on all clips and held out none to judge variants or a soup on"
            raise ConfigError("data.all_data", what, "give labelled soundscapes: --judge-on FOLDER --truth TABLE")
        if options.needs_labels and has_held_out:
            validated_clips(folder, checkpoint, self._data_dir)
        return clips

    def _made(
        self,
        name: str,
        folder: Path,
        checkpoint: Checkpoint,
        model: torch.nn.Module,
        clips: Sequence[Path],
        labelled: LabelledWindows | None = None,
    ) -> Member:
        """Graph, variants and entry; ``labelled``, if variants are to be judged on windows that are at hand already."""
        recipe = checkpoint.recipe
        hearing, activation = recipe.hearing, recipe.loss.activation
        labels = tuple(species.label for species in checkpoint.species)
        path = self._staging / f"{name}.onnx"
        names, difference = self._exported(model, checkpoint, path)
        outputs = Outputs(OUTPUT_NAME, FRAMES_NAME if FRAMES_NAME in names else None, activation)
        auc = math.nan if name == SOUP else checkpoint.val_macro_auc
        self._reporter.line(f"{name}: {_summary(recipe.model.backbone, auc, difference)}")
        variants = Variants({}, (), None)
        if self._options.has_variants:
            labelled = labelled or self._labelled(folder, checkpoint)
            variants = self._variants(folder, checkpoint, path, Judge(path, outputs, labels, labelled))
        if self._options.with_frontend:
            self._write_with_frontend(path, checkpoint, labels, clips)
        return Member(
            name=name,
            graphs={"fp32": Graph(path.name, file_sha256(path), difference), **variants.graphs},
            frontend=hearing if isinstance(hearing, FrontEndConfig) else None,
            frontend_fingerprint=tuple(mel.fingerprint(hearing)) if isinstance(hearing, FrontEndConfig) else None,
            waveform=hearing if isinstance(hearing, WaveformConfig) else None,
            outputs=outputs,
            timeline=_timeline(outputs, recipe.loss),
            backbone=recipe.model.backbone,
            fold=None if name == SOUP else checkpoint.fold,
            out_of_fold_macro_auc=None if math.isnan(auc) else auc,
            variants=variants.tried,
        )

    def _exported(self, model: torch.nn.Module, checkpoint: Checkpoint, path: Path) -> tuple[tuple[str, ...], float]:
        """Names of the graph's outputs and its largest difference; by the exporter that was faster for an earlier fold.

        Raises:
            ParityError: it does not answer as the model does.
        """
        hearing, activation = checkpoint.recipe.hearing, checkpoint.recipe.loss.activation
        labels = tuple(species.label for species in checkpoint.species)
        stamp = {"labels_sha256": labels_sha256(labels), "birdinfer": birdinfer.__version__}
        self._reporter.step(f"exporting {path.stem}", 0, 1)
        network = checkpoint.recipe.model
        if network in self._exporters:
            names = export_graph(model, hearing, path, stamp, self._exporters[network])
            return names, check_parity(model, path, self.heard, self._engines, activation)
        exported = export_faster(model, hearing, path, stamp, self.heard, self._engines, activation)
        self._exporters[network] = exported.exporter
        self._reporter.line(f"{path.stem}: {exported.summary()}")
        return exported.outputs, exported.max_probability_difference

    def _variants(self, folder: Path, checkpoint: Checkpoint, path: Path, judge: Judge) -> Variants:
        options = self._options
        windows: Sequence[Float32] = ()
        if {"static", "nncf"} & set(options.quantize):
            n_windows = options.n_calibration_windows + options.n_tuning_windows
            windows = self._training_windows(folder, checkpoint, n_windows)
        network = checkpoint.recipe.model
        variants = make_variants(path, windows, judge, options, self._reporter, self._settings.get(network))
        if variants.settings is not None:
            self._settings[network] = variants.settings
        return variants

    def _training_windows(self, folder: Path, checkpoint: Checkpoint, n_windows: int) -> CalibrationWindows:
        """Windows of the clips that a fold learnt from; those that cannot be decoded are told."""
        windows = draw_calibration(folder, checkpoint, self._data_dir, n_windows)
        for failed in windows.failed:
            self._reporter.line(f"left out of calibration: {failed}")
        return windows

    def _labelled(self, folder: Path, checkpoint: Checkpoint) -> LabelledWindows:
        """The fold's held-out clips, and labelled soundscapes where they are given: one of them at least."""
        options, labels = self._options, [species.label for species in checkpoint.species]
        sets = []
        if not checkpoint.recipe.data.all_data:
            sets.append(held_out_windows(folder, checkpoint, self._data_dir))
        if options.soundscapes is not None and options.truth is not None:
            sets.append(soundscape_windows(options.soundscapes, options.truth, labels, checkpoint.recipe.hearing))
        for one in sets:
            for failed in one.failed:
                self._reporter.line(f"left out of judging: {failed}")
        return _together(sets)

    def _write_with_frontend(
        self, path: Path, checkpoint: Checkpoint, labels: Sequence[str], clips: Sequence[Path]
    ) -> None:
        hearing = checkpoint.recipe.hearing
        if isinstance(hearing, WaveformConfig):
            self._reporter.line(f"{path.name}: takes the waveform as it is")
            return
        out = path.with_suffix(".waveform.onnx")
        waveforms = real_waveforms(clips, hearing)
        difference = export_with_frontend(path, hearing, checkpoint.recipe.loss.activation, labels, out, waveforms)
        self.for_other_hosts += (Graph(out.name, file_sha256(out), difference),)
        self._reporter.line(f"{out.name}: takes the waveform; largest |p - p_birdinfer| {difference:.1e}")


def _together(sets: Sequence[LabelledWindows]) -> LabelledWindows:
    """Several sets as one; their recordings are different ones."""
    recordings, n_before = [], 0
    for one in sets:
        recordings.append(one.recordings + n_before)
        n_before += int(one.recordings.max()) + 1
    return LabelledWindows(
        np.concatenate([one.heard for one in sets]),
        np.concatenate([one.truth for one in sets]),
        np.concatenate([one.known for one in sets]),
        np.concatenate(recordings),
        tuple(failed for one in sets for failed in one.failed),
    )


def _timeline(outputs: Outputs, loss: LossConfig) -> TimelineConfig:
    """A detector's row is what it was trained for: the clip's score and its loudest frame's, in the loss's shares."""
    return TimelineConfig(frame_share=loss.frame_share) if outputs.frames is not None else TimelineConfig()


def _summary(backbone: str, auc: float, difference: float) -> str:
    """What was exported, in one line."""
    score = "not validated" if math.isnan(auc) else f"out-of-fold macro AUC {auc:.4f}"
    return f"{backbone}, {score}, largest |p_onnx - p_torch| {difference:.1e}"
