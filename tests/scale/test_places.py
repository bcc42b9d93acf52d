"""Sound and results at an address: the same bytes, little disk, and errors that say what to do."""

import errno
import threading

import fsspec
import pytest

from birdinfer.audio.status import Status
from birdinfer.callbacks import Callback
from birdinfer.errors import ConfigError, InputNotFoundError
from birdinfer.inference.bundle import Bundle
from birdinfer.prediction.detect import DetectionSettings, detect_recordings
from birdinfer.scale import places
from birdinfer.scale.gather import gather_detections
from birdinfer.scale.listing import ArchiveFile, list_archive
from birdinfer.scale.places import Place, StoreError, kind_of
from birdinfer.scale.staging import Stager
from birdinfer.scale.unit import Worker, WorkSettings


@pytest.fixture
def remote(archive):
    """The archive in a store, and the store's address."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    store.put(str(archive), "/bucket/archive", recursive=True)
    yield "memory://bucket"
    store.store.clear()


def without_paths(folder):
    """The tables of a folder; of that of files all but their paths, which differ."""
    return (folder / "detections.csv").read_bytes(), [
        line.partition(",")[2] for line in (folder / "files.csv").read_text().splitlines()
    ]


def test_an_archive_in_a_store_has_the_bytes_of_a_local_one(archive, bundle, planned, remote, tmp_path):
    opened = planned(f"{remote}/archive", f"{remote}/plan")
    assert opened.plan.n_units == 7
    left = tmp_path / "scratch" / "birdinfer-scale-0123"  # by a process that was killed
    (left / "sound").mkdir(parents=True)
    with Worker(opened.place.uri, WorkSettings(scratch=tmp_path / "scratch", most_bytes=1)) as worker:
        assert not left.exists()
        outcomes = dict(worker.run(opened.missing()))
    assert all(outcome.sound_seconds or outcome.n_problems for outcome in outcomes.values())
    assert list((tmp_path / "scratch").iterdir()) == []
    gather_detections(opened, DetectionSettings(output=tmp_path / "many"))
    detect_recordings(Bundle.load(bundle), [archive], DetectionSettings(output=tmp_path / "one"))
    assert without_paths(tmp_path / "one") == without_paths(tmp_path / "many")
    assert "siteA/20250227_060000.wav," in (tmp_path / "many" / "files.csv").read_text()


def test_a_file_that_is_gone_or_changed_is_a_row(remote, planned):
    opened = planned(f"{remote}/archive", f"{remote}/plan", unit_seconds=90.0)
    store = fsspec.filesystem("memory")
    store.rm("/bucket/archive/siteA/20250227_060000.wav")
    store.pipe("/bucket/archive/siteA/20250227_070000.wav", b"RIFF")
    with Worker(opened.place.uri) as worker:
        ((_, marker),) = worker.run([0])
    problems = {file.name: file.problem for file in marker.files if file.status is Status.not_opened}
    assert problems == {
        "siteA/20250227_060000": "is no longer in the archive",
        "siteA/20250227_070000": "has changed since it was listed",
    }


def test_names_in_a_store_are_those_of_a_folder(archive, remote):
    (local, there) = (list(list_archive([str(where)], Callback()).files) for where in (archive, f"{remote}/archive"))
    assert [(file.name, file.size) for file in local] == [(file.name, file.size) for file in there]
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/archive/siteB/stereo.flac", b"fLaC")
    names = [file.name for file in list_archive([f"{remote}/archive"], Callback()).files]
    assert names[-2:] == ["siteB/stereo.flac", "siteB/stereo.wav"]


def test_addresses_that_cannot_be_listed_are_refused(archive, remote):
    with pytest.raises(InputNotFoundError, match="no such file or folder"):
        list(list_archive([f"{remote}/nothing"], Callback()).files)
    with pytest.raises(ConfigError, match="several addresses"):
        list_archive([remote, str(archive)], Callback())
    with pytest.raises(ConfigError, match="no kind of place"):
        Place("ftpx://bucket")


class Answer(Exception):
    """An error as clients of stores raise it."""

    def __init__(self, status, text="no"):
        super().__init__(text)
        self.status = status


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left"), "disk full"),
        (OSError(errno.EBUSY, "Please reduce your request rate."), "throttled"),
        (Answer(503), "throttled"),
        (Answer(429), "throttled"),
        (PermissionError("The provided token has expired."), "credentials"),
        (Answer(403), "credentials"),
        (type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"), "credentials"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/run=b82503e/expired-token"), "gone"),
        (ConnectionResetError(errno.ECONNRESET, "reset", "/a/503"), "network"),
        (TimeoutError(), "network"),
        (ConfigError("x", "y"), None),
        (ZeroDivisionError(), None),
    ],
)
def test_why_a_place_refuses_is_distinguished(error, kind):
    assert kind_of(error) == kind


def test_what_passes_is_repeated_and_what_stays_is_one_line(remote, monkeypatch):
    waits = []
    monkeypatch.setattr(places.time, "sleep", waits.append)
    place, answers = Place(f"{remote}/archive"), [Answer(503), TimeoutError(), b"sound"]

    def cat(path):
        answer = answers.pop(0)
        if isinstance(answer, bytes):
            return answer
        raise answer

    monkeypatch.setattr(place.files, "cat_file", cat)
    assert place.read("a.wav") == b"sound"
    assert len(waits) == 2
    assert waits[0] < waits[1] * 2
    answers[:] = [Answer(503)] * 20
    with pytest.raises(StoreError, match="asks for fewer requests") as throttled:
        place.read("a.wav")
    assert not throttled.value.ends_run
    answers[:] = [PermissionError("The provided token has expired.")]
    with pytest.raises(StoreError, match="access is not allowed, or no longer") as expired:
        place.read("a.wav")
    assert expired.value.ends_run
    assert answers == []  # which no other attempt would change
    assert "\n" not in str(expired.value)


def test_staged_sound_takes_little_disk_and_comes_in_order(remote, tmp_path):
    """A big file between small ones: were these fetched first, it would wait for ever."""
    store = fsspec.filesystem("memory")
    sizes = [10, 10, 95, 10, 10, 95, 10]
    for index, size in enumerate(sizes):
        store.pipe(f"/bucket/sounds/{index}.wav", bytes(size))
    files = [ArchiveFile(0, str(index), f"{remote}/sounds/{index}.wav", size, "") for index, size in enumerate(sizes)]
    most = 0

    def held():
        return sum(path.stat().st_size for path in (tmp_path / "stage").rglob("*.wav"))

    with Stager(Place(f"{remote}/sounds"), tmp_path / "stage", most_bytes=100, streams=4) as stager:
        for path, size in zip(stager.announce(files), sizes, strict=True):
            assert stager.wait(path) == ""
            assert path.stat().st_size == size
            most = max(most, held())
            stager.release(path)
            stager.release(path)
        dropped = stager.announce(files)
        for path in dropped:  # of a unit that has failed
            stager.release(path)
        last = stager.announce(files[:1])[0]
        assert stager.wait(last) == ""
        assert held() == 10
    assert most <= 105
    assert not (tmp_path / "stage").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stage")]
