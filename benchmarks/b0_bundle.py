"""A bundle of one efficientnet_b0 with 206 labels, for timing: no training, but answers that vary as a trained one's.

Fresh weights alone give 0.5 for everything, and parity of constants proves nothing. So BatchNorm's statistics are taken
from real windows and the classifier is scaled until logits spread over about +-4.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from birdinfer import mel
from birdinfer.bundle import FORMAT, Manifest, Member, Provenance, file_sha256, labels_sha256, save_manifest
from birdinfer.config import FrontEndConfig, MelConfig, PostConfig
from birdinfer.export.onnx import export_graph
from birdinfer.labels import Species
from birdinfer.training.torchvision_shim import import_timm
from birdinfer.windows import read_window

FRONTEND = FrontEndConfig(mel=MelConfig(n_fft=2048, hop_length=500, n_mels=256))
LABELS = tuple(f"species{index:03d}" for index in range(206))


def make_b0() -> torch.nn.Module:
    """An efficientnet_b0 with one input channel; the same weights each time."""
    torch.manual_seed(0)
    model: torch.nn.Module = import_timm().create_model("efficientnet_b0", in_chans=1, num_classes=len(LABELS))
    return model


def write_b0_bundle(folder: Path, soundscapes: list[Path]) -> Path:
    """Write ``fold0.onnx``, ``manifest.json`` and, for torch, ``weights.safetensors`` (in a folder beside).

    Returns:
        The bundle's folder.
    """
    starts = np.arange(0, 55, 5.0)
    windows = [
        mel.windows_to_input(read_window(path, at, FRONTEND), 1, FRONTEND) for path in soundscapes for at in starts
    ]
    model = make_b0()
    _settle(model, torch.from_numpy(np.concatenate(windows)))
    bundle = folder / "b0"
    bundle.mkdir()
    shape = (FRONTEND.mel.n_mels, FRONTEND.frames_per_window)
    export_graph(model, shape, bundle / "fold0.onnx", {"labels_sha256": labels_sha256(LABELS)})
    save_file(model.state_dict(), folder / "weights.safetensors")
    save_manifest(
        bundle,
        Manifest(
            format=FORMAT,
            name="b0",
            species=tuple(Species(label) for label in LABELS),
            frontend=FRONTEND,
            post=PostConfig(),
            members=(Member("fold0.onnx", file_sha256(bundle / "fold0.onnx"), 0, "efficientnet_b0"),),
            frontend_fingerprint=tuple(mel.fingerprint(FRONTEND)),
            fallback_probabilities=(0.01,) * len(LABELS),
            provenance=Provenance("2026-01-01T00:00:00Z", "benchmark", {}, {}),
        ),
    )
    return bundle


def _settle(model: torch.nn.Module, windows: torch.Tensor) -> None:
    """BatchNorm statistics from real windows; a classifier whose logits spread as a trained one's."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain mean over the batches
    with torch.no_grad():
        model.train()
        for batch in windows.split(11):
            model(batch)
        model.eval()
        logits = torch.cat([model(batch) for batch in windows.split(11)])
        classifier = model.get_submodule("classifier")
        classifier.weight.mul_(2.0 / logits.std(dim=0).mean())  # type: ignore[operator]
        logits = torch.cat([model(batch) for batch in windows.split(11)])
        classifier.bias.sub_(logits.mean(dim=0) + 1.0)  # type: ignore[operator]
