"""Is the training loop kept busy, what does mixed precision bring, and where is the front end computed faster?

On a GPU where there is one, else on the CPU; the table says which.
"""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import torch

from birdinfer.config import FrontEndConfig
from birdinfer.features import log_mel as mel
from birdinfer.system.cpu import available_cores
from birdinfer.training.data.cache import CacheSettings, build_cache
from birdinfer.training.data.clip import Metadata
from birdinfer.training.data.dataset import Batch
from birdinfer.training.data.metadata import read_metadata
from birdinfer.training.data.sources import ClipSource
from birdinfer.training.distributed import Distributed
from birdinfer.training.fold import Fold, FoldData, learner_of
from birdinfer.training.forward import Forward
from birdinfer.training.models.log_mel import LogMel
from birdinfer.training.models.registry import build_model
from birdinfer.training.recipe.schema import AugmentConfig, LoopConfig, ModelConfig, Recipe
from birdinfer.training.state import TrainingState

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
WHERE = torch.cuda.get_device_name() if HAS_GPU else f"CPU, {available_cores()} cores"
# As many steps as make the measurement longer than its noise.
STEPS, ROUNDS = (40, 5) if HAS_GPU else (3, 5)
LEAST_SHARE = 0.9


def recipe(amp: str) -> Recipe:
    """The plain recipe of a competition: efficientnet_b0, 128 mels x 320 frames, all usual augmentation."""
    loop = LoopConfig(batch_size=64 if HAS_GPU else 8, num_workers=min(8, available_cores() // 2), amp=amp)  # type: ignore[arg-type]
    augment = AugmentConfig(pink_noise_probability=0.2, filter_probability=0.4)
    return Recipe(augment=augment, model=ModelConfig(backbone="efficientnet_b0", drop_path_rate=0.1), loop=loop)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metadata]:
    """Real Xeno-canto recordings where they are beside the checkout, else synthetic ones."""
    from bundles import SHARED_DATA

    if (SHARED_DATA / "birds").is_dir():
        return SHARED_DATA / "birds", read_metadata(SHARED_DATA / "birds")
    from birdinfer.synthetic.soundscapes import write_training_data

    folder = tmp_path_factory.mktemp("clips")
    write_training_data(folder, clips_per_species=8, seed=1)
    return folder, read_metadata(folder)


@pytest.fixture(scope="module")
def cached(clips: tuple[Path, Metadata], tmp_path_factory: pytest.TempPathFactory) -> ClipSource:
    """The clips, decoded once."""
    return build_cache(clips[1].clips, CacheSettings(recipe("auto").input_config), tmp_path_factory.mktemp("cache"))


class Trainer:
    """The loop's inside: batches through augmentation, front end, network, loss and optimiser."""

    def __init__(self, clips: tuple[Path, Metadata], source: ClipSource, amp: str) -> None:
        """Build everything, and warm it up."""
        data_dir, metadata = clips
        job = Fold(
            recipe=recipe(amp),
            species=metadata.species,
            number=0,
            training=metadata.clips * 8,
            validation=(),
            test=(),
            source=source,
            background=(),
            data_dir=data_dir,
            folder=data_dir,
        )
        self._build(job)

    @classmethod
    def of(cls, job: Fold) -> "Trainer":
        """Of a fold that is there."""
        trainer = cls.__new__(cls)
        trainer._build(job)
        return trainer

    def _build(self, job: Fold) -> None:
        wanted = job.recipe
        self._forward = Forward(wanted, job.clips_per_output(), DEVICE)
        torch.manual_seed(0)
        model = build_model(wanted.model, len(job.species), wanted.input_config, start=False).to(DEVICE)
        scaler = torch.amp.GradScaler(DEVICE.type, enabled=self._forward.precision == "fp16")
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        learner = learner_of(model, job, DEVICE)
        self._state = TrainingState(model, wanted.optim, scaler, Distributed(), **learner)
        self.data = FoldData(job, Distributed(), pin=HAS_GPU)

    def seconds(self, batches: Iterable[Batch]) -> float:
        """Seconds for ``STEPS`` steps."""
        self._state.model.train()
        began = perf_counter()
        for step, batch in zip(range(STEPS), batches, strict=False):
            rng = np.random.default_rng(step)
            part = self._forward.augment(batch, rng)
            self._state.backward(self._forward.loss(self._state.learner, part, torch.ones(2, device=DEVICE)))
            self._state.step(1e-3, step)
        if HAS_GPU:
            torch.cuda.synchronize()
        return perf_counter() - began


def ratios(first: Callable[[], float], second: Callable[[], float]) -> list[float]:
    """How much longer the first takes, side by side, so that a busy machine slows both."""
    first(), second()
    return [first() / second() for _ in range(ROUNDS)]


def median_and_range(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


@pytest.fixture(autouse=True)
def one_thread_per_core() -> Iterable[None]:
    """On a CPU the loader's workers need a core, too."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, available_cores() // 2))
    yield
    torch.set_num_threads(before)


def test_the_loop_with_decoding_is_as_fast_as_from_memory(clips, cached, table):
    trainer = Trainer(clips, cached, "auto")
    stream = endless(trainer)
    ready = [next(stream) for _ in range(STEPS)]
    values = ratios(lambda: trainer.seconds(ready), lambda: trainer.seconds(stream))
    table.append(
        {
            "what": f"training fed from the cache against the same loop fed from memory ({WHERE})",
            "measured": median_and_range(values),
            "bound": f">= {LEAST_SHARE}",
            "detail": f"efficientnet_b0, {recipe('auto').loop.num_workers} workers, real recordings, all augmentation",
        }
    )
    assert statistics.median(values) >= LEAST_SHARE


def test_mixed_precision(clips, cached, table):
    plain, mixed = Trainer(clips, cached, "off"), Trainer(clips, cached, "auto" if HAS_GPU else "bf16")
    ready = [batch for _, batch in zip(range(STEPS), plain.data.training, strict=False)]
    values = ratios(lambda: plain.seconds(ready), lambda: mixed.seconds(ready))
    table.append(
        {
            "what": f"training in mixed precision against float32 ({WHERE})",
            "measured": f"{median_and_range(values)} x",
            "bound": "> 1" if HAS_GPU else "",
            "detail": "efficientnet_b0, fed from memory",
        }
    )
    assert not HAS_GPU or statistics.median(values) > 1


def test_front_end(table):
    config = FrontEndConfig()
    n_windows = 64 if HAS_GPU else 12
    length = config.window_samples + 2 * config.margin_samples
    windows = np.random.default_rng(0).normal(0, 0.1, (n_windows, length)).astype(np.float32)
    there, frontend = torch.from_numpy(windows).to(DEVICE), LogMel(config).to(DEVICE)

    def with_torch() -> float:
        began = perf_counter()
        frontend(there)
        if HAS_GPU:
            torch.cuda.synchronize()
        return perf_counter() - began

    def with_numpy() -> float:
        began = perf_counter()
        for window in windows:
            mel.windows_to_input(window, 1, config)
        return perf_counter() - began

    values = ratios(with_numpy, with_torch)
    minute_ms = 1e3 * with_torch() / n_windows * 12
    table.append(
        {
            "what": f"front end of training (torch, {WHERE}) against prediction's ({mel.front_end_name()}, one core)",
            "measured": f"{median_and_range(values)} x",
            "bound": "> 1" if HAS_GPU else "",
            "detail": f"torch: {minute_ms:.1f} ms a minute of sound",
        }
    )
    assert not HAS_GPU or statistics.median(values) > 1


def endless(trainer: Trainer) -> Iterator[Batch]:
    """Batches of one epoch after another."""
    epoch = 0
    while True:
        trainer.data.batches.begin(epoch, 0)
        yield from trainer.data.training
        epoch += 1
