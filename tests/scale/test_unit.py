"""A unit may be run by anyone, any number of times: it has the same bytes, and no file is lost or counted twice."""

import shutil

import numpy as np
import pytest
from make_bundles import LABELS, tone, write_sound

from birdinfer.audio.status import Status
from birdinfer.errors import ConfigError, InputNotFoundError, OutputError
from birdinfer.scale import unit as unit_module
from birdinfer.scale.marker import KeptScores
from birdinfer.scale.plan import TRIES, open_plan
from birdinfer.scale.run import status_of
from birdinfer.scale.unit import Worker, run_unit

POISON = """
import os, signal
from pathlib import Path
from birdinfer.audio import stream
opened = stream.AudioStream.__init__
def init(self, path, *rest, **named):
    if Path(path).name == "20250227_070000.wav":
        os.kill(os.getpid(), signal.SIGKILL)
    opened(self, path, *rest, **named)
stream.AudioStream.__init__ = init
"""
"""Run before any program: a file that kills its process, as a fault in a decoder would."""


def part_bytes(opened, unit):
    return opened.place.read(opened.part_name(unit))


def test_two_writers_of_one_unit_write_the_same_bytes(archive, planned):
    opened = planned(archive, unit_seconds=90.0)
    with Worker(opened.place.uri) as one, Worker(opened.place.uri) as two:
        list(one.run([0]))
        first = part_bytes(opened, 0)
        opened.place.remove(opened.marker_name(0))
        list(two.run([0]))
    assert part_bytes(opened, 0) == first
    assert opened.missing() == []


def test_a_unit_that_is_done_is_not_predicted_again(archive, planned, monkeypatch):
    opened = planned(archive, unit_seconds=90.0)
    marker = run_unit(opened.place.uri, 0)
    monkeypatch.setattr(Worker, "predict", lambda *_: pytest.fail("was predicted"))
    assert run_unit(opened.place.uri, 0) == marker
    assert opened.place.names(f"{opened.plan.run}/{TRIES}") == []


def test_the_parts_are_a_table_for_any_program(archive, planned):
    parquet = pytest.importorskip("pyarrow.parquet")
    opened = planned(archive)
    with Worker(opened.place.uri) as worker:
        list(worker.run(opened.missing()))
    table = parquet.read_table(f"{opened.place.uri}/{opened.plan.run}", columns=["file", "start", "label", "score"])
    rows = table.to_pylist()
    assert {row["label"] for row in rows} == set(LABELS)
    assert min(row["score"] for row in rows) >= 0.1
    assert {row["file"] for row in rows} > {"siteA/20250227_060000", "siteB/stereo"}
    assert {row["start"] for row in rows} == {0.0, 5.0, 10.0}


def test_the_best_of_each_window_are_kept_whatever_their_scores():
    scores = np.random.default_rng(0).random((5, 4), np.float32)
    kept = KeptScores(np.full(4, 0.9, np.float32), 2, None)
    kept.add(scores[:3])
    kept.add(scores[3:])
    found = set(zip(np.concatenate(kept.rows).tolist(), np.concatenate(kept.columns).tolist(), strict=True))
    best = {(row, column) for row in range(5) for column in np.argsort(-scores[row])[:2].tolist()}
    assert found == best | {(row, column) for row, column in np.argwhere(scores >= 0.9).tolist()}


def test_status_counts_files_and_names_problems(archive, planned):
    opened = planned(archive)
    with Worker(opened.place.uri) as worker:
        list(worker.run([0, 1, 2, 3, 5]))
    found = status_of(opened)
    assert (found.n_done, found.n_units, found.n_files, found.n_begun) == (5, 7, 5, 0)
    assert found.statuses == {Status.ok: 3, Status.truncated: 1, Status.unreadable: 1}
    assert [name for name, _ in found.problems] == ["siteA/20250227_080000", "siteB/20250227_080000"]
    assert found.core_seconds > 0


def test_files_that_are_gone_or_changed_are_named(archive, planned, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(archive, copy)
    opened = planned(copy, unit_seconds=90.0)
    (copy / "siteA" / "20250227_060000.wav").unlink()
    write_sound(copy / "siteA" / "20250227_070000.wav", tone(5.0))
    marker = run_unit(opened.place.uri, 0)
    problems = {file.name: file.problem for file in marker.files if file.status is Status.not_opened}
    assert problems == {
        "siteA/20250227_060000": "is no longer in the archive",
        "siteA/20250227_070000": "has changed since it was listed",
    }


def test_a_disk_that_is_gone_is_no_fault_of_its_files(archive, planned, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(archive, copy)
    opened = planned(copy, unit_seconds=90.0)
    shutil.rmtree(copy)
    with pytest.raises(InputNotFoundError, match="is its disk in its place"):
        run_unit(opened.place.uri, 0)
    assert opened.missing() == [0]


def test_a_machine_with_another_engine_version_is_refused(archive, planned, monkeypatch):
    opened = planned(archive)
    monkeypatch.setattr("birdinfer.prediction.identity._installed", lambda packages: "0.1")
    with pytest.raises(ConfigError, match=r"differs from the plan's: version of the engine: 0\.1, now"):
        Worker(opened.place.uri)


def test_a_plan_is_not_replaced_unasked(archive, planned, tmp_path):
    planned(archive)
    with pytest.raises(OutputError, match="holds a plan"):
        planned(archive)
    planned(archive, force=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.doc").write_text("x")
    with pytest.raises(OutputError, match="other things than a plan"):
        planned(archive, tmp_path / "other", force=True)
    with pytest.raises(InputNotFoundError, match="holds no plan"):
        open_plan(tmp_path / "nowhere")


@pytest.mark.slow
def test_a_file_that_kills_its_process_is_found_and_the_others_are_predicted(archive, planned, tmp_path, monkeypatch):
    opened = planned(archive, unit_seconds=90.0)
    whole = run_unit(opened.place.uri, 0)
    opened.place.remove(opened.marker_name(0))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(POISON)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=":")
    for start in range(unit_module.MOST_STARTS):  # as processes leave them that were killed
        opened.place.write(f"{opened.plan.run}/{TRIES}/{opened.units[0].digest}-{start}", b"")
    marker = run_unit(opened.place.uri, 0)
    crashed = [file for file in marker.files if file.status is Status.crashed]
    assert [file.name for file in crashed] == ["siteA/20250227_070000", "siteB/20250227_070000"]
    assert "SIGKILL" in crashed[0].problem
    others = [file for file in marker.files if file not in crashed]
    assert others == [file for file in whole.files if file.name not in {each.name for each in crashed}]
    assert opened.place.names(f"{opened.plan.run}/{TRIES}") == []
