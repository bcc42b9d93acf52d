"""One fold of a run -> a member of a bundle: its graph, compared with the network, its variants, its manifest entry.

Its files lie in the staging folder. Recordings are looked for before anything is exported, so that a wrong data folder
is reported after a second and not after a minute.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from birdinfer.config import AggregationConfig, FrontEndConfig, WaveformConfig
from birdinfer.errors import CheckpointError, ConfigError
from birdinfer.export.acceptance.calibration_data import CalibrationWindows, draw_calibration
from birdinfer.export.acceptance.held_out import clips_to_check, validated_clips
from birdinfer.export.acceptance.labelled import (
    LabelledWindows,
    held_out_windows,
    join_sets,
    read_soundscape_truth,
    soundscape_windows,
)
from birdinfer.export.acceptance.measure import AcceptanceTest
from birdinfer.export.callbacks import ExportCallback
from birdinfer.export.int8.alternatives import import_nncf
from birdinfer.export.int8.quantize import Int8Settings
from birdinfer.export.onnx.choose_exporter import export_faster
from birdinfer.export.onnx.frontend import export_with_frontend
from birdinfer.export.onnx.torch_export import (
    FRAMES_NAME,
    OUTPUT_NAME,
    Exporter,
    check_parity,
    export_graph,
    real_waveforms,
    real_windows,
)
from birdinfer.export.overrides import with_overrides
from birdinfer.export.settings import ExportSettings
from birdinfer.export.soup import check_soup, soup_of_folds, soup_scores
from birdinfer.export.variants import VariantMaker, Variants
from birdinfer.features import log_mel as mel
from birdinfer.inference.bundle import file_sha256, labels_sha256
from birdinfer.inference.manifest import Graph, Member, Outputs
from birdinfer.inference.soundscapes import find_soundscapes
from birdinfer.inference.trained_on import SOUP
from birdinfer.runs.layout import weights_file
from birdinfer.training.checkpoint import Checkpoint, load_checkpoint
from birdinfer.training.recipe.schema import ModelConfig
from birdinfer.typing import Float32
from birdinfer.version import __version__


class MemberMaker:
    """Makes the members of one bundle in a staging folder; what is found for the first fold is used for the others.

    Methods raise as :func:`birdinfer.export.run.export_run`.
    """

    def __init__(self, staging: Path, settings: ExportSettings, callback: ExportCallback) -> None:
        """Prepare; MissingExtraError if a wanted variant's maker is not installed."""
        if "nncf" in settings.quantize:
            import_nncf()  # fails now if it is missing, not after minutes
        self._staging, self._settings, self._callback = staging, settings, callback
        self._exporters: dict[ModelConfig, Exporter] = {}
        self._int8_settings: dict[ModelConfig, Int8Settings] = {}
        self.inputs = np.zeros((0, 0), np.float32)  # real windows of the last member [windows, ...]
        self.for_other_hosts: tuple[Graph, ...] = ()  # graphs with the front end inside

    def member(self, folder: Path) -> Member:
        """Make the member of one fold."""
        checkpoint = self._checkpoint(folder)
        clips = self._clips(folder, checkpoint)
        return self._made(folder.name, folder, checkpoint, checkpoint.build_model(), clips=clips)

    def soup(self, folds: Mapping[Path, Checkpoint]) -> Member:
        """Make one member with the mean weights of all folds; CheckpointError if these are no usable network."""
        folder = next(iter(folds))
        checkpoints = [self._checkpoint(each) for each in folds]
        first = checkpoints[0]
        clips = self._clips(folder, first)
        windows = self._training_windows(folder, first, self._settings.n_calibration_windows)
        model = soup_of_folds(checkpoints, np.concatenate(list(windows)))
        labelled = self._labelled(folder, first)
        networks = [checkpoint.build_model() for checkpoint in checkpoints]
        scores = soup_scores(model, networks, labelled.inputs, labelled.truth, activation=first.recipe.loss.activation)
        refused = check_soup(scores)
        if refused:
            raise CheckpointError(folder.parent, refused, "export the folds: leave --soup out")
        self._callback.on_message(
            f"soup of {len(folds)} folds: macro AUC {scores.soup:.4f}, the folds {min(scores.folds):.4f} to "
            f"{max(scores.folds):.4f}, their ensemble {scores.ensemble:.4f}, on {len(labelled.inputs)} labelled "
            f"windows; the other folds were trained on clips that {folder.name} held out"
        )
        return self._made(SOUP, folder, first, model, clips=clips, labelled=labelled)

    def _checkpoint(self, folder: Path) -> Checkpoint:
        loaded = load_checkpoint(weights_file(folder, self._settings.epoch))
        return with_overrides(loaded, self._settings.overrides)

    def _clips(self, folder: Path, checkpoint: Checkpoint) -> list[Path]:
        """Recordings for the comparison; whatever is wrong with the data fails here, before minutes are spent."""
        clips = clips_to_check(folder, checkpoint, self._settings.data_dir)
        self.inputs = real_windows(clips, checkpoint.recipe.input_config)
        settings, has_held_out = self._settings, not checkpoint.recipe.data.all_data
        if settings.soundscapes is not None and settings.truth is not None:
            find_soundscapes([settings.soundscapes])
            input_config = checkpoint.recipe.input_config
            read_soundscape_truth(settings.truth, settings.soundscapes, checkpoint.species, input_config)
        elif settings.needs_labels and not has_held_out:
            what = "the run trained on all clips and held out none to evaluate variants or a soup on"
            raise ConfigError("data.all_data", what, "give labelled soundscapes: --judge-on FOLDER --truth TABLE")
        if settings.needs_labels and has_held_out:
            validated_clips(folder, checkpoint, settings.data_dir)
        return clips

    def _made(
        self,
        name: str,
        folder: Path,
        checkpoint: Checkpoint,
        model: torch.nn.Module,
        *,
        clips: Sequence[Path],
        labelled: LabelledWindows | None = None,
    ) -> Member:
        recipe = checkpoint.recipe
        input_config, activation = recipe.input_config, recipe.loss.activation
        frontend = input_config if isinstance(input_config, FrontEndConfig) else None
        labels = tuple(species.label for species in checkpoint.species)
        path = self._staging / f"{name}.onnx"
        names, difference = self._exported(model, checkpoint, path)
        outputs = Outputs(OUTPUT_NAME, FRAMES_NAME if FRAMES_NAME in names else None, activation)
        # A detector's row is what it was trained for: clip score and loudest frame's score, weighted as in the loss.
        has_frames, share = outputs.frames is not None, recipe.loss.frame_share
        aggregation = AggregationConfig(frame_share=share) if has_frames else AggregationConfig()
        auc = math.nan if name == SOUP else checkpoint.val_macro_auc
        score = "not validated" if math.isnan(auc) else f"out-of-fold macro AUC {auc:.4f}"
        parity = f"largest |p_onnx - p_torch| {difference:.1e}"
        self._callback.on_message(f"{name}: {recipe.model.backbone}, {score}, {parity}")
        variants = Variants({}, (), None)
        if self._settings.has_variants:
            labelled = labelled or self._labelled(folder, checkpoint)
            variants = self._variants(folder, checkpoint, AcceptanceTest(path, outputs, labels, labelled), path)
        if self._settings.with_frontend:
            self._write_with_frontend(path, checkpoint, labels, clips)
        member = Member(
            name=name,
            graphs={"fp32": Graph(path.name, file_sha256(path), difference), **variants.graphs},
            frontend=frontend,
            frontend_fingerprint=None if frontend is None else tuple(mel.fingerprint(frontend)),
            waveform=input_config if isinstance(input_config, WaveformConfig) else None,
            outputs=outputs,
            aggregation=aggregation,
            backbone=recipe.model.backbone,
            fold=None if name == SOUP else checkpoint.fold,
            out_of_fold_macro_auc=None if math.isnan(auc) else auc,
            variants=variants.tried,
        )
        self._callback.on_member(member)
        return member

    def _exported(self, model: torch.nn.Module, checkpoint: Checkpoint, path: Path) -> tuple[tuple[str, ...], float]:
        """Use the exporter that was faster for an earlier fold; return outputs and the largest difference."""
        input_config, activation = checkpoint.recipe.input_config, checkpoint.recipe.loss.activation
        labels = tuple(species.label for species in checkpoint.species)
        stamp = {"labels_sha256": labels_sha256(labels), "birdinfer": __version__}
        engines, network = self._settings.engines, checkpoint.recipe.model
        self._callback.on_progress(f"exporting {path.stem}", 0, 1)
        if network in self._exporters:
            names = export_graph(model, input_config, path, stamp, self._exporters[network])
            return names, check_parity(model, path, self.inputs, engines, activation=activation)
        exported = export_faster(
            model, input_config, path, stamp, inputs=self.inputs, engines=engines, activation=activation,
            measure=self._settings.measure_exporters,
        )  # fmt: skip
        self._exporters[network] = exported.exporter
        self._callback.on_message(f"{path.stem}: {exported.summary()}")
        return exported.outputs, exported.max_probability_difference

    def _variants(self, folder: Path, checkpoint: Checkpoint, acceptance: AcceptanceTest, path: Path) -> Variants:
        settings, network = self._settings, checkpoint.recipe.model
        windows: Sequence[Float32] = ()
        if {"static", "nncf"} & set(settings.quantize):
            n_windows = settings.n_calibration_windows + settings.n_tuning_windows
            windows = self._training_windows(folder, checkpoint, n_windows)
        variants = VariantMaker(
            fp32=path,
            windows=windows,
            acceptance=acceptance,
            settings=settings,
            callback=self._callback,
            first_try=self._int8_settings.get(network),
        ).make()
        if variants.int8_settings is not None:
            self._int8_settings[network] = variants.int8_settings
        return variants

    def _training_windows(self, folder: Path, checkpoint: Checkpoint, n_windows: int) -> CalibrationWindows:
        windows = draw_calibration(folder, checkpoint, self._settings.data_dir, n_windows)
        for failed in windows.failed:
            self._callback.on_warning(f"left out of calibration: {failed}")
        return windows

    def _labelled(self, folder: Path, checkpoint: Checkpoint) -> LabelledWindows:
        settings = self._settings
        sets = []
        if not checkpoint.recipe.data.all_data:
            sets.append(held_out_windows(folder, checkpoint, settings.data_dir))
        if settings.soundscapes is not None and settings.truth is not None:
            input_config = checkpoint.recipe.input_config
            sets.append(soundscape_windows(settings.soundscapes, settings.truth, checkpoint.species, input_config))
        for failed in (failed for each in sets for failed in each.failed):
            self._callback.on_warning(f"left out of the acceptance test: {failed}")
        return join_sets(sets)

    def _write_with_frontend(
        self, path: Path, checkpoint: Checkpoint, labels: Sequence[str], clips: Sequence[Path]
    ) -> None:
        input_config = checkpoint.recipe.input_config
        if isinstance(input_config, WaveformConfig):
            self._callback.on_message(f"{path.name}: takes the waveform as it is")
            return
        out = path.with_suffix(".waveform.onnx")
        difference = export_with_frontend(
            path,
            out,
            input_config,
            activation=checkpoint.recipe.loss.activation,
            labels=labels,
            check_on=real_waveforms(clips, input_config),
        )
        self.for_other_hosts += (Graph(out.name, file_sha256(out), difference),)
        self._callback.on_message(f"{out.name}: takes the waveform; largest |p - p_birdinfer| {difference:.1e}")
