"""The compiled front end: equal to numpy's, safe at the edges of memory, replaced by numpy's where it is missing."""

import _ctypes
import ctypes
import importlib.util
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from make_bundles import tone

from birdinfer.config import FrontEndConfig, MelConfig
from birdinfer.features import kernels
from birdinfer.features import log_mel as mel

RATE = 32_000
ROOT = Path(__file__).parents[3]

SIZES = [64, 66, 100, 128, 134, 256, 512, 1000, 1024, 1102, 1500, 2048, 2206, 4096, 4410, 8192, 12_000, 16_382, 16_384]
"""Powers of two; others with factors up to 61; with larger ones (134, 2206 and 16,382), which become a convolution."""

needs_kernel = pytest.mark.skipif(kernels.library() is None, reason="the kernel was not built")


@pytest.fixture
def load(monkeypatch):
    """Sets which file is the library; the one that was loaded comes back afterwards."""

    def point_to(path):
        monkeypatch.setattr(kernels, "LIBRARY", path)
        kernels.library.cache_clear()

    yield point_to
    kernels.library.cache_clear()


def soundscape(seconds=2.0):
    """Real-like: a bird over a soft wind, and a click."""
    rng = np.random.default_rng(3)
    wave = tone(seconds) + rng.normal(0, 0.002, round(seconds * RATE)).astype(np.float32)
    wave[RATE // 2 : RATE // 2 + 40] += 0.6
    return wave.astype(np.float32)


def scale_of(config):
    return mel._Scale(config, RATE, config.floor_power)


def with_numpy(samples, n_frames, config):
    decibels = np.empty((1, config.n_mels, n_frames), np.float32)
    mel._write_with_numpy(samples, 0, scale_of(config), decibels)
    return decibels


def with_kernel(samples, n_frames, config, lanes=None):
    decibels = np.full((1, config.n_mels, n_frames), np.nan, np.float32)
    mel._kernel(scale_of(config))(samples, 0, decibels, lanes)
    return decibels


def frames_in(samples, config):
    return (len(samples) - config.n_fft) // config.hop_length + 1


def test_where_a_compiler_is_there_the_kernel_is():
    """A kernel that silently stayed away would only show as a slow prediction."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler")
    assert mel.front_end_name() == "compiled", "pip install -e . builds birdinfer/features/kernels/log_mel.so"


@needs_kernel
class TestEqualsNumpy:
    @pytest.mark.parametrize("lanes", [4, 8, 16])
    @pytest.mark.parametrize("n_fft", SIZES)
    def test_with_every_size_and_width(self, n_fft, lanes):
        config = MelConfig(n_fft=n_fft)
        wave = soundscape()
        found, wanted = (
            with_kernel(wave, frames_in(wave, config), config, lanes),
            with_numpy(wave, frames_in(wave, config), config),
        )
        np.testing.assert_allclose(found, wanted, atol=1e-3)
        assert np.abs(found - wanted).mean() < 1e-4

    @pytest.mark.parametrize("scale", ["slaney", "htk"])
    @pytest.mark.parametrize("filter_norm", ["slaney", "none"])
    @pytest.mark.parametrize("n_mels", [8, 128, 256, 512])
    def test_with_every_filterbank(self, scale, filter_norm, n_mels):
        """512 mels of 1024 samples: many filters have no bin at all."""
        config = MelConfig(
            n_fft=1024, hop_length=313, scale=scale, filter_norm=filter_norm, n_mels=n_mels, f_min_hz=0, f_max_hz=16_000
        )
        wave = soundscape()
        n_frames = frames_in(wave, config)
        found, wanted = with_kernel(wave, n_frames, config), with_numpy(wave, n_frames, config)
        # A filter of 512 has one bin alone: in a hole of the noise, 90 dB below the bird, float's last bits show.
        np.testing.assert_allclose(found, wanted, atol=1e-3 if n_mels < 512 else 2e-3)
        assert np.abs(found - wanted).mean() < 1e-4

    @pytest.mark.parametrize("normalisation", ["zscore", "minmax", "none"])
    def test_as_model_input(self, normalisation, monkeypatch):
        config = FrontEndConfig(mel=MelConfig(normalisation=normalisation))
        wave = soundscape(11.0)
        compiled = mel.windows_to_input(wave, 2, config)
        monkeypatch.setattr(kernels, "library", lambda: None)
        np.testing.assert_allclose(compiled, mel.windows_to_input(wave, 2, config), atol=1e-3)

    @pytest.mark.parametrize("n_fft", [64, 1024, 2048, 16_384])
    @pytest.mark.parametrize("gain", [0.0, 1e-30, 1e-6, 1.0])
    def test_from_silence_to_clipping(self, n_fft, gain):
        config = MelConfig(n_fft=n_fft)
        wave = np.clip(gain * 4 * soundscape(), -1, 1).astype(np.float32)
        n_frames = frames_in(wave, config)
        np.testing.assert_allclose(with_kernel(wave, n_frames, config), with_numpy(wave, n_frames, config), atol=1e-3)

    def test_beside_a_clean_full_scale_sine_up_to_the_rounding_of_float(self):
        """No recording is so clean: a bin at the floor, -100 dB, depends on the last bits of the sine's samples."""
        config = MelConfig(filter_norm="none")
        wave = np.sin(2 * np.pi * 1234.5 * np.arange(2 * RATE) / RATE).astype(np.float32)
        n_frames = frames_in(wave, config)
        found, wanted = with_kernel(wave, n_frames, config), with_numpy(wave, n_frames, config)
        np.testing.assert_allclose(found, wanted, atol=0.05)
        assert np.abs(found - wanted).mean() < 1e-3

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.filterwarnings("ignore:invalid value")
    def test_where_samples_are_no_numbers(self, bad):
        """They must stay visible: a finite answer to a broken block would be a silent failure."""
        config = MelConfig()
        wave = soundscape()
        wave[RATE] = bad
        n_frames = frames_in(wave, config)
        found, wanted = with_kernel(wave, n_frames, config), with_numpy(wave, n_frames, config)
        np.testing.assert_array_equal(np.isfinite(found).all(axis=1), np.isfinite(wanted).all(axis=1))
        assert not np.isfinite(found).all()


@needs_kernel
@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("n_fft", [256, 250, 254])
def test_a_frame_is_the_same_bits_in_every_lane_and_block(n_fft, lanes):
    config = MelConfig(n_fft=n_fft, hop_length=100, n_mels=32)
    wave = soundscape()
    whole = with_kernel(wave, 70, config, lanes)
    for first in range(35):
        for n_frames in (1, 3, 16, 17, 35):
            part = with_kernel(wave[first * 100 :], n_frames, config, lanes)
            assert np.array_equal(part, whole[:, :, first : first + n_frames])


@needs_kernel
def test_threads_share_a_kernel():
    config = FrontEndConfig(mel=MelConfig(n_fft=1024))
    wave = soundscape(11.0)
    alone = mel.windows_to_input(wave, 2, config)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: mel.windows_to_input(wave, 2, config), range(32)):
            assert np.array_equal(found, alone)


BETWEEN_FORBIDDEN_PAGES = """
import ctypes, mmap, sys
import numpy as np
from birdinfer.features import kernels, log_mel as mel
from birdinfer.config import MelConfig

libc = ctypes.CDLL(None)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

def fenced(n_floats, at_end):
    '''Float32 with a page that may not be touched right behind it, or right before.'''
    page, n_bytes = mmap.PAGESIZE, 4 * n_floats
    inner = -(-n_bytes // page) * page
    memory = mmap.mmap(-1, inner + 2 * page)
    whole = np.frombuffer(memory, np.uint8)
    for begin in (0, page + inner):
        assert libc.mprotect(whole.ctypes.data + begin, page, mmap.PROT_NONE if hasattr(mmap, "PROT_NONE") else 0) == 0
    begin = page + (inner - n_bytes if at_end else 0)
    return whole[begin : begin + n_bytes].view(np.float32)

SETTINGS = (
    (64, 16, 8, 1), (64, 37, 9, 5), (1024, 500, 128, 33), (2048, 512, 256, 17),
    (66, 16, 8, 1), (134, 37, 9, 5), (1000, 500, 128, 33), (1102, 500, 128, 17),
)
for lanes in (4, 8, 16):
    for n_fft, hop, n_mels, n_frames in SETTINGS:
        for at_end in (False, True):
            config = MelConfig(n_fft=n_fft, hop_length=hop, n_mels=n_mels)
            samples = fenced((n_frames - 1) * hop + n_fft, at_end)
            samples[:] = 0.1
            out = fenced(n_mels * n_frames, at_end).reshape(1, n_mels, n_frames)
            scale = mel._Scale(config, 32_000, config.floor_power)
            mel._kernel(scale)(samples, 0, out, lanes)
            assert np.isfinite(out).all()
if sys.argv[1:]:  # the fence itself: reading one float behind it must kill
    ctypes.string_at(samples.ctypes.data + samples.nbytes, 4)
print("whole")
"""


@needs_kernel
@pytest.mark.skipif(sys.platform != "linux", reason="mprotect as Linux has it")
def test_reads_and_writes_nothing_beyond_the_arrays():
    """In a process of its own: one float too far ends it."""
    run = [sys.executable, "-c", BETWEEN_FORBIDDEN_PAGES]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "whole", done.stderr
    assert subprocess.run([*run, "touch"], capture_output=True, cwd=ROOT).returncode < 0


@needs_kernel
class TestRefuses:
    """Arguments with which C would read or write beyond an array."""

    CONFIG = MelConfig(n_fft=64, hop_length=16, n_mels=8)

    @pytest.mark.parametrize(
        ("samples", "stride", "out"),
        [
            (np.zeros(79, np.float32), 0, np.empty((1, 8, 2), np.float32)),
            (np.zeros(80, np.float32), 1, np.empty((2, 8, 2), np.float32)),
            (np.zeros(80, np.float32), -1, np.empty((2, 8, 2), np.float32)),
            (np.zeros((1, 80), np.float32), 0, np.empty((1, 8, 2), np.float32)),
            (np.zeros(80), 0, np.empty((1, 8, 2), np.float32)),
            (np.zeros(160, np.float32)[::2], 0, np.empty((1, 8, 2), np.float32)),
            (np.zeros(80, np.float32), 0, np.empty((1, 7, 2), np.float32)),
            (np.zeros(80, np.float32), 0, np.empty((8, 2), np.float32)),
            (np.zeros(80, np.float32), 0, np.empty((1, 8, 2))),
            (np.zeros(80, np.float32), 0, np.empty((1, 8, 4), np.float32)[:, :, ::2]),
            (np.zeros(80, np.float32), 0, np.broadcast_to(np.float32(0), (1, 8, 2))),
        ],
    )
    def test_arrays_too_small_or_of_another_layout(self, samples, stride, out):
        with pytest.raises(ValueError, match=r"^(samples|out|samples and out): .* got"):
            mel._kernel(scale_of(self.CONFIG))(samples, stride, out)

    def test_nothing_that_fits(self):
        mel._kernel(scale_of(self.CONFIG))(np.zeros(81, np.float32), 1, np.empty((2, 8, 2), np.float32))
        mel._kernel(scale_of(self.CONFIG))(np.zeros(0, np.float32), 1, np.empty((0, 8, 2), np.float32))
        mel._kernel(scale_of(self.CONFIG))(np.zeros(0, np.float32), 0, np.empty((1, 8, 0), np.float32))

    def test_to_run_without_a_library(self, load):
        kernel = mel._kernel(scale_of(self.CONFIG))
        load(Path("nowhere.so"))
        with pytest.raises(RuntimeError, match=r"nowhere\.so: is not there"):
            kernel(np.zeros(80, np.float32), 0, np.empty((1, 8, 2), np.float32))


class TestFallsBackToNumpy:
    def falls_back(self):
        config = FrontEndConfig()
        wave = soundscape(6.0)
        found = mel.windows_to_input(wave, 1, config)
        return mel.front_end_name() == "numpy" and np.isfinite(found).all()

    def test_without_a_library(self, load, tmp_path):
        load(tmp_path / "log_mel.so")
        assert self.falls_back()

    def test_with_a_damaged_library(self, load, tmp_path):
        (tmp_path / "log_mel.so").write_bytes(b"\x7fELF and then nothing")
        load(tmp_path / "log_mel.so")
        assert self.falls_back()

    def test_with_some_other_library(self, load):
        load(Path(_ctypes.__file__))
        assert self.falls_back()

    @needs_kernel
    def test_with_a_library_of_another_interface(self, load, monkeypatch):
        monkeypatch.setattr(kernels, "INTERFACE", kernels.INTERFACE + 1)
        load(kernels.LIBRARY)
        assert self.falls_back()


class TestBuild:
    @pytest.fixture
    def hatch_build(self):
        pytest.importorskip("hatchling")
        spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    @pytest.fixture
    def sources(self, tmp_path):
        for path in Path(kernels.__file__).parent.glob("log_mel*.[ch]"):
            shutil.copy(path, tmp_path)
        return tmp_path

    def test_makes_a_library_of_this_interface(self, hatch_build, sources):
        if not any(map(shutil.which, hatch_build.COMPILERS)):
            pytest.skip("no C compiler")
        library = hatch_build.compile_kernel(sources)
        assert ctypes.CDLL(str(library)).log_mel_interface() == kernels.INTERFACE
        assert sorted(path.name for path in sources.iterdir()) == ["log_mel.c", "log_mel.so", "log_mel_lanes.h"]

    def test_leaves_no_old_library_where_the_compiler_fails(self, hatch_build, sources):
        (sources / "log_mel.so").write_bytes(b"old")
        (sources / "log_mel.c").write_text("int nonsense = ;\n")
        with pytest.raises((OSError, subprocess.SubprocessError)) as caught:
            hatch_build.compile_kernel(sources)
        assert "\n" not in hatch_build.reason(caught.value)
        assert not (sources / "log_mel.so").exists()

    def test_says_that_there_is_no_compiler(self, hatch_build, sources, monkeypatch):
        monkeypatch.setattr(hatch_build, "COMPILERS", ("no-such-compiler",))
        with pytest.raises(FileNotFoundError, match="none of no-such-compiler is there"):
            hatch_build.compile_kernel(sources)
