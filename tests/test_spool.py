"""Scores on disk: whole files or piece by piece, several files at once, and a disk that is full."""

import threading
from pathlib import Path

import numpy as np
import pytest

from birdinfer.errors import OutputError
from birdinfer.spool import Piece, ScoreSpool


def test_pieces_of_several_files_are_put_together_in_order(tmp_path):
    random = np.random.default_rng(0)
    whole = {stem: random.random((n_rows, 5), np.float32) for stem, n_rows in (("a", 7), ("b", 4), ("c", 1))}
    with ScoreSpool(tmp_path, 5) as spool:
        for begin in range(0, 7, 2):
            for stem, rows in whole.items():
                if begin < len(rows):
                    spool.add(stem, rows[begin : begin + 2])
        for stem in ("b", "a", "a", "c"):
            assert np.array_equal(spool.scores(stem), whole[stem])
            assert spool.n_windows(stem) == len(whole[stem])


def test_what_comes_after_a_look_is_seen_at_the_next(tmp_path):
    rows = np.ones((2, 5), np.float32)
    with ScoreSpool(tmp_path, 5) as spool:
        spool.add("a", rows)
        assert len(spool.scores("a")) == 2
        spool.add("a", rows)
        assert len(spool.scores("a")) == 4


def test_rows_of_another_layout_are_kept_as_they_read(tmp_path):
    rows = np.arange(20.0).reshape(5, 4).T  # float64, and column by column
    with ScoreSpool(tmp_path, 5) as spool:
        spool.add("a", rows)
        assert np.array_equal(spool.scores("a"), rows.astype(np.float32))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("n_rows", [1, 10_000])
def test_a_full_disk_is_named_in_one_line(tmp_path, monkeypatch, n_rows):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: Path("/dev/full").open("r+b"))  # noqa: SIM115 - the spool closes it
    complaint = r"does not take the scores \(No space left on device\) - choose another place"
    with pytest.raises(OutputError, match=complaint) as caught, ScoreSpool(tmp_path, 5) as spool:
        spool.add("a", np.ones((n_rows, 5), np.float32))
    assert "\n" not in str(caught.value)


def test_rows_are_read_while_others_are_added(tmp_path):
    """A table is renewed while the lanes go on: no row may come from another place."""
    wanted = {str(index): np.full((3, 5), index, np.float32) for index in range(400)}
    with ScoreSpool(tmp_path, 5) as spool:
        adding = threading.Thread(target=lambda: [spool.add(stem, rows) for stem, rows in wanted.items()])
        adding.start()
        while adding.is_alive():
            for stem in list(wanted)[::7]:
                scores = spool.scores(stem)
                assert scores is None or np.array_equal(scores, wanted[stem])
        adding.join()
        assert all(np.array_equal(spool.scores(stem), rows) for stem, rows in wanted.items())


def test_a_spool_with_a_name_is_found_again_and_its_rows_are_checked(tmp_path):
    rows = np.arange(10, dtype=np.float32).reshape(2, 5)
    with ScoreSpool(tmp_path / "scores.f32", 5) as spool:
        spool.add("a", rows)
        spool.add("a", rows + 1)
        pieces, checksum = spool.pieces("a"), spool.checksum("a")
    with ScoreSpool(tmp_path / "scores.f32", 5) as spool:
        assert spool.scores("a") is None
        assert not spool.recall("a", pieces, checksum + 1)
        assert not spool.recall("a", pieces[:1], checksum)
        assert not spool.recall("a", [*pieces, Piece(80, 1)], checksum)
        assert spool.scores("a") is None
        assert spool.recall("a", pieces, checksum)
        spool.add("b", rows)
        assert np.array_equal(spool.scores("a"), np.concatenate([rows, rows + 1]))
        assert np.array_equal(spool.scores("b"), rows)
