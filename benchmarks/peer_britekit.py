"""Runs inside BriteKit's environment: its own command line, or a checkpoint for it.

    python peer_britekit.py make-checkpoint BRITEKIT.ckpt '{"spec_height": 256, ...}' N_SPECIES
    python peer_britekit.py analyze SOUNDS --ckpt BRITEKIT.ckpt ...

The second is BriteKit's command itself, started here because timm imports torchvision, which fails beside a CPU torch.
"""

import importlib
import json
import sys

import torch

ALWAYS_PRESENT = 5
"""Species with a score of 0.95 whatever the sound: as many rows to write as birdnet's five best of each window."""


def main() -> None:
    """Do what the first argument says."""
    make_torchvision_importable()
    if sys.argv[1] == "make-checkpoint":
        _, _, path, audio, n_species = sys.argv
        make_checkpoint(path, json.loads(audio), int(n_species))
        return
    from britekit.cli import cli

    cli()


def make_torchvision_importable() -> None:
    """Declare the operators that torchvision describes at import and whose compiled library a CPU torch cannot load."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # half imported
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        setattr(sys, "torchvision_schemas", library)  # noqa: B010 - a schema vanishes with its library
        importlib.import_module("torchvision")


def make_checkpoint(path: str, audio: dict[str, float | str], n_species: int) -> None:
    """Write an efficientnet_b0 of seeded random weights as BriteKit's trainer would.

    Args:
        path: where to.
        audio: settings of BriteKit's spectrogram.
        n_species: columns.
    """
    import lightning
    from britekit import load_new_model
    from britekit.core.config_loader import get_config_with_dict

    torch.manual_seed(0)
    get_config_with_dict({"audio": audio, "train": {"model_type": "timm.efficientnet_b0"}})
    names = [f"species{index:03d}" for index in range(n_species)]
    model = load_new_model(names, names, names, names, 1)
    # BatchNorm takes its statistics from noise: without any, signals fade from layer to layer to numbers so small
    # that a processor computes them slowly, which no trained network does.
    model.train()
    with torch.no_grad():
        for _ in range(8):
            model(torch.rand(8, 1, int(audio["spec_height"]), int(audio["spec_width"])))
        model.backbone.get_classifier().bias[:ALWAYS_PRESENT] = 3.0
        model.backbone.get_classifier().weight[:ALWAYS_PRESENT] = 0.0
    checkpoint = {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "hparams_name": "kwargs",
    }
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, path)


if __name__ == "__main__":
    main()
