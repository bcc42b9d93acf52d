import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_bundles import write_sound
from tiny_clips import RATE, TINY_FRONTEND, call

from birdinfer.errors import OutputError
from birdinfer.training.data import cache
from birdinfer.training.data.cache import CacheSettings, build_cache, default_folder
from birdinfer.training.data.metadata import read_metadata
from birdinfer.training.data.sources import ClipDecoder, Decoded

SETTINGS = CacheSettings(TINY_FRONTEND)
N_BUCKETS = 13
"""Of 16 that 24 clips are spread over by their names; four get none and are one and the same file."""

# argv: data folder, cache folder, clip after which to stop and wait for the end (-1: never)
BUILDER = """
import sys, time
from pathlib import Path
from tiny_clips import TINY_FRONTEND
from birdinfer.training.data import cache
from birdinfer.training.data.metadata import read_metadata

data, folder, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
cache._CLIPS_PER_BUCKET = 2
n_built = n_clips = 0
write = cache.write_bucket

def counting(*arguments):
    global n_built
    write(*arguments)
    n_built += 1

def progress(done, total):
    global n_clips
    n_clips += 1
    if n_clips - 1 == last:
        print("waiting", flush=True)
        time.sleep(100)

cache.write_bucket = counting
clips = read_metadata(data).clips
print("ready", flush=True)
sys.stdin.readline()
cache.build_cache(clips, cache.CacheSettings(TINY_FRONTEND), folder, progress, lambda: time.sleep(0.01))
print(n_built, flush=True)
"""


@pytest.fixture
def clips(clips_dir, monkeypatch):
    monkeypatch.setattr(cache, "_CLIPS_PER_BUCKET", 2)
    return read_metadata(clips_dir).clips


@pytest.fixture
def own_clips(clips_dir, tmp_path, monkeypatch):
    """Clips that a test may change."""
    monkeypatch.setattr(cache, "_CLIPS_PER_BUCKET", 2)
    return read_metadata(Path(shutil.copytree(clips_dir, tmp_path / "own"))).clips


@pytest.fixture
def builders(clips_dir, tmp_path):
    """Other processes that stand ready to build a cache in ``tmp_path / "shared"``."""
    started = []

    def start(last=-1):
        command = [sys.executable, "-c", BUILDER, str(clips_dir), str(tmp_path / "shared"), str(last)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path]), "OMP_NUM_THREADS": "1"}
        one = subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()
        one.communicate()


def go(builder):
    assert builder.stdout.readline() == "ready\n"
    builder.stdin.write("go\n")
    builder.stdin.flush()


def ended(builder):
    """How many buckets it has built."""
    out, _ = builder.communicate()
    assert builder.returncode == 0
    return int(out)


def contents(folder):
    """All files below, hidden ones included."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.clips")}


class TestSeveralProcesses:
    def test_they_share_the_work_and_build_what_one_would(self, clips, builders, tmp_path):
        build_cache(clips, SETTINGS, tmp_path / "alone")
        two = [builders(), builders()]
        for one in two:
            go(one)
        built = [ended(one) for one in two]
        assert sum(built) == N_BUCKETS
        assert min(built) > 0
        assert contents(tmp_path / "shared") == contents(tmp_path / "alone")

    def test_a_killed_one_leaves_nothing_half_and_the_next_run_completes_it(self, clips, builders, tmp_path):
        victim = builders(last=10)
        go(victim)
        assert victim.stdout.readline() == "waiting\n"
        victim.send_signal(signal.SIGKILL)
        victim.wait(10)
        build_cache(clips, SETTINGS, tmp_path / "alone")
        alone, left = contents(tmp_path / "alone"), contents(tmp_path / "shared")
        whole = {name: content for name, content in left.items() if name.endswith(".clips")}
        assert 0 < len(whole) < N_BUCKETS
        assert whole.items() <= alone.items()
        assert any(name.endswith(".part") for name in left)

        before = times(tmp_path / "shared")
        build_cache(clips, SETTINGS, tmp_path / "shared")
        assert contents(tmp_path / "shared") == alone
        assert times(tmp_path / "shared").items() >= before.items()

    def test_who_waits_for_one_that_is_killed_takes_over_its_bucket(self, clips, builders, tmp_path):
        victim, heir = builders(last=10), builders()
        go(victim)
        assert victim.stdout.readline() == "waiting\n"
        go(heir)
        with pytest.raises(subprocess.TimeoutExpired):
            heir.wait(1.5)
        assert len(times(tmp_path / "shared")) == N_BUCKETS - 1
        victim.send_signal(signal.SIGKILL)
        assert ended(heir) > 0
        build_cache(clips, SETTINGS, tmp_path / "alone")
        assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


class TestWhatIsBuilt:
    def test_nothing_is_decoded_twice(self, clips, tmp_path, monkeypatch):
        first = build_cache(clips, SETTINGS, tmp_path)
        monkeypatch.setattr(ClipDecoder, "__call__", lambda self, clip: pytest.fail("decoded again"))
        again = build_cache(clips, SETTINGS, tmp_path)
        assert again.bytes == first.bytes > 24 * 1.5 * RATE * 2
        assert np.array_equal(again.window(clips[3], 0.2), first.window(clips[3], 0.2))

    def test_a_changed_file_changes_its_bucket_alone(self, own_clips, tmp_path):
        build_cache(own_clips, SETTINGS, tmp_path / "cache")
        before = times(tmp_path / "cache")
        write_sound(own_clips[5].path, call("1161364", 2.0, 9), RATE)
        source = build_cache(own_clips, SETTINGS, tmp_path / "cache")
        after = times(tmp_path / "cache")
        assert after.items() >= before.items()
        assert len(after) == len(before) + 1
        assert source.duration_seconds(own_clips[5]) == 2.0

    def test_other_settings_never_meet(self, clips, tmp_path):
        whole, cut = (
            build_cache(clips, SETTINGS, tmp_path),
            build_cache(clips, CacheSettings(TINY_FRONTEND, 0.5), tmp_path),
        )
        assert (whole.duration_seconds(clips[0]), cut.duration_seconds(clips[0])) == (1.5, 0.5)
        assert {path.name for path in tmp_path.iterdir()} == {"8000hz", "8000hz-0.5s"}
        assert cut.bytes < whole.bytes

    def test_a_damaged_bucket_is_made_again(self, clips, tmp_path):
        build_cache(clips, SETTINGS, tmp_path)
        before = contents(tmp_path)
        path = next(tmp_path.rglob("*.clips"))
        path.write_bytes(path.read_bytes()[:-1])
        build_cache(clips, SETTINGS, tmp_path)
        assert contents(tmp_path) == before

    def test_by_default_it_lies_in_the_users_cache(self, clips):
        build_cache(clips[:1], SETTINGS)
        assert default_folder() == Path(os.environ["XDG_CACHE_HOME"]) / "birdinfer" / "clips"
        assert len(list(default_folder().rglob("*.clips"))) == 1

    def test_broken_clips_are_named_and_damaged_ones_used(self, own_clips, tmp_path):
        """Pitfall 13: no sound, no file, half a file."""
        empty, gone, cut, *_ = own_clips
        empty.path.write_bytes(b"")
        gone.path.unlink()
        cut.path.write_bytes(cut.path.read_bytes()[: 44 + RATE])
        source = build_cache(own_clips, SETTINGS, tmp_path / "cache")
        assert sorted(source.failed) == sorted(
            [f"{empty.filename} (is empty (0 bytes))", f"{gone.filename} (no such file)"]
        )
        (note,) = source.notes
        assert note.startswith(f"{cut.filename} (truncated: 0.5 of 1.5 s")
        assert source.duration_seconds(cut) == 0.5
        assert source.duration_seconds(gone) == 0.0

    def test_a_clip_that_appears_later_is_decoded_then(self, own_clips, tmp_path):
        sound = own_clips[0].path.read_bytes()
        own_clips[0].path.unlink()
        assert build_cache(own_clips, SETTINGS, tmp_path / "cache").failed
        own_clips[0].path.write_bytes(sound)
        assert not build_cache(own_clips, SETTINGS, tmp_path / "cache").failed


class TestOnTheWay:
    def test_progress_counts_every_clip(self, clips, tmp_path):
        reported = []
        build_cache(clips, SETTINGS, tmp_path, lambda done, total: reported.append((done, total)))
        assert [done for done, _ in reported] == sorted(done for done, _ in reported)
        assert {done for done, _ in reported} == set(range(25))
        assert {total for _, total in reported} == {24}

    def test_a_stop_leaves_nothing_half_and_is_continued(self, clips, tmp_path):
        calls = []

        def stop():
            calls.append(None)
            if len(calls) > 20:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            build_cache(clips, SETTINGS, tmp_path, between=stop)
        left = contents(tmp_path)
        assert 0 < len(left) < N_BUCKETS
        assert all(name.endswith(".clips") and not name.startswith(".") for name in left)
        build_cache(clips, SETTINGS, tmp_path)
        assert len(contents(tmp_path)) == N_BUCKETS

    def test_only_a_few_clips_are_held_at_once(self, clips, tmp_path, monkeypatch):
        monkeypatch.setattr(cache, "_CLIPS_PER_BUCKET", 100)
        monkeypatch.setattr(cache, "available_cores", lambda: 2)
        ready, most = [0], [0]

        def decode(self, clip):
            ready[0] += 1
            most[0] = max(most[0], ready[0])
            return Decoded(clip.filename, np.ones(10, np.int16), 1.0)

        def progress(done, total):
            ready[0] -= done > 0

        monkeypatch.setattr(ClipDecoder, "__call__", decode)
        build_cache(clips, SETTINGS, tmp_path, progress)
        assert most[0] <= 7

    def test_a_small_disk_is_refused_before_work_begins(self, clips, tmp_path, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 64_000_000))
        with pytest.raises(OutputError, match=r"8000hz: the cache needs 0\.0 GB more, 0\.1 GB are free - name another"):
            build_cache(clips, SETTINGS, tmp_path)
        assert contents(tmp_path) == {}

    def test_a_disk_that_fills_up_leaves_whole_buckets_only(self, clips, tmp_path):
        resource = pytest.importorskip("resource")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        # Beyond this many bytes the system refuses to write, as it does when a disk is full: three clips do not fit.
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
        try:
            with pytest.raises(OutputError, match="cannot be written"):
                build_cache(clips, SETTINGS, tmp_path / "shared")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        build_cache(clips, SETTINGS, tmp_path / "alone")
        left, alone = contents(tmp_path / "shared"), contents(tmp_path / "alone")
        assert left.items() <= alone.items()
        assert len(left) < len(alone)

    def test_a_folder_that_takes_no_files_is_refused_in_one_line(self, clips, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="file, a file - name another disk"):
            build_cache(clips, SETTINGS, tmp_path / "file")
