"""Embeddings on disk: the windows' own numbers, whatever the order of batches, kills and odd names."""

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from external_graphs import write_external_graph, write_list
from make_bundles import LABELS, SAMPLE_RATE, tone, write_sound

from birdinfer.audio.status import Status
from birdinfer.errors import BirdinferError, BundleError, ConfigError, InputNotFoundError, MetadataError, OutputError
from birdinfer.inference.bundle import Bundle, file_sha256, save_manifest
from birdinfer.inference.embeddings import EmbeddingWriter, read_embeddings
from birdinfer.inference.manifest import Graph, Manifest
from birdinfer.inference.member_group import MemberScores
from birdinfer.inference.predictor import Predictor
from birdinfer.inference.results import SoundscapeResult
from birdinfer.prediction.run import PredictionSettings, predict_to_csv


def settings(folder: Path, **options) -> PredictionSettings:
    return PredictionSettings(output=folder / "scores.csv", embeddings=folder / "embeddings", **options)


def test_predict_keeps_the_embedding_of_every_window(embedding_bundle, soundscapes, tmp_path):
    predict_to_csv(embedding_bundle, [soundscapes], settings(tmp_path, workers=2, batch_size=1))
    found = read_embeddings(tmp_path / "embeddings")
    assert found.values.dtype == np.float16
    assert found.values.shape == (12 + 3 + 2, 32)
    predictor = Predictor(embedding_bundle, embeddings=True)
    for path in sorted(soundscapes.glob("*.ogg")):
        windows = [index for index, name in enumerate(found.recordings) if name == path.stem]
        assert np.array_equal(found.values[windows], predictor.embed(path)["fold0"].astype(np.float16))
        assert found.start_seconds[windows].tolist() == [5.0 * index for index in range(len(windows))]
    table = (tmp_path / "scores.csv").read_text().splitlines()[1:]
    assert list(found.row_ids) == [line.split(",")[0] for line in table]
    assert (found.info.member, found.info.window_seconds) == ("fold0", 5.0)


def test_predict_has_the_same_scores_with_and_without_embeddings(embedding_bundle, soundscapes, tmp_path):
    predict_to_csv(embedding_bundle, [soundscapes], settings(tmp_path))
    plain = PredictionSettings(output=tmp_path / "plain.csv")
    predict_to_csv(embedding_bundle, [soundscapes], plain)
    assert plain.output.read_bytes() == (tmp_path / "scores.csv").read_bytes()


def test_index_names_the_row_that_holds_the_middle_of_an_overlapping_window(embedding_bundle, soundscapes, tmp_path):
    overlapped = embedding_bundle.with_overlap(2.5)
    predict_to_csv(overlapped, [soundscapes / "site_2.ogg"], settings(tmp_path))
    found = read_embeddings(tmp_path / "embeddings" / "fold0")
    assert found.start_seconds.tolist() == [0.0, 2.5, 5.0, 7.5][: len(found.row_ids)]
    assert found.end_seconds.tolist() == [start + 5 for start in found.start_seconds]
    assert found.row_ids[:3] == ("site_2_5", "site_2_10", "site_2_10")


def test_predict_resumes_with_the_embeddings_of_finished_files(embedding_bundle, soundscapes, tmp_path):
    broken = tmp_path / "sound" / "broken.ogg"
    broken.parent.mkdir()
    broken.write_bytes(b"OggS no more")
    write_sound(tmp_path / "sound" / "good.wav", tone(10.0), SAMPLE_RATE)
    predict_to_csv(embedding_bundle, [tmp_path / "sound"], settings(tmp_path))
    good = tmp_path / "embeddings" / "fold0" / "good.npy"
    before = good.stat().st_mtime_ns
    broken.write_bytes((soundscapes / "site_2.ogg").read_bytes())
    predict_to_csv(embedding_bundle, [tmp_path / "sound"], settings(tmp_path, resume=True))
    assert good.stat().st_mtime_ns == before
    assert read_embeddings(tmp_path / "embeddings").recordings == ("broken",) * 2 + ("good",) * 2


def test_predict_takes_the_fp32_graph_where_the_other_gives_no_embedding(bundle, embedding_bundle, tmp_path):
    shutil.copytree(embedding_bundle.folder, tmp_path / "both")
    shutil.copy(bundle / "fold0.onnx", tmp_path / "both" / "int8.onnx")
    first, *others = embedding_bundle.manifest.members
    graphs = {**first.graphs, "int8": Graph("int8.onnx", file_sha256(tmp_path / "both" / "int8.onnx"))}
    members = (msgspec.structs.replace(first, graphs=graphs), *others)
    save_manifest(tmp_path / "both", msgspec.structs.replace(embedding_bundle.manifest, members=members))
    sound = tmp_path / "sound.wav"
    write_sound(sound, tone(10.0), SAMPLE_RATE)
    predictor = Predictor(Bundle.load(tmp_path / "both"), "onnxruntime:int8", embeddings=True)
    expected = Predictor(embedding_bundle, embeddings=True).embed(sound)["fold0"]
    assert np.array_equal(predictor.embed(sound)["fold0"], expected)


def test_predict_refuses_to_resume_with_other_embeddings(embedding_bundle, tmp_path):
    (tmp_path / "sound").mkdir()
    (tmp_path / "sound" / "broken.ogg").write_bytes(b"OggS no more")
    write_sound(tmp_path / "sound" / "good.wav", tone(10.0), SAMPLE_RATE)
    predict_to_csv(embedding_bundle, [tmp_path / "sound"], PredictionSettings(output=tmp_path / "scores.csv"))
    with pytest.raises(OutputError, match="another --embeddings: none, now"):
        predict_to_csv(embedding_bundle, [tmp_path / "sound"], settings(tmp_path, resume=True))


@pytest.mark.parametrize(("options", "message"), [({"budget_seconds": 60.0}, "--time-budget may leave some out")])
def test_predict_refuses_embeddings_that_would_have_gaps(embedding_bundle, soundscapes, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        predict_to_csv(embedding_bundle, [soundscapes], settings(tmp_path, **options))


def test_predict_refuses_embeddings_of_members_without_any(bundle, soundscapes, tmp_path):
    with pytest.raises(ConfigError, match="no member of linear gives embeddings"):
        predict_to_csv(Bundle.load(bundle), [soundscapes], settings(tmp_path))
    assert not (tmp_path / "embeddings").exists()


def test_predict_never_writes_embeddings_among_other_files(embedding_bundle, soundscapes, tmp_path):
    mine = tmp_path / "embeddings" / "fold0" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(OutputError, match="holds other things than embeddings"):
        predict_to_csv(embedding_bundle, [soundscapes], settings(tmp_path))
    assert mine.read_text() == "mine"


def writer_of(bundle: Bundle, folder: Path, *names: str) -> EmbeddingWriter:
    writer = EmbeddingWriter(folder, bundle, {Path(name): name for name in names})
    writer.begin()
    return writer


def scores_of(first: int, values: np.ndarray) -> list[MemberScores]:
    return [MemberScores(member=0, first=first, clip=None, frames=None, embeddings=values.astype(np.float32))]


def done(name: str, n_rows: int, status: Status = Status.ok) -> SoundscapeResult:
    return SoundscapeResult(Path(name), status, n_rows=n_rows, seconds=5.0 * n_rows)


def test_writer_puts_batches_of_any_order_in_theirs(embedding_bundle, tmp_path):
    writer = writer_of(embedding_bundle, tmp_path / "e", "a")
    values = np.arange(24.0).reshape(6, 4)
    for first, last in ((4, 6), (0, 1), (1, 4)):
        writer.add(Path("a"), scores_of(first, values[first:last]))
    writer.finish(done("a", 6))
    writer.write_index([done("a", 6)])
    assert np.array_equal(read_embeddings(tmp_path / "e").values, values)
    assert np.array_equal(np.load(tmp_path / "e" / "fold0" / "a.npy"), values)


def test_writer_keeps_the_windows_of_a_files_rows_alone(embedding_bundle, tmp_path):
    writer = writer_of(embedding_bundle, tmp_path / "e", "cut", "gone", "left")
    for name in ("cut", "gone", "left"):
        writer.add(Path(name), scores_of(0, np.ones((3, 4))))
    results = [done("cut", 2, Status.damaged), done("gone", 0, Status.failed)]
    for result in results:
        writer.finish(result)
    writer.close()
    writer.write_index(results)
    assert read_embeddings(tmp_path / "e").recordings == ("cut", "cut")
    assert sorted(path.name for path in (tmp_path / "e" / "fold0").iterdir()) == [
        "cut.npy", "embeddings.json", "index.csv", "recordings.csv",
    ]  # fmt: skip


def test_writer_keeps_apart_what_a_disk_may_not(embedding_bundle, tmp_path):
    names = ("A", "a", "../up", "b:c", "x" * 300, "ä\n")
    writer = writer_of(embedding_bundle, tmp_path / "e", *names)
    for number, name in enumerate(names):
        writer.add(Path(name), scores_of(0, np.full((1, 2), number)))
        writer.finish(done(name, 1))
    writer.write_index([done(name, 1) for name in names])
    found = read_embeddings(tmp_path / "e")
    assert found.recordings == names
    assert found.values[:, 0].tolist() == list(range(len(names)))
    assert len(list((tmp_path / "e" / "fold0").glob("*.npy"))) == len(names)


def test_writer_refuses_what_float16_does_not_hold(embedding_bundle, tmp_path):
    writer = writer_of(embedding_bundle, tmp_path / "e", "a")
    with pytest.raises(BundleError, match="reach 1e"):
        writer.add(Path("a"), scores_of(0, np.full((1, 2), 1e5)))
    writer.close()


def _cut(folder: Path) -> None:
    path = folder / "a.npy"
    path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda folder: (folder / "index.csv").unlink(), InputNotFoundError, "the run has not ended"),
        (lambda folder: (folder / "a.npy").unlink(), InputNotFoundError, "no such file"),
        (_cut, MetadataError, "a.npy: cannot be read"),
        (lambda folder: (folder / "embeddings.json").write_text("{}"), MetadataError, "embeddings.json"),
        (lambda folder: np.save(folder / "a.npy", np.ones((2, 4), np.float16)), MetadataError, "does not fit a.npy"),
        (lambda folder: np.save(folder / "a.npy", np.ones((3, 4))), MetadataError, "holds float64"),
        (lambda folder: (folder / "embeddings.json").unlink(), InputNotFoundError, "holds no embeddings"),
    ],
)  # fmt: skip
def test_read_refuses_a_damaged_folder_in_one_line(embedding_bundle, tmp_path, damage, error, message):
    writer = writer_of(embedding_bundle, tmp_path / "e", "a")
    writer.add(Path("a"), scores_of(0, np.ones((3, 4))))
    writer.finish(done("a", 3))
    writer.write_index([done("a", 3)])
    damage(tmp_path / "e" / "fold0")
    with pytest.raises(error, match=message) as refused:
        read_embeddings(tmp_path / "e")
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, BirdinferError)


def test_manifest_of_older_bundles_has_the_digest_that_it_had(bundle):
    """Calibrations state the digest of the scores that were reviewed: embeddings change none."""
    manifest = Bundle.load(bundle).manifest
    outputs = [msgspec.structs.replace(member.outputs, embedding="e") for member in manifest.members]
    members = tuple(
        msgspec.structs.replace(member, outputs=each) for member, each in zip(manifest.members, outputs, strict=True)
    )
    changed = Bundle(bundle, msgspec.structs.replace(manifest, members=members))
    assert changed.sha256() == Bundle.load(bundle).sha256()
    raw = json.loads((bundle / "manifest.json").read_text())
    del raw["members"][0]["outputs"]["embedding"]
    assert msgspec.convert(raw, Manifest) == manifest


def test_adopt_finds_the_embedding_of_a_graph(birdinfer, tmp_path):
    graph = write_external_graph(tmp_path / "external.onnx", len(LABELS))
    labels = write_list(tmp_path / "labels.txt", *LABELS)
    common = ("bundle", "adopt", graph, "--labels", labels, "--bundle", tmp_path / "b")
    code, _, err = birdinfer(*common, "--embedding", "scores")
    assert code == 2
    assert "no output [batch, numbers] beside the scores" in err
    code, _, err = birdinfer(*common, "--embedding", "embedding")
    assert code == 0
    assert "embeddings of 1 numbers" in err
    assert Bundle.load(tmp_path / "b").manifest.members[0].outputs.embedding == "embedding"
