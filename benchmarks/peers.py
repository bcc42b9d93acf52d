"""Other programs of this kind, birdnet and BriteKit, made ready to run beside birdinfer: environment, model, command.

Each lives in an environment of its own under ``benchmarks/.peers/``, made on first use, and runs as a whole process.
Each gets an efficientnet_b0 of the size and the image of the bundle that birdinfer runs:

- birdnet takes custom models as a graph from the waveform to probabilities. It gets the bundle's own graph behind one
  of two stages: a log-mel by ONNX's STFT, as exported models have it ("birdnet"), or a slice and a reshape that make an
  image of the window's first samples ("birdnet without front end"). The second computes nothing: no real model is as
  fast, so it is what birdnet's pipeline can reach at most.
- BriteKit takes checkpoints and computes spectrograms itself. It gets one of random weights, and the bundle's FFT
  length, bands and frames.

What each does beyond the network is its own: decoding, windows, engine, processes or threads, its table.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx

from birdinfer.config import FrontEndConfig
from birdinfer.features import log_mel as mel
from birdinfer.inference.bundle import Bundle
from birdinfer.system.cpu import available_cores

NAMES = ("birdnet", "birdnet without front end", "BriteKit")
HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".peers"

BIRDNET = ("birdnet>=1.3,<1.4",)

BRITEKIT = (
    # What its analysis imports. Its own list is left aside (--no-deps): it wants a torch of before 2.12, of which there
    # may be none for the CPU alone, and much that only its training and its downloads need.
    "torch>=2.5,<2.14",
    "timm>=1.0.17,<2",
    "lightning>=2.5,<2.7",
    "librosa>=0.11,<1",
    "av>=18,<19",
    "omegaconf>=2.3,<3",
    "click>=8.1,<8.4",
    "pandas>=2",
    "pyyaml",
)
BRITEKIT_ALONE = ("britekit>=1.8,<1.9", "torchaudio>=2.5")

INSTALL_SECONDS = 1_200
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class PeerMissing(Exception):
    """A peer cannot be had here; the message names it and says why."""


class Peer(NamedTuple):
    """A peer with its model."""

    name: str
    """With its version."""
    how: str
    """How it is run, for the table."""
    command: Callable[[Path, Path], list[str]]
    """Sounds (a file or a folder) and an empty folder for results -> a command line."""
    table: Callable[[Path], Path]
    """That folder -> the table therein."""


class Network(NamedTuple):
    """What the peers' network must be like, read from the bundle."""

    graph: Path
    frontend: FrontEndConfig
    labels: tuple[str, ...]


def prepare(name: str, bundle: Path, work: Path) -> Peer:
    """Make a peer ready.

    Args:
        name: one of ``NAMES``.
        bundle: a folder of one efficientnet_b0 that takes a log-mel.
        work: for the peer's model; made.

    Raises:
        PeerMissing: it cannot be installed or imported here.
    """
    work.mkdir(parents=True)
    network = network_of(bundle)
    if name == "BriteKit":
        return prepare_britekit(network, work)
    if name == "birdnet":
        return prepare_birdnet(network, work, log_mel, "log-mel by STFT in its graph")
    return prepare_birdnet(network, work, first_samples, "without front end")


def network_of(bundle: Path) -> Network:
    """The input configuration of a bundle's first member, and its graph."""
    manifest = Bundle.load(bundle).manifest
    member = manifest.members[0]
    assert member.frontend is not None, "the peers are given images, so the bundle must take them, too"
    labels = tuple(species.label for species in manifest.species)
    return Network(bundle / member.graphs["fp32"].file, member.frontend, labels)


def prepare_birdnet(network: Network, work: Path, before: Callable[[Network, str], "Stage"], how: str) -> Peer:
    """The bundle's own graph behind a stage that takes the waveform, run by birdnet."""
    python = environment("birdnet", [list(BIRDNET)])
    run_or_miss("birdnet cannot be imported here", [python, "-c", "import birdnet"])
    model, labels = work / "birdnet.onnx", work / "labels.txt"
    write_waveform_graph(network, before, model)
    labels.write_text("\n".join(network.labels), encoding="utf-8")
    seconds = network.frontend.window.window_seconds
    script = str(HERE / "peer_birdnet.py")
    return Peer(
        f"birdnet {version(python, 'birdnet')} ({how})",
        "its defaults, a worker a core, ONNX Runtime on the same graph",
        lambda sounds, out: [python, script, str(model), str(labels), str(seconds), str(sounds), str(out / "a.csv")],
        lambda out: out / "a.csv",
    )


class Stage(NamedTuple):
    """The beginning of a graph."""

    nodes: list[onnx.NodeProto]
    constants: dict[str, npt.NDArray[Any]]


def write_waveform_graph(network: Network, before: Callable[[Network, str], Stage], path: Path) -> None:
    """The bundle's graph behind a stage, from ``waveform`` [batch, samples] to probabilities."""
    model = onnx.load(network.graph)
    graph = model.graph
    stage = before(network, graph.input[0].name)
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in stage.constants.items()]
    after = onnx.helper.make_node("Sigmoid", [graph.output[0].name], ["scores"])
    float32 = onnx.TensorProto.FLOAT
    whole = onnx.helper.make_graph(
        [*stage.nodes, *graph.node, after],
        "waveform_to_scores",
        [onnx.helper.make_tensor_value_info("waveform", float32, ["batch", network.frontend.window_samples])],
        [onnx.helper.make_tensor_value_info("scores", float32, ["batch", len(network.labels)])],
        [*graph.initializer, *constants],
    )
    made = onnx.helper.make_model(whole, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, path)


def first_samples(network: Network, image: str) -> Stage:
    """No front end: the image is the window's first samples, cut into rows."""
    n_mels, n_frames = network.frontend.mel.n_mels, network.frontend.frames_per_window
    assert n_mels * n_frames <= network.frontend.window_samples, "the window holds too few samples for the image"
    nodes = [
        onnx.helper.make_node("Slice", ["waveform", "cut_from", "cut_to", "cut_axis"], ["samples"]),
        onnx.helper.make_node("Reshape", ["samples", "image_shape"], [image]),
    ]
    integers = {
        "cut_from": [0],
        "cut_to": [n_mels * n_frames],
        "cut_axis": [1],
        "image_shape": [-1, 1, n_mels, n_frames],
    }
    return Stage(nodes, {name: np.array(value, np.int64) for name, value in integers.items()})


def log_mel(network: Network, image: str) -> Stage:
    """A log-mel of the bundle's settings by ONNX's own STFT, as a graph has it that is exported with its front end."""
    config, n_frames = network.frontend.mel, network.frontend.frames_per_window
    n_missing = (n_frames - 1) * config.hop_length + config.n_fft - network.frontend.window_samples
    assert n_missing >= 0, "frames beyond the window are mirrored, not cut"
    make = onnx.helper.make_node
    nodes = [
        make("Pad", ["waveform", "pads"], ["mirrored"], mode="reflect"),
        make("Unsqueeze", ["mirrored", "axis_2"], ["signal"]),
        make("STFT", ["signal", "hop", "hann", "n_fft"], ["spectrum"], onesided=1),
        make("ReduceSumSquare", ["spectrum", "axis_last"], ["power"], keepdims=0),
        make("MatMul", ["power", "filters"], ["mel"]),
        make("Add", ["mel", "floor"], ["mel_above_floor"]),
        make("Log", ["mel_above_floor"], ["logarithm"]),
        make("Transpose", ["logarithm"], ["bands_first"], perm=[0, 2, 1]),
        make("Unsqueeze", ["bands_first", "axis_1"], ["raw_image"]),
        make("MeanVarianceNormalization", ["raw_image"], [image], axes=[2, 3]),
    ]
    constants: dict[str, npt.NDArray[Any]] = {
        "pads": np.array([0, n_missing // 2, 0, n_missing - n_missing // 2], np.int64),
        "axis_1": np.array([1], np.int64),
        "axis_2": np.array([2], np.int64),
        "axis_last": np.array([-1], np.int64),
        "hop": np.array(config.hop_length, np.int64),
        "n_fft": np.array(config.n_fft, np.int64),
        "hann": mel.hann_window(config),
        "filters": mel.filterbank(config, network.frontend.audio.sample_rate),
        "floor": np.array(config.floor_power, np.float32),
    }
    return Stage(nodes, constants)


def prepare_britekit(network: Network, work: Path) -> Peer:
    """A checkpoint of its own format, run by BriteKit."""
    python = environment("BriteKit", [list(BRITEKIT), ["--no-deps", *BRITEKIT_ALONE]])
    config, window = network.frontend.mel, network.frontend.window
    sample_rate = network.frontend.audio.sample_rate
    audio = {
        "spec_duration": window.window_seconds,
        "spec_height": config.n_mels,
        "spec_width": network.frontend.frames_per_window,
        "win_length": config.n_fft / sample_rate,
        "n_fft": config.n_fft,
        "sampling_rate": sample_rate,
        "min_freq": int(config.f_min_hz),
        "max_freq": int(config.f_max_hz),
    }
    checkpoint, settings, script = work / "b0.ckpt", work / "britekit.yaml", str(HERE / "peer_britekit.py")
    # It looks for a list of species to leave out below the current folder, unless it gets an empty one.
    settings.write_text('misc:\n  exclude_list: ""\n')
    make = [python, script, "make-checkpoint", str(checkpoint), json.dumps(audio), str(len(network.labels))]
    run_or_miss("BriteKit cannot be used here", make)
    workers = str(available_cores())
    options = ["--cfg", str(settings), "--ckpt", str(checkpoint), "--rtype", "csv", "--threads", workers]
    return Peer(
        f"BriteKit {version(python, 'britekit')}",
        f"{workers} threads, torch {version(python, 'torch')}, its own spectrogram of the same size",
        lambda sounds, out: [python, script, "analyze", str(sounds), "--output", str(out), *options],
        lambda out: out / "scores.csv",
    )


def environment(name: str, installs: Sequence[Sequence[str]]) -> str:
    """The Python of a peer's environment, made if it is not there or was made of another list.

    Args:
        name: of the peer.
        installs: arguments of pip, one install after the other.

    Raises:
        PeerMissing: an install failed.
    """
    folder = ENVIRONMENTS / name.lower()
    python, stamp = folder / "bin" / "python", folder / "made_of.json"
    wanted = json.dumps([sys.version, installs])
    if stamp.is_file() and stamp.read_text() == wanted:
        return str(python)
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for step in ([sys.executable, "-m", "venv", str(folder)], *([*pip, *arguments] for arguments in installs)):
        run_or_miss(f"{name} cannot be installed here", step)
    leave_torchaudio_its_python(folder)
    stamp.write_text(wanted)
    return str(python)


def leave_torchaudio_its_python(folder: Path) -> None:
    """Remove torchaudio's compiled libraries where they do not load.

    They are built against the CUDA torch, and torchaudio does not import where one of them is there and fails. Where
    they are missing it runs without them; the spectrograms are plain torch.
    """
    libraries = list(folder.glob("lib/python*/site-packages/torchaudio/lib/*.so"))
    fails = subprocess.run([str(folder / "bin" / "python"), "-c", "import torchaudio"], capture_output=True).returncode
    if libraries and fails:
        for library in libraries:
            library.unlink()


def version(python: str, package: str) -> str:
    """Version of a package in an environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def plain_environ() -> dict[str, str]:
    """The environment variables without those that limit threads or lead to other packages: all run as by default."""
    return {name: value for name, value in os.environ.items() if name not in (*THREAD_VARIABLES, "PYTHONPATH")}


def run_or_miss(problem: str, command: Sequence[str]) -> None:
    """Run a step of making a peer ready.

    Raises:
        PeerMissing: it failed; the reason is its last line, where pip and Python put it.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, env=plain_environ())
    except subprocess.TimeoutExpired as error:
        raise PeerMissing(f"{problem}: not done in {INSTALL_SECONDS} s") from error
    if done.returncode:
        reason = next((line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
        raise PeerMissing(f"{problem}: {reason}")
