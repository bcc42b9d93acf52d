"""Training with three sources, and with a cached teacher besides, against clips alone: the same network.

Steps a second, everything in the cache.
The sources are those of ``train/injectors_2026.toml``: labelled soundscapes and pseudo-labels, mixed into fifteen of
sixteen windows, and more clips; here with a share of each batch besides, so that every way of drawing is measured.
"""

import statistics
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from time import process_time

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from birdinfer.tables.pseudo_labels import Teacher, write_pseudo_labels
from birdinfer.training.callbacks import SILENT
from birdinfer.training.data.dataset import Batch
from birdinfer.training.data.prepare import open_source, prepare_data
from birdinfer.training.data.teacher import choose_teacher, open_teacher
from birdinfer.training.fold import Fold
from birdinfer.training.recipe.data_config import DataConfig, SourceConfig
from birdinfer.training.recipe.schema import DistilConfig, Recipe
from bundles import SHARED_DATA
from test_training_speed import (
    HAS_GPU,
    LEAST_SHARE,
    WHERE,
    Trainer,
    endless,
    median_and_range,
    one_thread_per_core,
    ratios,
    recipe,
)

__all__ = ["one_thread_per_core"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
PUBLIC = SHARED_DATA / "soundscapes" / "public"
N_NUMBERS = 1024


def cost(trainer: Trainer, batches: Iterable[Batch]) -> float:
    """Seconds of some steps; without a GPU of the processor, which decodes between them, whatever else it does."""
    began = process_time()
    elapsed = trainer.seconds(batches)
    return elapsed if HAS_GPU else process_time() - began


def fold_of(wanted: Recipe, folder: Path) -> Fold:
    """All of a recipe's data in training; what its teacher says is in the cache."""
    found, cache = prepare_data(wanted, SHARED_DATA / "birds", folder), folder / "cache"
    source = open_source(wanted, found.clips, cache, SILENT, lambda: None)
    teacher = None
    if wanted.distil.teacher:
        chosen = choose_teacher(wanted, found.species, (), cache, lambda line: None)
        teacher = open_teacher(chosen, found.clips, wanted, source, cache)
    return Fold(
        recipe=wanted, species=found.species, number=0, training=found.clips, validation=(), sources=found.sources,
        source=source, data_dir=SHARED_DATA / "birds", folder=folder, teacher=teacher,
    )  # fmt: skip


def write_teacher(path: Path) -> Path:
    """A graph with an embedding as large as BirdNET 2.4's: what is read in training does not depend on who said it."""
    n_samples, n_bands = 160_000, 100  # five seconds at 32 kHz
    weights = np.random.default_rng(0).normal(size=(n_bands, N_NUMBERS)).astype(np.float32)
    nodes = [
        helper.make_node("Reshape", ["waveform", "shape"], ["parts"]),
        helper.make_node("ReduceL2", ["parts"], ["levels"], axes=[2], keepdims=0),
        helper.make_node("MatMul", ["levels", "weights"], ["embedding"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([-1, n_bands, n_samples // n_bands]), "shape"),
        numpy_helper.from_array(weights, "weights"),
    ]
    shapes = {"waveform": n_samples, "embedding": N_NUMBERS}
    given, answer = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in shapes.items()
    )
    graph = helper.make_graph(nodes, "teacher", [given], [answer], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def plain() -> Recipe:
    """Clips alone."""
    if not PUBLIC.is_dir():
        pytest.skip("needs ../shared/data")
    one = recipe("auto")
    loop = one.loop if HAS_GPU else msgspec.structs.replace(one.loop, num_workers=0)
    return msgspec.structs.replace(one, data=DataConfig(all_data=True, cache=True), loop=loop)


@pytest.fixture(scope="module")
def alone(plain: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Fold:
    """Of clips alone."""
    return fold_of(plain, tmp_path_factory.mktemp("alone"))


def three_sources(labels: tuple[str, ...], folder: Path) -> tuple[SourceConfig, ...]:
    """Labelled soundscapes, pseudo-labels and more clips."""
    windows = [(5.0 * index, 5.0 * index + 5) for index in range(12)]
    rng = np.random.default_rng(0)
    files = sorted(path.name for path in (PUBLIC / "audio").glob("bird*.ogg"))
    taught = ((name, windows, rng.random((12, len(labels)), np.float32) ** 8) for name in files)
    write_pseudo_labels(folder / "pseudo", Teacher(labels=labels, bundle="random"), taught)
    audio, birds = str(PUBLIC / "audio"), SHARED_DATA / "birds"
    return (
        SourceConfig(
            path=audio, kind="segments", table=str(PUBLIC / "truth_bird.csv"), name="labelled", share=0.1,
            overlap="keep",
        ),
        SourceConfig(
            path=audio, kind="pseudo_labels", table=str(folder / "pseudo"), mix_probability=0.9375,
            mix_label_sum=0.75, drawn_by="label_sum", overlap="keep",
        ),
        SourceConfig(path=str(birds / "eval_audio"), table=str(birds / "eval.csv"), overlap="keep"),
    )  # fmt: skip


@pytest.mark.parametrize("with_teacher", [False, True], ids=["sources", "sources-and-teacher"])
def test_against_clips_alone(plain, alone, with_teacher: bool, tmp_path: Path, table: list[dict[str, str]]):
    sources = three_sources(tuple(one.label for one in alone.species), tmp_path)
    more = msgspec.structs.replace(plain, data=msgspec.structs.replace(plain.data, sources=sources))
    if with_teacher:
        distil = DistilConfig(teacher=str(write_teacher(tmp_path / "teacher.onnx")), centre=True)
        more = msgspec.structs.replace(more, distil=distil)
    trainers = [Trainer.of(job) for job in (alone, fold_of(more, tmp_path / "more"))]
    first, second = (partial(cost, trainer, endless(trainer)) for trainer in trainers)
    values = ratios(first, second)
    what = "three sources and a cached teacher" if with_teacher else "three sources"
    table.append(
        {
            "what": f"training with {what} against clips alone, steps a second ({WHERE})",
            "measured": median_and_range(values),
            "bound": f">= {LEAST_SHARE}",
            "detail": f"efficientnet_b0, {plain.loop.num_workers} workers, all in the cache, real recordings",
        }
    )
    assert statistics.median(values) >= LEAST_SHARE
