"""Is every core busy with what must be done? The parts alone, their sum over the workers, and the run as a whole."""

import statistics
import time

import numpy as np
import pytest
import soundfile

from birdinfer import Bundle, Predictor, predict_soundscapes
from birdinfer.audio.reader import SoundscapeReader
from birdinfer.audio.stream import AudioStream
from birdinfer.audio.windows import make_grid
from birdinfer.config import AggregationConfig
from birdinfer.inference.autotune import autotune
from birdinfer.inference.member_group import MemberGroup
from birdinfer.inference.predictor import READ_AHEAD_ROWS, make_plan
from birdinfer.system.cpu import available_cores, one_thread_per_worker
from bundles import FRONTENDS, has_bf16, has_openvino
from naive_notebook import decode_naively

ROUNDS = 3


def seconds(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def parts_alone(predictor, paths):
    """Core-seconds of decoding, front end and model over all files, each by itself on one thread."""
    decode = seconds(lambda: [list(predictor.open(path).batches()) for path in paths])
    runs = [list(predictor.open(path).batches()) for path in paths]
    batches = []
    front_end = seconds(
        lambda: batches.extend(
            predictor.member_groups[run.member_group].make_input(run) for file in runs for run in file
        )
    )
    flat = [run for file in runs for run in file]
    model = seconds(
        lambda: [
            predictor.member_groups[run.member_group].score(run.first, batch)
            for run, batch in zip(flat, batches, strict=True)
        ]
    )
    return decode, front_end, model


@pytest.mark.timeout(1200)
def test_worker_efficiency(b0, soundscapes, table, tmp_path, monkeypatch):
    """Core-time of the parts over workers x wall time: what is missing to 1 is waiting and overhead."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = Bundle.load(b0.folder)
    for plan in dict.fromkeys([autotune(bundle, soundscapes).plan, make_plan("onnxruntime")]):
        predictor = Predictor(bundle, plan)
        list(predict_soundscapes(predictor, soundscapes[:2]))
        efficiencies = []
        for _ in range(ROUNDS):
            with one_thread_per_worker():
                alone = parts_alone(predictor, soundscapes)
            wall = seconds(lambda predictor=predictor: list(predict_soundscapes(predictor, soundscapes)))
            efficiencies.append(sum(alone) / plan.workers / wall)
        efficiency, minutes = statistics.median(efficiencies), len(soundscapes)
        table.append(
            {
                "what": f"worker efficiency, efficientnet_b0, {plan}",
                "measured": f"{efficiency:.3f} ({min(efficiencies):.3f} to {max(efficiencies):.3f})",
                "bound": ">= 0.95",
                "detail": "alone, ms a minute: "
                + ", ".join(
                    f"{name} {1000 * part / minutes:.0f}"
                    for name, part in zip(("decode", "front end", "model"), alone, strict=True)
                )
                + f"; the run {1000 * wall / minutes:.0f}",
            }
        )
        assert efficiency >= 0.95


@pytest.mark.parametrize("backbone", ["efficientnet_b0", "eca_nfnet_l0"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning:audioread", "ignore:.*slated for removal:DeprecationWarning")
def test_decode_and_front_end_against_the_naive_notebook(backbone, soundscapes, table):
    frontend = FRONTENDS[backbone]
    grid = make_grid(frontend, AggregationConfig(), frontend.window)
    member_group = MemberGroup(frontend, grid, ())

    def front_end():
        for path in soundscapes:
            with SoundscapeReader(AudioStream(path, grid.sample_rate), [grid], [READ_AHEAD_ROWS]) as reader:
                for each in reader.batches():
                    member_group.make_input(each)

    def naive_front_end():
        for path in soundscapes:
            decode_naively(path, frontend)

    decode_naively(soundscapes[0], frontend)
    ratios, naive, ours = [], [], []
    for _ in range(5):
        with one_thread_per_worker():
            naive.append(seconds(naive_front_end))
            ours.append(seconds(front_end))
        ratios.append(ours[-1] / naive[-1])
    ratio, minutes = statistics.median(ratios), len(soundscapes)
    shape = f"{frontend.mel.n_mels} x {frontend.frames_per_window}"
    table.append(
        {
            "what": f"core-time of decoding and front end against the naive notebook's, n_fft 2048, {shape}",
            "measured": f"{ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            "bound": "<= 1/3",
            "detail": f"{1000 * min(ours) / minutes:.1f} against {1000 * min(naive) / minutes:.1f} ms a minute",
        }
    )
    assert ratio <= 1 / 3


@pytest.mark.timeout(1200)
def test_cost_per_file(b0, soundscapes, table, tmp_path):
    """2,000 short files against 50: nothing may grow with their number."""
    wave, rate = soundfile.read(soundscapes[0], dtype="float32", frames=5 * 32_000)
    soundfile.write(tmp_path / "a.ogg", wave, rate)
    for index in range(2_000):
        (tmp_path / f"f{index:04d}.ogg").symlink_to(tmp_path / "a.ogg")
    every = sorted(tmp_path.glob("f*.ogg"))
    predictor = Predictor(Bundle.load(b0.folder), "openvino" if has_openvino() else "onnxruntime")
    list(predict_soundscapes(predictor, every[:50]))
    few, many = [], []
    for _ in range(ROUNDS):
        few += [seconds(lambda: list(predict_soundscapes(predictor, every[:50]))) / 50 for _ in range(8)]
        many.append(seconds(lambda: list(predict_soundscapes(predictor, every))) / 2_000)
    ratio = statistics.median(many) / statistics.median(few)
    table.append(
        {
            "what": "cost per file, 2,000 files of 5 s against 50, efficientnet_b0",
            "measured": f"{ratio:.3f}",
            "bound": "<= 1.05",
            "detail": f"{1000 * statistics.median(many):.1f} against {1000 * statistics.median(few):.1f} ms",
        }
    )
    assert ratio <= 1.05


@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime:int8", "openvino", "openvino:bf16", "openvino:int8"])
def test_same_scores_whatever_workers_batch_and_order(engine, b0, soundscapes, table, monkeypatch):
    """Bit by bit, on one engine: jobs, batch size, block length, run length and the order of files."""
    if engine.startswith("openvino"):
        pytest.importorskip("openvino")
    if engine == "openvino:bf16" and not has_bf16():
        pytest.skip("this processor has no bf16")
    bundle, paths = Bundle.load(b0.folder), soundscapes[:3]

    def scores(workers, batch_size, order):
        predictor = Predictor(bundle, make_plan(engine, workers, batch_size))
        return {result.path: result.probabilities for result in predict_soundscapes(predictor, order)}

    wanted, n_ways = scores(1, 3, paths), 1
    for workers, batch_size in ((1, 1), (2, 2), (available_cores(), 4), (3, 6), (2, 12), (1, 7)):
        for run_rows, block_seconds in ((6, 10.0), (1, 0.7), (12, 60.0)):
            monkeypatch.setattr("birdinfer.inference.predictor.READ_AHEAD_ROWS", run_rows)
            monkeypatch.setattr("birdinfer.audio.decoder.BLOCK_SECONDS", block_seconds)
            found = scores(workers, batch_size, paths[::-1])
            n_ways += 1
            for path in paths:
                assert np.array_equal(found[path], wanted[path]), (workers, batch_size, run_rows, block_seconds)
    table.append(
        {
            "what": f"scores bit-identical, {engine}",
            "measured": f"{n_ways} ways",
            "bound": "all",
            "detail": "workers 1 to 3, batches 1 to 12, runs of 5 to 60 s, blocks of 0.7 to 60 s, files reversed",
        }
    )
