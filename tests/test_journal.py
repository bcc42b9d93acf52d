import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdinfer.errors import OutputError
from birdinfer.journal import Journal
from birdinfer.run_identity import RunIdentity
from birdinfer.soundscapes import SoundscapeResult
from birdinfer.status import Status

IDENTITY = RunIdentity("abc", "", "onnxruntime:fp32", "1.0", "0.1")
N_LABELS = 3


def rows_of(name: str, n_rows: int = 4) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(os.fsencode(name))).random((n_rows, N_LABELS), np.float32)


@pytest.fixture
def files(tmp_path):
    """Four sound files, one of them with a name that is no text."""
    paths = [
        tmp_path / name for name in ("a.ogg", "b, c.ogg", "ä \n.wav", b"\xff\x80.ogg".decode(errors="surrogateescape"))
    ]
    for path in paths:
        path.write_bytes(b"sound of " + path.name.encode(errors="surrogateescape"))
    return paths


def finish(journal, path, n_rows=4, status=Status.ok, problem=""):
    """A file of two pieces."""
    journal.note_opened(path)
    rows = rows_of(path.name, n_rows) if n_rows else np.zeros((0, N_LABELS), np.float32)
    for piece in (rows[:1], rows[1:]):
        if len(piece):
            journal.add(path, piece)
    journal.finish(SoundscapeResult(path, status, None, n_rows, 5.0 * n_rows, problem=problem))


def stopped(tmp_path, files, **options):
    """A run that has done some files and was stopped."""
    with Journal(tmp_path / "s.csv", N_LABELS) as journal:
        journal.begin(IDENTITY)
        for path in files:
            finish(journal, path, **options)
    return journal.folder


def resumed(tmp_path, files, identity=IDENTITY):
    with Journal(tmp_path / "s.csv", N_LABELS) as journal:
        done = journal.resume(identity, files)
        return done, {path: journal.spool.scores(path.stem) for path in files}


def test_what_is_done_comes_back_bit_by_bit(tmp_path, files):
    stopped(tmp_path, files[:3])
    done, scores = resumed(tmp_path, files)
    assert list(done) == files[:3]
    for path in files[:3]:
        assert done[path] == SoundscapeResult(path, Status.ok, None, 4, 20.0)
        assert np.array_equal(scores[path], rows_of(path.name))
    assert scores[files[3]] is None


def test_names_that_are_no_text_come_back(tmp_path, files):
    stopped(tmp_path, files[3:])
    done, scores = resumed(tmp_path, files)
    assert list(done) == files[3:]
    assert np.array_equal(scores[files[3]], rows_of(files[3].name))


def test_files_that_failed_are_done_and_those_left_out_are_not(tmp_path, files):
    with Journal(tmp_path / "s.csv", N_LABELS) as journal:
        journal.begin(IDENTITY)
        finish(journal, files[0], 0, Status.unreadable, "cannot be decoded")
        finish(journal, files[1], 2, Status.skipped_by_budget)
        finish(journal, files[2], 0, Status.stopped)
    done, _ = resumed(tmp_path, files)
    assert [(result.status, result.problem) for result in done.values()] == [("unreadable", "cannot be decoded")]


def test_a_file_that_was_left_half_way_is_heard_again_as_if_never(tmp_path, files):
    with Journal(tmp_path / "s.csv", N_LABELS) as journal:
        journal.begin(IDENTITY)
        journal.note_opened(files[0])
        journal.add(files[0], rows_of("half", 1))
        finish(journal, files[1])
    with Journal(tmp_path / "s.csv", N_LABELS) as journal:
        assert list(journal.resume(IDENTITY, files)) == [files[1]]
        finish(journal, files[0])
        assert np.array_equal(journal.spool.scores(files[0].stem), rows_of(files[0].name))
    assert list(resumed(tmp_path, files)[0]) == [files[1], files[0]]


def test_a_sound_file_that_changed_is_heard_again(tmp_path, files):
    stopped(tmp_path, files)
    files[1].write_bytes(b"another recording")
    files[2].unlink()
    assert list(resumed(tmp_path, files)[0]) == [files[0], files[3]]


@pytest.mark.parametrize("n_rows", [4, 0])
def test_a_sound_file_that_grew_while_it_was_heard_is_heard_again(tmp_path, files, n_rows):
    """It is still being copied, or the recorder has not ended: what was heard is not all."""
    with Journal(tmp_path / "s.csv", N_LABELS) as journal:
        journal.begin(IDENTITY)
        journal.note_opened(files[0])
        files[0].write_bytes(b"sound, and more of it")
        if n_rows:
            journal.add(files[0], rows_of(files[0].name))
        journal.finish(SoundscapeResult(files[0], Status.ok if n_rows else Status.unreadable, None, n_rows))
        finish(journal, files[1])
    assert list(resumed(tmp_path, files)[0]) == [files[1]]


def test_another_run_is_not_gone_on_with(tmp_path, files):
    stopped(tmp_path, files)
    for other, problem in (
        (
            RunIdentity("abd", "", "onnxruntime:fp32", "1.0", "0.1"),
            "another bundle, or with other options - run it as it was",
        ),
        (RunIdentity("abc", "cba", "onnxruntime:fp32", "1.0", "0.1"), "another bundle, or with other options"),
        (RunIdentity("abc", "", "openvino:bf16", "1.0", "0.1"), "another engine: onnxruntime:fp32, now openvino:bf16"),
        (RunIdentity("abc", "", "onnxruntime:fp32", "1.1", "0.1"), "another version of the engine: 1.0, now 1.1"),
    ):
        with pytest.raises(OutputError, match=problem):
            resumed(tmp_path, files, other)
    assert len(resumed(tmp_path, files)[0]) == 4


def test_to_begin_anew_forgets_what_was_done(tmp_path, files):
    stopped(tmp_path, files)
    stopped(tmp_path, files[:1])
    assert list(resumed(tmp_path, files)[0]) == files[:1]


def test_to_go_on_where_nothing_was_begun_is_to_begin(tmp_path, files):
    assert resumed(tmp_path, files)[0] == {}


def test_another_run_that_was_killed_before_its_first_file_is_in_nobodys_way(tmp_path, files):
    with Journal(tmp_path / "s.csv", N_LABELS) as journal:
        journal.begin(IDENTITY)
        left = (journal.folder / "run.json").read_bytes()
    journal.folder.mkdir()
    (journal.folder / "run.json").write_bytes(left)
    assert resumed(tmp_path, files, RunIdentity("abd", "", "openvino:bf16", "1.0", "0.1"))[0] == {}


def test_a_run_that_did_nothing_leaves_nothing(tmp_path, files):
    with Journal(tmp_path / "s.csv", N_LABELS) as journal:
        journal.begin(IDENTITY)
        journal.note_opened(files[0])
        journal.add(files[0], rows_of("half"))
    assert not journal.folder.exists()


def test_a_finished_run_leaves_nothing(tmp_path, files):
    with Journal(tmp_path / "s.csv", N_LABELS) as journal:
        journal.begin(IDENTITY)
        finish(journal, files[0])
        journal.discard()
    assert not journal.folder.exists()


def test_what_has_come_after_a_finished_run_is_left_alone(tmp_path, files):
    """Another run may begin there before this process is gone."""
    with Journal(tmp_path / "s.csv", N_LABELS) as journal:
        journal.begin(IDENTITY)
        journal.discard()
        with Journal(tmp_path / "s.csv", N_LABELS) as after:
            after.begin(IDENTITY)
            journal.__exit__(None, None, None)
            finish(after, files[0])
    assert list(resumed(tmp_path, files)[0]) == files[:1]


def test_a_run_that_is_killed_while_its_folder_goes_leaves_no_half_of_it(tmp_path, files, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with Journal(tmp_path / "s.csv", N_LABELS) as journal:
        journal.begin(IDENTITY)
        finish(journal, files[0])
        monkeypatch.setattr("birdinfer.own_folder.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            journal.discard()
    assert not journal.folder.exists()
    monkeypatch.undo()
    assert resumed(tmp_path, files)[0] == {}
    assert not [path for path in tmp_path.iterdir() if "progress" in path.name]


def test_two_runs_never_write_to_one_place(tmp_path):
    with (
        Journal(tmp_path / "s.csv", N_LABELS),
        pytest.raises(OutputError, match="another process is writing it"),
    ):
        Journal(tmp_path / "s.csv", N_LABELS)
    Journal(tmp_path / "s.csv", N_LABELS).close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named_and_closing_adds_nothing_to_it(tmp_path, files):
    def fill():
        with Journal(tmp_path / "s.csv", N_LABELS) as journal:
            journal.begin(IDENTITY)
            finish(journal, files[0])
            journal._lines.close()
            journal._lines = Path("/dev/full").open("ab")  # noqa: SIM115 - the journal closes it
            finish(journal, files[1])

    with pytest.raises(OutputError, match=r"s\.csv\.progress: cannot be written \(No space left on device\)"):
        fill()
    assert list(resumed(tmp_path, files)[0]) == files[:1]


def test_a_disk_that_fails_when_it_is_waited_for_is_named(tmp_path, files, monkeypatch):
    def fsync(*_):
        raise OSError(5, "Input/output error")

    with Journal(tmp_path / "s.csv", N_LABELS) as journal:
        journal.begin(IDENTITY)
        finish(journal, files[0])
        monkeypatch.setattr("os.fsync", fsync)
        with pytest.raises(OutputError, match=r"s\.csv\.progress: cannot be written \(Input/output error\)"):
            journal.sync()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "s.csv.progress").write_text("in the way")
    with pytest.raises(OutputError, match=r"s\.csv\.progress: cannot be written"):
        Journal(tmp_path / "s.csv", N_LABELS)


@pytest.mark.parametrize("name", ["done.jsonl", "scores.f32"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_a_disk_has_lost_is_heard_again_and_nothing_wrong_is_taken(tmp_path_factory, name, data):
    """Cut anywhere, or any byte changed: what comes back is exact, and nothing before the damage is lost."""
    tmp_path = tmp_path_factory.mktemp("run")
    files = [tmp_path / f"{index}.ogg" for index in range(5)]
    for path in files:
        path.write_bytes(b"sound")
    broken = stopped(tmp_path, files) / name
    raw = bytearray(broken.read_bytes())
    lines = raw.splitlines(keepends=True)
    ends = np.cumsum([len(line) for line in lines] if name == "done.jsonl" else [4 * N_LABELS * 4] * 5)
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[at] ^= data.draw(st.integers(1, 255))
    else:
        del raw[at:]
    broken.write_bytes(raw)
    done, scores = resumed(tmp_path, files)
    for path in done:
        assert done[path] == SoundscapeResult(path, Status.ok, None, 4, 20.0)
        assert np.array_equal(scores[path], rows_of(path.name))
    assert {path for path, end in zip(files, ends, strict=True) if end <= at} <= set(done)
    assert len(done) < 5


@pytest.mark.parametrize(
    "line",
    ['{"stem":"a","size_bytes":1}', "[]", "null", '{"pieces":[[-1,5]]}', '{"pieces":[[0,99999999999]]}'],
)
def test_lines_that_nobody_here_wrote_are_passed_over(tmp_path, files, line):
    folder = stopped(tmp_path, files[:1])
    known = json.loads((folder / "done.jsonl").read_bytes().partition(b" ")[2])
    content = json.dumps({**known, **json.loads(line)} if "pieces" in line else json.loads(line)).encode()
    (folder / "done.jsonl").write_bytes(b"%08x %s\n" % (zlib.crc32(content), content))
    assert resumed(tmp_path, files)[0] == {}


def test_a_run_of_which_nobody_can_tell_what_it_was_is_not_gone_on_with(tmp_path, files):
    folder = stopped(tmp_path, files)
    (folder / "run.json").write_text('{"bundle": [')
    with pytest.raises(OutputError, match=r"run\.json: does not tell what was run here \(.*--force"):
        resumed(tmp_path, files)
    assert (folder / "done.jsonl").stat().st_size
