import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from birdinfer import Bundle
from birdinfer.audio.status import FINE, Status
from birdinfer.errors import OutputError
from birdinfer.inference.engines import parse_spec
from birdinfer.inference.results import SoundscapeResult
from birdinfer.postprocess.config import PostConfig
from birdinfer.postprocess.priors import PriorShift
from birdinfer.prediction.identity import RunIdentity
from birdinfer.prediction.score_store import ScoreStore
from birdinfer.prediction.store import RunStore, count_done

IDENTITY = RunIdentity("abc", "", "onnxruntime:fp32", "1.0", "0.1")
OTHER_BUNDLE = RunIdentity("abd", "", "openvino:bf16", "1.0", "0.1")
N_LABELS = 3


def rows_of(name: str, n_rows: int = 4) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(os.fsencode(name))).random((n_rows, N_LABELS), np.float32)


@pytest.fixture
def files(tmp_path):
    """Four sound files, one of them with a name that is no text."""
    names = ("a.ogg", "b, c.ogg", "ä \n.wav", b"\xff\x80.ogg".decode(errors="surrogateescape"))
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.write_bytes(b"sound of " + path.name.encode(errors="surrogateescape"))
    return paths


def finish(store, path, n_rows=4, status=Status.ok, problem=""):
    """A file in two chunks."""
    store.note_opened(path)
    rows = rows_of(path.name, n_rows) if n_rows else np.zeros((0, N_LABELS), np.float32)
    for chunk in (rows[:1], rows[1:]):
        if len(chunk):
            store.add(path, chunk)
    store.finish(SoundscapeResult(path, status, n_rows=n_rows, seconds=5.0 * n_rows, problem=problem))


def open_store(tmp_path):
    return RunStore(tmp_path / "s.csv", N_LABELS)


def stopped(tmp_path, files, **options):
    """The folder of a run that has finished some files and was stopped."""
    with open_store(tmp_path) as store:
        store.begin(IDENTITY)
        for path in files:
            finish(store, path, **options)
    return store.folder


def resumed(tmp_path, files, identity=IDENTITY):
    with open_store(tmp_path) as store:
        done = store.resume(identity, files)
        return done, {path: store.scores.scores(path) for path in files}


class TestResume:
    def test_finished_files_come_back_bit_by_bit(self, tmp_path, files):
        stopped(tmp_path, files[:3])
        done, scores = resumed(tmp_path, files)
        assert list(done) == files[:3]
        for path in files[:3]:
            assert done[path] == SoundscapeResult(path, Status.ok, n_rows=4, seconds=20.0)
            assert np.array_equal(scores[path], rows_of(path.name))
        assert scores[files[3]] is None

    def test_speech_comes_back(self, tmp_path, files):
        with open_store(tmp_path) as store:
            store.begin(IDENTITY)
            for path, speech in zip(files, (((0.5, 1.25), (3.0, 4.012)), (), None), strict=False):
                store.note_opened(path)
                store.finish(SoundscapeResult(path, Status.ok, speech=speech))
        with open_store(tmp_path) as store:
            found = store.resume(IDENTITY, files)
            assert [found[path].speech for path in files[:3]] == [((0.5, 1.25), (3.0, 4.012)), (), None]

    def test_names_that_are_no_text_come_back(self, tmp_path, files):
        stopped(tmp_path, files[3:])
        done, scores = resumed(tmp_path, files)
        assert list(done) == files[3:]
        assert np.array_equal(scores[files[3]], rows_of(files[3].name))

    @pytest.mark.parametrize("status", [status for status in Status if status not in FINE])
    def test_files_with_problems_are_repeated_and_their_rows_stand_until_then(self, tmp_path, files, status):
        with open_store(tmp_path) as store:
            store.begin(IDENTITY)
            finish(store, files[0], 2, status, "cut")
            finish(store, files[1])
        is_known = status not in (Status.skipped_by_budget, Status.stopped)
        for _ in range(2):  # stopped before it was repeated
            with open_store(tmp_path) as store:
                assert list(store.resume(IDENTITY, files)) == [files[1]]
                assert list(store.tried) == files[: int(is_known)]
                assert store.scores.n_rows(files[0]) == (2 if is_known else None)
        with open_store(tmp_path) as store:
            store.resume(IDENTITY, files)
            finish(store, files[0])
            assert np.array_equal(store.scores.scores(files[0]), rows_of(files[0].name))
        assert list(resumed(tmp_path, files)[0]) == files[:2]

    def test_an_attempt_without_a_row_takes_none_away(self, tmp_path, files):
        """Its disk is gone: what was scored of a damaged file before stays."""
        stopped(tmp_path, files[:1], status=Status.damaged)
        with open_store(tmp_path) as store:
            store.resume(IDENTITY, files)
            finish(store, files[0], 0, Status.unreadable)
            assert np.array_equal(store.scores.scores(files[0]), rows_of(files[0].name))
        with open_store(tmp_path) as store:
            store.resume(IDENTITY, files)
            assert store.tried[files[0]].status is Status.damaged

    @pytest.mark.parametrize(
        ("n_rows", "status"), [(2_000, Status.truncated), (3_000, Status.truncated), (1, Status.ok)]
    )
    def test_a_new_attempt_replaces_all_rows(self, tmp_path, files, n_rows, status):
        stopped(tmp_path, files[:1], n_rows=2_000, status=Status.truncated)
        with open_store(tmp_path) as store:
            store.resume(IDENTITY, files)
            assert store.scores.row(files[0], 0) is not None
            finish(store, files[0], n_rows, status)
            assert np.array_equal(store.scores.scores(files[0]), rows_of(files[0].name, n_rows))
        with open_store(tmp_path) as store:
            done = store.resume(IDENTITY, files)
            assert {**done, **store.tried}[files[0]].n_rows == n_rows

    def test_killed_in_a_new_attempt_the_earlier_one_stands(self, tmp_path, files):
        stopped(tmp_path, files[:1], status=Status.truncated)
        with open_store(tmp_path) as store:
            store.resume(IDENTITY, files)
            store.add(files[0], rows_of("other", 3))
            finish(store, files[1])  # commits both
        with open_store(tmp_path) as store:
            store.resume(IDENTITY, files)
            assert list(store.tried) == files[:1]
            assert np.array_equal(store.scores.scores(files[0]), rows_of(files[0].name))

    @pytest.mark.parametrize("gone", ["not named", "not there"])
    def test_inputs_that_lack_finished_files_are_refused_and_nothing_is_lost(self, tmp_path, files, gone):
        stopped(tmp_path, files)
        aside = tmp_path / "aside"
        files[2].rename(aside)
        with pytest.raises(OutputError, match=r"holds 1 finished files that are not among the inputs, or gone: ä"):
            resumed(tmp_path, files if gone == "not there" else [*files[:2], files[3]])
        aside.rename(files[2])
        assert list(resumed(tmp_path, files)[0]) == files

    def test_a_file_that_was_not_there_is_not_done(self, tmp_path, files):
        stopped(tmp_path, [*files, tmp_path / "gone.ogg"], n_rows=0, status=Status.unreadable)
        with open_store(tmp_path) as store:
            assert store.n_done() == 4

    def test_inputs_may_lack_files_that_failed(self, tmp_path, files):
        """The user has removed them."""
        stopped(tmp_path, files[:2], n_rows=0, status=Status.unreadable)
        assert resumed(tmp_path, files[2:])[0] == {}

    @pytest.mark.parametrize("status", [None, Status.skipped_by_budget])
    def test_unfinished_files_start_again(self, tmp_path, files, status):
        """Their rows are committed along with those of other files."""
        with open_store(tmp_path) as store:
            store.begin(IDENTITY)
            store.note_opened(files[0])
            store.add(files[0], rows_of("half", 1))
            if status is not None:
                store.finish(SoundscapeResult(files[0], status, n_rows=1))
            finish(store, files[1])
        with open_store(tmp_path) as store:
            assert list(store.resume(IDENTITY, files)) == [files[1]]
            assert store.scores.n_rows(files[0]) is None
            finish(store, files[0])
            assert np.array_equal(store.scores.scores(files[0]), rows_of(files[0].name))
        assert list(resumed(tmp_path, files)[0]) == files[:2]

    def test_a_changed_sound_file_is_not_done(self, tmp_path, files):
        stopped(tmp_path, files)
        files[1].write_bytes(b"another recording")
        done, scores = resumed(tmp_path, files)
        assert list(done) == [files[0], *files[2:]]
        assert scores[files[1]] is None

    @pytest.mark.parametrize("n_rows", [4, 0])
    def test_a_sound_file_that_grew_while_it_was_processed_is_not_done(self, tmp_path, files, n_rows):
        """It is still being copied, or the recorder has not ended."""
        with open_store(tmp_path) as store:
            store.begin(IDENTITY)
            store.note_opened(files[0])
            files[0].write_bytes(b"sound, and more of it")
            if n_rows:
                store.add(files[0], rows_of(files[0].name))
            store.finish(SoundscapeResult(files[0], Status.ok if n_rows else Status.unreadable, n_rows=n_rows))
            finish(store, files[1])
        assert list(resumed(tmp_path, files)[0]) == [files[1]]

    @pytest.mark.parametrize(
        ("other", "problem"),
        [
            (OTHER_BUNDLE, "another bundle, or with other options - run it as it was"),
            (
                RunIdentity("abc", "cba", "onnxruntime:fp32", "1.0", "0.1"),
                "another bundle, or with other options",
            ),
            (
                RunIdentity("abc", "", "openvino:bf16", "1.0", "0.1"),
                "another engine: onnxruntime:fp32, now openvino:bf16",
            ),
            (
                RunIdentity("abc", "", "onnxruntime:fp32", "1.1", "0.1"),
                "another version of the engine: 1.0, now 1.1",
            ),
            (
                RunIdentity("abc", "", "onnxruntime:fp32", "1.0", "0.1", channel="loudest"),
                "another channel: mean, now loudest",
            ),
        ],
    )
    def test_another_run_is_refused_and_kept(self, tmp_path, files, other, problem):
        stopped(tmp_path, files)
        with pytest.raises(OutputError, match=problem):
            resumed(tmp_path, files, other)
        assert len(resumed(tmp_path, files)[0]) == 4

    def test_another_run_without_a_finished_file_is_replaced(self, tmp_path, files):
        run = f"RunStore(Path({str(tmp_path / 's.csv')!r}), 3).begin({IDENTITY})"
        code = f"from birdinfer.prediction.store import *\n{run}\nos._exit(9)"
        subprocess.run([sys.executable, "-c", code], check=False)
        assert (tmp_path / "s.csv.progress" / "run.sqlite").exists()
        assert resumed(tmp_path, files, OTHER_BUNDLE)[0] == {}

    def test_begin_forgets_what_was_done(self, tmp_path, files):
        stopped(tmp_path, files)
        stopped(tmp_path, files[:1])
        assert list(resumed(tmp_path, files)[0]) == files[:1]

    def test_resume_without_a_run_begins_one(self, tmp_path, files):
        assert resumed(tmp_path, files)[0] == {}

    def test_more_rows_than_a_chunk_come_back(self, tmp_path, files):
        stopped(tmp_path, files[:1], n_rows=3_000)
        with open_store(tmp_path) as store:
            store.resume(IDENTITY, files)
            assert len(list(store.scores.chunks(os.fsencode("a")))) == 4
            rows = rows_of("a.ogg", 3_000)
            assert np.array_equal(store.scores.scores(files[0]), rows)
            for index in (0, 2_999, 1_024, 1_025, 1):
                assert np.array_equal(store.scores.row(files[0], index), rows[index])
            assert store.scores.row(files[0], 3_000) is None
            assert store.scores.row(files[0], -1) is None


class TestEnd:
    def test_an_ended_run_is_kept_and_continues(self, tmp_path, files):
        with open_store(tmp_path) as store:
            store.begin(IDENTITY)
            finish(store, files[0])
            finish(store, files[1], 0, Status.failed)
            assert not store.has_ended()
            store.end()
        with open_store(tmp_path) as store:
            assert store.has_ended()
            assert list(store.resume(IDENTITY, files)) == files[:1]
            assert not store.has_ended()
        with open_store(tmp_path) as store:
            store.begin(IDENTITY)
            assert not store.has_ended()


class TestFolder:
    def test_a_run_that_did_nothing_leaves_nothing(self, tmp_path, files):
        with open_store(tmp_path) as store:
            store.begin(IDENTITY)
            store.note_opened(files[0])
            store.add(files[0], rows_of("half"))
        assert sorted(tmp_path.iterdir()) == sorted(files)

    def test_a_finished_run_leaves_nothing(self, tmp_path, files):
        with open_store(tmp_path) as store:
            store.begin(IDENTITY)
            finish(store, files[0])
            store.discard()
        assert sorted(tmp_path.iterdir()) == sorted(files)

    def test_a_run_after_a_finished_one_is_left_alone(self, tmp_path, files):
        """It may begin before the process of the finished one has ended."""
        with open_store(tmp_path) as store:
            store.begin(IDENTITY)
            store.discard()
            with open_store(tmp_path) as after:
                after.begin(IDENTITY)
                store.__exit__(None, None, None)
                finish(after, files[0])
        assert list(resumed(tmp_path, files)[0]) == files[:1]

    def test_killed_while_the_folder_is_removed_leaves_no_half_of_it(self, tmp_path, files, monkeypatch):
        def killed(*_, **__):
            raise KeyboardInterrupt

        with open_store(tmp_path) as store:
            store.begin(IDENTITY)
            finish(store, files[0])
            monkeypatch.setattr("birdinfer.prediction.store.shutil.rmtree", killed)
            with pytest.raises(KeyboardInterrupt):
                store.discard()
            monkeypatch.undo()
        assert not store.folder.exists()
        assert resumed(tmp_path, files)[0] == {}
        assert sorted(tmp_path.iterdir()) == sorted(files)

    def test_two_runs_never_write_to_one_folder(self, tmp_path):
        with open_store(tmp_path):
            with pytest.raises(OutputError, match=r"s\.csv: another process is writing it \(see .*\) - wait for it"):
                open_store(tmp_path)
            code = f"from birdinfer.prediction.store import *\nRunStore(Path({str(tmp_path / 's.csv')!r}), 3)"
            run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            assert "another process is writing it" in run.stderr
        open_store(tmp_path).close()

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path):
        (tmp_path / "s.csv.progress").write_text("in the way")
        with pytest.raises(OutputError, match=r"s\.csv\.progress: cannot be written \(File exists\)"):
            open_store(tmp_path)
        (tmp_path / "s.csv.progress").unlink()
        open_store(tmp_path).close()

    def test_progress_of_an_older_version_is_refused_and_kept(self, tmp_path, files):
        folder = tmp_path / "s.csv.progress"
        folder.mkdir()
        (folder / "done.jsonl").write_text("a line")
        for call in (RunStore.n_done, RunStore.identity, lambda store: store.resume(IDENTITY, files)):
            with (
                pytest.raises(OutputError, match=r"^[^\n]* older birdinfer, [^\n]* - start again with --force$"),
                open_store(tmp_path) as store,
            ):
                call(store)
        assert (folder / "done.jsonl").exists()
        assert stopped(tmp_path, files) == folder
        assert [path.name for path in folder.iterdir()] == ["run.sqlite"]

    def test_progress_of_a_newer_version_is_refused(self, tmp_path, files):
        folder = stopped(tmp_path, files)
        with sqlite3.connect(folder / "run.sqlite") as connection:
            connection.execute("PRAGMA user_version = 2")
        connection.close()
        with pytest.raises(OutputError, match=r"of another birdinfer \(format 2\) - start again with --force"):
            resumed(tmp_path, files)


class TestKill:
    CODE = """
import sys, zlib
from test_store import *
files = [Path(each) for each in sys.argv[2:]]
with open_store(Path(sys.argv[1])) as store:
    store.resume(IDENTITY, files)
    for path in files:
        finish(store, path)
        print(path.name, flush=True)
    for path in files:
        store.add(path.with_name("unfinished"), rows_of(path.name))
    sys.stdin.read()
"""

    @pytest.mark.parametrize("vfs", ["", "&vfs=unix-dotfile"])
    @pytest.mark.parametrize("n_done", [1, 3, 7])
    def test_kill_loses_no_finished_file(self, tmp_path, monkeypatch, n_done, vfs):
        """unix-dotfile knows no write-ahead log, as some network disks."""
        files = [tmp_path / f"{index}.ogg" for index in range(7)]
        for path in files:
            path.write_bytes(b"sound")
        connect = sqlite3.connect
        code = self.CODE
        if vfs:
            patch = f"import sqlite3\nreal = sqlite3.connect\nsqlite3.connect = lambda p, **k: real(p + {vfs!r}, **k)\n"
            code = patch + code
            monkeypatch.setattr(sqlite3, "connect", lambda path, **options: connect(path + vfs, **options))
        run = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path), *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        )
        for _ in range(n_done):
            assert run.stdout.readline()
        run.send_signal(signal.SIGKILL)
        run.communicate()
        if vfs:  # its lock is a folder, which only its process removes
            shutil.rmtree(tmp_path / "s.csv.progress" / "run.sqlite.lock", ignore_errors=True)
        done, scores = resumed(tmp_path, files)
        assert set(files[:n_done]) <= set(done)
        for path in done:
            assert np.array_equal(scores[path], rows_of(path.name))

    @pytest.mark.parametrize("n_synced", [0, 2])
    def test_power_cut_loses_the_last_commits_at_most(self, tmp_path, files, n_synced):
        """The log is cut anywhere: a prefix of the files is found, and among them those that were synced."""
        with open_store(tmp_path) as store:
            store.begin(IDENTITY)
            for index, path in enumerate(files):
                if index == n_synced > 0:
                    store.sync()
                finish(store, path)
            folder, image = store.folder, tmp_path / "image"
            shutil.copytree(folder, image)
        log, n_before = (image / "run.sqlite-wal").read_bytes(), n_synced
        for size in [*range(0, len(log), 2_060), len(log)]:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(image, folder)
            (folder / "run.sqlite-shm").unlink()
            (folder / "run.sqlite-wal").write_bytes(log[:size])
            done, scores = resumed(tmp_path, files)
            assert list(done) == files[: len(done)]
            assert all(np.array_equal(scores[path], rows_of(path.name)) for path in done)
            assert len(done) >= n_before
            n_before = len(done)
        assert n_before == 4


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A stopped run of five files, and its database."""
    tmp_path = tmp_path_factory.mktemp("run")
    files = [tmp_path / f"{index}.ogg" for index in range(5)]
    for path in files:
        path.write_bytes(b"sound")
    return tmp_path, files, (stopped(tmp_path, files, n_rows=400) / "run.sqlite").read_bytes()


class TestDamage:
    @settings(max_examples=120)
    @given(data=st.data())
    def test_nothing_wrong_is_taken_from_a_damaged_file(self, intact, data):
        """Cut anywhere, or any byte changed: what comes back is exact, or one line says that it is damaged."""
        tmp_path, files, content = intact
        raw = bytearray(content)
        at = data.draw(st.integers(0, len(raw) - 1))
        if data.draw(st.booleans()):
            raw[at] ^= data.draw(st.integers(1, 255))
        else:
            del raw[at:]
        folder = tmp_path / "s.csv.progress"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "run.sqlite").write_bytes(raw)
        try:
            done, scores = resumed(tmp_path, files)
        except OutputError as error:
            done, problem = {}, str(error)
        else:
            problem = f"{folder}: none"
        assert problem.startswith(f"{folder}: ")
        assert "\n" not in problem
        for path in done:
            assert done[path] == SoundscapeResult(path, Status.ok, n_rows=400, seconds=2000.0)
            assert np.array_equal(scores[path], rows_of(path.name, 400))

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE files SET record = '[]'",
            "UPDATE files SET record = NULL",
            "UPDATE files SET record = 7",
            "UPDATE files SET crc32 = crc32 + 1",
            "UPDATE files SET record = CAST(REPLACE(CAST(record AS TEXT), '20.0', '21.0') AS BLOB)",
            "UPDATE files SET record = CAST(REPLACE(CAST(record AS TEXT), '\"n_rows\":4', '\"n_rows\":-4') AS BLOB)",
            "UPDATE chunks SET rows = zeroblob(36) WHERE first_row = 1",
            "UPDATE chunks SET rows = 'text' WHERE first_row = 1",
            "UPDATE chunks SET rows = zeroblob(35) WHERE first_row = 1",
            "UPDATE chunks SET first_row = 2 WHERE first_row = 1",
            "DELETE FROM chunks WHERE first_row = 1",
            "DELETE FROM chunks",
            "UPDATE files SET file = CAST('b, c' AS BLOB) WHERE file = CAST('a' AS BLOB)",
            "UPDATE files SET record = CAST('{}' AS BLOB)",
        ],
    )
    def test_records_and_rows_that_do_not_fit_are_not_taken(self, tmp_path, files, change):
        folder = stopped(tmp_path, files[:1])
        with sqlite3.connect(folder / "run.sqlite") as connection:
            connection.execute(change)
        connection.close()
        done, scores = resumed(tmp_path, files)
        assert done == {}
        assert all(rows is None for rows in scores.values())

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ("UPDATE run SET identity = CAST('{\"bundle\": [' AS BLOB)", "is damaged .* - start again with --force"),
            ("DELETE FROM run", "is damaged .* - start again with --force"),
            ("DROP TABLE files", "no such table: files"),
        ],
    )
    def test_a_run_without_identity_is_not_continued(self, tmp_path, files, change, problem):
        folder = stopped(tmp_path, files)
        with sqlite3.connect(folder / "run.sqlite") as connection:
            connection.execute(change)
        connection.close()
        with pytest.raises(OutputError, match=problem):
            resumed(tmp_path, files)
        assert (folder / "run.sqlite").exists()
        assert len(stopped(tmp_path, files).name)
        assert len(resumed(tmp_path, files)[0]) == 4

    def test_a_file_that_is_no_database_is_not_continued(self, tmp_path, files):
        folder = stopped(tmp_path, files)
        (folder / "run.sqlite").write_bytes(b"no database" * 1_000)
        with pytest.raises(OutputError, match=r"is damaged \(file is not a database\) - start again with --force"):
            resumed(tmp_path, files)


class TestMend:
    @settings(max_examples=60)
    @given(data=st.data())
    def test_what_can_be_read_of_a_damaged_file_is_saved(self, intact, data):
        """One byte is changed: at most the files on its page are processed again, unless it is on the first page."""
        tmp_path, files, content = intact
        raw = bytearray(content)
        page_bytes = int.from_bytes(raw[16:18], "big")
        at = data.draw(st.integers(page_bytes, len(raw) - 1))
        raw[at] ^= data.draw(st.integers(1, 255))
        folder = tmp_path / "s.csv.progress"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "run.sqlite").write_bytes(raw)
        try:
            with open_store(tmp_path) as store:
                store.mend()
                done = store.resume(IDENTITY, files)
                for path in done:
                    assert np.array_equal(store.scores.scores(path), rows_of(path.name, 400))
                for path in set(files) - set(done):
                    finish(store, path, 400)
        except OutputError as error:
            # A byte of the identity makes it another run's, which is refused, too.
            if "start again with --force" not in str(error):
                raise
        else:
            assert list(resumed(tmp_path, files)[0]) == files
            assert [path.name for path in folder.iterdir()] == ["run.sqlite"]

    def test_a_broken_page_costs_the_files_on_it(self, tmp_path):
        files = [tmp_path / f"{index}.ogg" for index in range(40)]
        for path in files:
            path.write_bytes(b"sound")
        database = stopped(tmp_path, files, n_rows=1_000) / "run.sqlite"
        raw = bytearray(database.read_bytes())
        middle = len(raw) // 2 // 4096 * 4096
        raw[middle : middle + 3 * 4096] = bytes(3 * 4096)
        database.write_bytes(raw)
        with open_store(tmp_path) as store:
            assert store.mend()
            assert 35 < len(store.resume(IDENTITY, files)) < 40
            assert not store.mend()

    def test_what_is_whole_is_left_alone(self, tmp_path, files):
        with open_store(tmp_path) as store:
            assert not store.mend()
        before = (stopped(tmp_path, files) / "run.sqlite").read_bytes()
        with open_store(tmp_path) as store:
            assert not store.mend()
        assert (store.folder / "run.sqlite").read_bytes() == before

    def test_what_cannot_be_saved_is_named_and_kept(self, tmp_path, files):
        folder = stopped(tmp_path, files)
        (folder / "run.sqlite").write_bytes(b"no database" * 1_000)
        with (
            pytest.raises(OutputError, match=r"is damaged \(file is not a database\) - start again with --force"),
            open_store(tmp_path) as store,
        ):
            store.mend()
        assert (folder / "run.sqlite").read_bytes() == b"no database" * 1_000
        assert [path.name for path in folder.iterdir()] == ["run.sqlite"]

    def test_killed_while_it_saves_it_starts_again(self, tmp_path, files, monkeypatch):
        folder = stopped(tmp_path, files)
        (folder / "run.sqlite").rename(folder / "run.sqlite-damaged")
        (folder / "run.sqlite").write_bytes(b"half")
        with open_store(tmp_path) as store:
            store.mend()
        assert list(resumed(tmp_path, files)[0]) == files


class TestFullDisk:
    def test_a_full_disk_is_named_in_one_line_and_keeps_what_is_done(self, tmp_path, files):
        def fill():
            with open_store(tmp_path) as store:
                store.begin(IDENTITY)
                finish(store, files[0])
                with store._database.use() as connection:
                    connection.execute("PRAGMA max_page_count = 10").fetchall()
                finish(store, files[1], 10_000)

        problem = r"s\.csv\.progress: cannot be written \(database or disk is full\) - choose another place"
        with pytest.raises(OutputError, match=problem) as caught:
            fill()
        assert "\n" not in str(caught.value)
        assert list(resumed(tmp_path, files)[0]) == files[:1]

    def test_a_disk_that_fails_is_named(self, tmp_path):
        """The system takes no more bytes for a file: the write fails within SQLite."""
        resource = pytest.importorskip("resource")
        code = f"""
import resource
from test_store import *
with open_store(Path({str(tmp_path)!r})) as store:
    store.begin(IDENTITY)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({resource.getpagesize()} * 8,) * 2)
    finish(store, Path("a.ogg"), 100_000)
"""
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        run = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert "OutputError" in run.stderr.splitlines()[-1]
        assert "s.csv.progress: cannot be written (" in run.stderr.splitlines()[-1]


class TestScoreStore:
    def test_chunks_of_several_files_are_put_together_in_order(self):
        random = np.random.default_rng(0)
        whole = {Path(name): random.random((n_rows, 5), np.float32) for name, n_rows in (("a", 7), ("b", 4), ("c", 1))}
        store = ScoreStore(5)
        for begin in range(0, 7, 2):
            for path, rows in whole.items():
                if begin < len(rows):
                    store.add(path, rows[begin : begin + 2])
        for path, rows in whole.items():
            assert np.array_equal(store.scores(path), rows)
            assert store.n_rows(path) == len(rows)
            for index in reversed(range(len(rows))):
                assert np.array_equal(store.row(path, index), rows[index])
        assert store.n_rows(Path("unknown")) is None
        assert store.scores(Path("unknown")) is None

    def test_rows_added_after_a_read_are_found(self):
        store, rows = ScoreStore(5), np.ones((2, 5), np.float32)
        for n_rows in (2, 4):
            store.add(Path("a"), rows)
            assert len(store.scores(Path("a"))) == n_rows
            assert store.row(Path("a"), n_rows - 1) is not None
            assert store.row(Path("a"), n_rows) is None

    def test_rows_of_another_layout_are_stored_as_they_read(self):
        rows = np.arange(20.0).reshape(5, 4).T  # float64, and column by column
        store = ScoreStore(5)
        store.add(Path("a"), rows)
        assert np.array_equal(store.scores(Path("a")), rows.astype(np.float32))

    @given(data=st.data())
    def test_scores_below_a_limit_come_back_as_zeros(self, data):
        limits = data.draw(arrays(np.float32, N_LABELS, elements=st.floats(0, 1, width=32)))
        shapes = st.tuples(st.integers(1, 40), st.just(N_LABELS))
        rows = data.draw(arrays(np.float32, shapes, elements=st.floats(0, 1, width=32)))
        store = ScoreStore(N_LABELS, kept_from=limits)
        store.add(Path("a"), rows[:7])
        store.add(Path("a"), rows[7:])
        assert np.array_equal(store.scores(Path("a")), np.where(rows >= limits, rows, 0))
        assert np.array_equal(store.row(Path("a"), len(rows) - 1), np.where(rows >= limits, rows, 0)[-1])
        assert store.recover(b"a", len(rows)) == store.take_checksum(b"a")

    def test_rows_are_read_while_others_are_added(self, tmp_path):
        """A table is renewed while workers continue: no row may come from another file."""
        expected = {tmp_path / str(index): np.full((3, 5), index, np.float32) for index in range(400)}
        with RunStore(tmp_path / "s.csv", 5) as store:
            store.begin(IDENTITY)

            def add():
                for path, rows in expected.items():
                    store.note_opened(path)
                    store.add(path, rows)
                    store.finish(SoundscapeResult(path, Status.ok, n_rows=3))

            adding = threading.Thread(target=add)
            adding.start()
            while adding.is_alive():
                for path in list(expected)[::7]:
                    row = store.scores.row(path, 1)
                    assert row is None or np.array_equal(row, expected[path][1])
            adding.join()
            assert all(np.array_equal(store.scores.scores(path), rows) for path, rows in expected.items())
            assert store.n_done() == count_done(store.folder) == 400


def test_count_done_knows_no_folder(tmp_path):
    assert count_done(tmp_path / "gone") == 0
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"bundle_sha256": "abd", "engine": "cuda:fp32"}, "another bundle, or with other options"),
        ({"tables_sha256": "d"}, "another bundle, or with other options"),
        ({"engine": "cuda:fp32", "engine_version": "1.1"}, "another engine: onnxruntime:fp32, now cuda:fp32"),
        ({"kept_from_sha256": "ab", "engine": "cuda:fp32"}, "other thresholds"),
        ({"engine_version": "1.1", "birdinfer_version": "0.2"}, "another version of the engine: 1.0, now 1.1"),
        ({"birdinfer_version": "0.2"}, "another birdinfer: 0.1, now 0.2"),
        ({"voice": "mute by silero-vad 6"}, "another --voice: none, now mute by silero-vad 6"),
    ],
)
def test_identity_names_the_first_difference(changes, text):
    difference = IDENTITY.difference(msgspec.structs.replace(IDENTITY, **changes))
    assert difference in (f"holds a run of {text}", f"holds a run with {text}")


def test_identity_changes_with_a_table_of_the_steps(bundle, tmp_path):
    loaded, table = Bundle.load(bundle), tmp_path / "prior.csv"
    with_prior = loaded.with_scoring(loaded.manifest.blend, PostConfig(steps=(PriorShift(table=str(table)),)))
    identities = []
    for content in ("site,hour", "site,hour,windows"):
        table.write_text(content)
        identities.append(RunIdentity.of(with_prior, parse_spec("onnxruntime")))
    table.unlink()
    identities.append(RunIdentity.of(with_prior, parse_spec("onnxruntime")))
    assert len(set(identities)) == 3
    assert RunIdentity.of(loaded, parse_spec("onnxruntime")).engine_version


def test_a_folder_with_other_files_is_no_progress_folder(tmp_path):
    folder = tmp_path / "s.csv.progress"
    folder.mkdir()
    (folder / "rec.wav").write_text("sound")
    with pytest.raises(OutputError, match=r"progress: holds rec\.wav, which is no progress of a run"):
        RunStore(tmp_path / "s.csv", 3)
    assert (folder / "rec.wav").read_text() == "sound"
