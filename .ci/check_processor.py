"""Do front end and graphs hold their laws on this processor? To be run on an emulated one.

Usage: qemu-x86_64 -cpu Haswell python .ci/check_processor.py
"""

import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "golden")]

from make_golden import CONFIGS, FINGERPRINTS  # noqa: E402
from saturating_graphs import EXACT, KINDS, saturating_graph  # noqa: E402

from birdinfer.features import kernels  # noqa: E402
from birdinfer.features import log_mel as mel  # noqa: E402
from birdinfer.inference.bundle import FINGERPRINT_TOLERANCE, Bundle, demo_bundle_path  # noqa: E402
from birdinfer.inference.engines.onnxruntime import OnnxRuntimeEngine  # noqa: E402

MAX_DECIBELS = 1e-3
"""Between the compiled front end and numpy's, on noise."""


def main() -> None:
    """Hold the front ends against fingerprints, other batches and numpy's, and a graph against other batches."""
    stored = json.loads(FINGERPRINTS.read_text())
    for name, config in CONFIGS.items():
        furthest = np.abs(np.subtract(mel.fingerprint(config), stored[name])).max()
        assert furthest <= FINGERPRINT_TOLERANCE, f"{name}: fingerprint differs by {furthest:.2g} dB"
        check_bits(name, config)
    front_end, furthest = mel.front_end_name(), difference_from_numpy()
    assert furthest <= MAX_DECIBELS, f"the compiled front end differs from numpy's by {furthest:.2g} dB"
    check_graph()
    check_int8()
    has = ", ".join(feature for feature in ("SSE42", "AVX2", "AVX512F") if numpy_features().get(feature)) or "no SSE4.2"
    print(f"{len(CONFIGS)} front ends ({front_end}) and graphs of fp32 and INT8 hold on a processor with {has}")


def check_bits(name: str, config: mel.FrontEndConfig) -> None:
    """A window is the same bits alone, in a batch and at another place in it, whether or not frames are shared."""
    for stride in (config.window_samples // 2 + 1, 100 * config.mel.hop_length):
        n_samples = config.window_samples + 2 * stride + 2 * config.margin_samples
        samples = np.random.default_rng(0).normal(0, 0.1, n_samples).astype(np.float32)
        together = mel.windows_to_input(samples, 3, config, stride)
        for index in range(3):
            alone = mel.windows_to_input(samples[index * stride :], 1, config, stride)
            assert alone.tobytes() == together[index].tobytes(), f"{name}: window {index} depends on its batch"


def check_graph() -> None:
    """The demo bundle's first graph scores a window with the same bits alone, in a batch and at another place in it."""
    bundle = Bundle.load(demo_bundle_path())
    member = bundle.manifest.members[0]
    path, name = bundle.graph_path(member.graphs["fp32"]), member.outputs.clip
    windows = np.random.default_rng(2).normal(0, 1, (3, 1, *member.input_config.input_shape)).astype(np.float32)
    one, three = (OnnxRuntimeEngine(path, [name], batch_size) for batch_size in (1, 3))
    alone = one.run(windows)[name].tobytes()
    assert three.run(windows)[name].tobytes() == alone, "a graph's scores depend on its batch"
    turned = np.ascontiguousarray(windows[::-1])
    assert three.run(turned)[name][::-1].tobytes() == alone, "a graph's scores depend on the place in its batch"


def check_int8() -> None:
    """INT8 graphs whose weights have 8 bits do not overflow, whatever the processor adds products in."""
    for kind in KINDS:
        content, shape = saturating_graph(kind)
        found = OnnxRuntimeEngine(Path(kind), ["y"], 1, content).run(np.ones((1, *shape), np.float32))["y"]
        assert np.abs(found - EXACT).max() <= 1e-3, f"{kind} in INT8 is {found.ravel()[0]:.3g} instead of {EXACT:g}"


def difference_from_numpy() -> float:
    """The largest difference in dB between the compiled front end and numpy's, on noise."""
    config = CONFIGS["default"]
    samples = np.random.default_rng(1).normal(0, 0.1, 32_000).astype(np.float32)
    compiled = mel.log_mel(samples, 50, config.mel, config.audio.sample_rate)
    kernels.library = lambda: None  # type: ignore[assignment]
    return float(np.abs(compiled - mel.log_mel(samples, 50, config.mel, config.audio.sample_rate)).max())


def numpy_features() -> dict[str, bool]:
    """What numpy finds in this processor."""
    try:
        from numpy._core._multiarray_umath import __cpu_features__
    except ImportError:
        from numpy.core._multiarray_umath import __cpu_features__
    return dict(__cpu_features__)


if __name__ == "__main__":
    main()
