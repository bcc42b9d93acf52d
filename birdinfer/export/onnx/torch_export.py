"""Model -> ONNX graph, compared with the model on real windows.

A graph takes log-mel [batch, channels, rows, columns] or waveforms [batch, samples] of any batch size. Its outputs are
``logits`` [batch, labels] and, for a sound event detector, ``frame_logits`` [batch, frames, labels]. PyTorch has two
exporters: ``dynamo``, which it will keep, and the older ``torchscript``, which exports in a tenth of the time. Which
makes the faster graph is measured in :mod:`birdinfer.export.onnx.choose_exporter`.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch

import onnx
from birdinfer.audio.windows import read_window
from birdinfer.config import FrontEndConfig, InputConfig
from birdinfer.errors import AudioError, InputNotFoundError, ParityError
from birdinfer.export.acceptance.held_out import model_input
from birdinfer.inference.activation import activate
from birdinfer.inference.engines import EnginePlan, load_engine, parse_spec
from birdinfer.training.models.base import Logits
from birdinfer.training.models.timm_import import import_timm
from birdinfer.typing import Float32, Index

OPSET = 18  # read by every ONNX Runtime since 1.14 and OpenVINO since 2023.0
INPUT_NAME = "log_mel"
WAVEFORM_NAME = "waveform"
OUTPUT_NAME = "logits"
FRAMES_NAME = "frame_logits"
BATCH_AXIS = "batch"
Exporter = Literal["dynamo", "torchscript"]


def export_graph(
    model: torch.nn.Module,
    input_config: InputConfig,
    path: Path,
    metadata: dict[str, str],
    exporter: Exporter = "dynamo",
) -> tuple[str, ...]:
    """Write a model's graph, simplified and checked; return the names of its outputs.

    ``model`` returns :class:`~birdinfer.training.models.base.Logits`, in evaluation mode, on the CPU; it stays as it
    is, while branches that serve training alone are merged in the graph. ``metadata`` is stored in the graph's
    ``metadata_props``, beside ``opset`` and ``exporter``. Raises ParityError if the graph would normalise with the
    statistics of a batch, as in training.
    """
    import onnxslim

    # Two windows: a batch of one is taken for a constant by exporters.
    example = torch.zeros(2, *sample_shape(input_config))
    flat = merge_branches(_Flat(model).eval())
    given = INPUT_NAME if isinstance(input_config, FrontEndConfig) else WAVEFORM_NAME
    # no_grad, not inference_mode: tensors born in inference mode cannot be traced by every exporter.
    with torch.no_grad(), quiet_exporter():
        outputs = tuple(named_outputs(model(example)))
        traced = EXPORTERS[exporter](flat, example, given, outputs)
    # Folds constants and removes shape arithmetic, which also gives every tensor its name and shape.
    graph: onnx.ModelProto = onnxslim.slim(traced)
    opset = max(imported.version for imported in graph.opset_import if imported.domain in ("", "ai.onnx"))
    onnx.helper.set_model_props(graph, metadata | {"opset": str(opset), "exporter": exporter})
    onnx.checker.check_model(graph, full_check=True)
    refuse_training_mode(graph, path)
    onnx.save(graph, path)
    return outputs


def _by_dynamo(model: torch.nn.Module, example: torch.Tensor, given: str, outputs: tuple[str, ...]) -> onnx.ModelProto:
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[given],
        output_names=outputs,
        dynamic_shapes=({0: torch.export.Dim(BATCH_AXIS, min=1)},),
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def _by_torchscript(
    model: torch.nn.Module, example: torch.Tensor, given: str, outputs: tuple[str, ...]
) -> onnx.ModelProto:
    # A weight that several nodes read is stored for each of them (NFNets twice); simplifying the graph joins them.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traced.onnx"
        torch.onnx.export(
            model,
            (example,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[given],
            output_names=list(outputs),
            dynamic_axes={name: {0: BATCH_AXIS} for name in (given, *outputs)},
        )
        return onnx.load(path)


Export = Callable[[torch.nn.Module, torch.Tensor, str, tuple[str, ...]], onnx.ModelProto]
EXPORTERS: dict[Exporter, Export] = {"dynamo": _by_dynamo, "torchscript": _by_torchscript}


def sample_shape(input_config: InputConfig) -> tuple[int, ...]:
    """Return the shape of one window as a model takes it: (channels, rows, columns) of log-mel, or (samples,)."""
    if isinstance(input_config, FrontEndConfig):
        return input_config.sample_shape
    return (input_config.window_samples,)


def named_outputs(logits: Logits) -> dict[str, torch.Tensor]:
    """Name a model's outputs as in a graph."""
    clip = {OUTPUT_NAME: logits.clip}
    return clip if logits.frames is None else clip | {FRAMES_NAME: logits.frames}


class _Flat(torch.nn.Module):
    """A model that returns a plain tuple, as graphs do."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._model = model

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(named_outputs(self._model(inputs)).values())


def merge_branches(model: torch.nn.Module) -> torch.nn.Module:
    """A copy whose parallel convolutions are one each, in networks of timm that know how; else the model itself.

    RepVGG, MobileOne, RepViT and FastViT are trained with branches beside a convolution whose sum is one convolution
    (Ding et al. 2021, "RepVGG: Making VGG-style ConvNets Great Again"). No engine finds that by itself.
    """
    if not any(hasattr(layer, name) for layer in model.modules() for name in _MERGING):
        return model
    reparameterize = import_timm("timm.utils.model").reparameterize_model
    with torch.no_grad():
        merged: torch.nn.Module = reparameterize(model)
    return merged.eval().requires_grad_(False)


_MERGING = ("fuse", "reparameterize", "switch_to_deploy")
"""What timm's layers call it."""


def refuse_training_mode(graph: onnx.ModelProto, path: Path) -> None:
    """Raise ParityError for BatchNorm or Dropout in training mode: output would depend on the batch or on chance."""
    for node in graph.graph.node:
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "BatchNormalization" and attributes.get("training_mode", 0):
            what = f"BatchNorm {node.name!r} is in training mode"
        elif node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
            what = f"Dropout {node.name!r} is in training mode"
        else:
            continue
        raise ParityError(path, what, "call model.eval() before exporting")


class quiet_exporter(warnings.catch_warnings):
    """Hide what the exporter warns about its own code; users cannot do anything about it."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)


# ---- Parity: the graph compared with its model on real windows, in several batch sizes

TOLERANCE = 1e-4  # largest |p_onnx - p_torch| that is accepted: fp32 rounding is a hundred times smaller
N_WINDOWS = 16
_TORCH_BATCH = 4  # windows in a call of the model
_LARGEST_BATCH = 12  # windows in a call of the graph: 17 would need more memory than all the rest of the export


def real_windows(clips: Iterable[Path], input_config: InputConfig) -> Float32:
    """Read the first window of up to 16 clips and add silence: log-mel [windows, 1, ...] or waveforms [windows, n]."""
    silence = np.zeros(input_config.window_samples + 2 * input_config.margin_samples, np.float32)
    windows = (*_first_windows(clips, input_config), silence)
    return np.concatenate([model_input(samples, input_config) for samples in windows])


def real_waveforms(clips: Iterable[Path], input_config: InputConfig) -> Float32:
    """Read the waveforms of these windows [windows, window_samples], -1 to 1, without margins and without silence."""
    begin, length = input_config.margin_samples, input_config.window_samples
    return np.stack([samples[begin : begin + length] for samples in _first_windows(clips, input_config)])


def check_parity(
    model: torch.nn.Module, graph: Path, inputs: Float32, engines: Sequence[str], *, activation: str = "sigmoid"
) -> float:
    """Compare a graph's outputs with its model's in batches of 1, of 3 in reverse order, and of 12, in each engine.

    Returns the largest |p_onnx - p_torch| of all windows, frames, species, batches and engines; raises ParityError if
    it exceeds 1e-4, or a probability is not finite.
    """
    reference = {name: activate(logits, activation) for name, logits in _model_logits(model, inputs).items()}
    worst = 0.0
    for engine in engines:
        for batching, batches in _batchings(len(inputs)).items():
            order = np.concatenate(batches)
            plan = EnginePlan(parse_spec(engine), batch_size=max(map(len, batches)))
            for output, logits in _graph_logits(plan, graph, list(reference), [inputs[batch] for batch in batches]):
                difference = float(np.abs(activate(logits, activation) - reference[output][order]).max())
                if not difference <= TOLERANCE:  # also true for NaN
                    what = f"differs from its torch model by {difference:.2g} of probability ({output}, {engine}, "
                    raise ParityError(graph, f"{what}{batching}); allowed is {TOLERANCE:g}", "no bundle was written")
                worst = max(worst, difference)
    return worst


def _first_windows(clips: Iterable[Path], input_config: InputConfig) -> Iterator[Float32]:
    """First window of the first 16 clips that can be read, with margins [samples]; AudioError if none can be."""
    n_tried, n_found = 0, 0
    for clip in clips:
        n_tried += 1
        try:
            window = read_window(clip, 0.0, input_config)
        except (AudioError, InputNotFoundError):
            continue  # training has listed it already; here any other clip will do
        yield window
        n_found += 1
        if n_found == N_WINDOWS:
            return
    if not n_found:
        raise AudioError("export", f"none of {n_tried} clips can be read", "name the data folder: --data")


def _model_logits(model: torch.nn.Module, inputs: Float32) -> dict[str, Float32]:
    with torch.no_grad():
        pieces = [named_outputs(model(piece)) for piece in torch.split(torch.from_numpy(inputs), _TORCH_BATCH)]
    return {name: torch.cat([piece[name] for piece in pieces]).numpy() for name in pieces[0]}


def _graph_logits(
    plan: EnginePlan, graph: Path, outputs: Sequence[str], batches: Sequence[Float32]
) -> Iterator[tuple[str, Float32]]:
    # The plan is for these batches only: an engine splits larger ones, and OpenVINO fills up smaller ones.
    engine = load_engine(plan, graph, outputs, batches[0].shape[1:])
    logits = [engine.run(np.ascontiguousarray(batch)) for batch in batches]
    for name in outputs:
        yield name, np.concatenate([each[name] for each in logits])


def _batchings(n_windows: int) -> dict[str, list[Index]]:
    """Ways to put the same windows into batches: a score may depend on none of them."""
    every = np.arange(n_windows)
    return {
        "one by one": _batches(every, 1),
        "in reverse, by threes": _batches(every[::-1], 3),
        f"by {_LARGEST_BATCH}": _batches(every, _LARGEST_BATCH),
    }


def _batches(order: Index, size: int) -> list[Index]:
    return [order[begin : begin + size] for begin in range(0, len(order), size)]
