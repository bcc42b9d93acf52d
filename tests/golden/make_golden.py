"""Remake the stored references of this folder: ``python tests/golden/make_golden.py``.

Only when the front end is changed on purpose: every bundle exported before is refused from then on.
"""

import json
from pathlib import Path

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.features import log_mel as mel

CONFIGS = {
    "default": FrontEndConfig(),
    "htk_512": FrontEndConfig(mel=MelConfig(n_fft=1024, hop_length=512, n_mels=64, scale="htk", filter_norm="none")),
    "minmax_256": FrontEndConfig(mel=MelConfig(n_mels=256, normalisation="minmax", floor_db=-90.0)),
    "pcen_frequency": FrontEndConfig(mel=MelConfig(compression="pcen", normalisation="frequency")),
    "picture": FrontEndConfig(mel=MelConfig(resize=(256, 256))),
    "log_pcen": FrontEndConfig(mel=MelConfig(compression="log_pcen")),
}
FINGERPRINTS = Path(__file__).parent / "frontend_fingerprints.json"

if __name__ == "__main__":
    prints = {name: mel.fingerprint(config) for name, config in CONFIGS.items()}
    FINGERPRINTS.write_text(json.dumps(prints, indent=1) + "\n")
