"""Weights of timm's hub: looked for in its cache, then asked for once, briefly.

Without a network the hub's client tries again for a minute and prints a page of what it tried.
"""

import importlib
import urllib.error
import urllib.request
from functools import cache

from birdinfer.errors import ConfigError
from birdinfer.training.models.timm_import import import_timm
from birdinfer.training.recipe.schema import ModelConfig

_PATIENCE_SECONDS = 5.0
_FILES = ("model.safetensors", "pytorch_model.bin")
_HINT = "set model.pretrained=false, or model.weights to a local file"


def check_hub(config: ModelConfig) -> None:
    """Check that pretrained weights can be had; ConfigError if they are not in the hub's cache and it does not answer.

    What is wrong with the weights' name, or with the hub's answer, shows when they are fetched.
    """
    if not config.pretrained or config.weights:
        return
    hub = importlib.import_module("huggingface_hub")
    facts = import_timm().get_pretrained_cfg(config.backbone, allow_unregistered=True)
    name = getattr(facts, "hf_hub_id", None)
    if not name or any(isinstance(hub.try_to_load_from_cache(name, each), str) for each in _FILES):
        return
    if not _answers(hub.constants.ENDPOINT):
        what = f"weights of {config.backbone} cannot be fetched: {hub.constants.ENDPOINT} does not answer"
        raise ConfigError("model.pretrained", f"{what}, and its cache does not hold them", _HINT)


@cache
def _answers(address: str) -> bool:
    """Whether there is a web server, whatever it says; by the proxy that the environment names."""
    try:
        # Where a request may go is the hub's own setting, HF_ENDPOINT.
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310
        with urllib.request.urlopen(request, timeout=_PATIENCE_SECONDS):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
