import pytest
from tiny_runs import SPECIES, epochs, write_run

from birdinfer.errors import InputNotFoundError, MetadataError

runs = pytest.importorskip("birdinfer.plots.training")


def is_png(path):
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_run_is_drawn_into_its_folder(tmp_path):
    run_dir = write_run(tmp_path / "run")
    written = runs.draw_run(run_dir)
    assert written == [run_dir / "history.png", run_dir / "species.png"]
    assert all(is_png(path) for path in written)


def test_species_are_left_out_where_none_was_scored(tmp_path):
    run_dir = write_run(tmp_path / "run", (epochs(""),), (SPECIES[2:],))
    assert runs.draw_run(run_dir) == [run_dir / "history.png"]
    assert not (run_dir / "species.png").exists()


def test_a_damaged_run_draws_nothing(tmp_path):
    whole, damaged = write_run(tmp_path / "whole"), write_run(tmp_path / "damaged")
    (damaged / "fold1" / "history.csv").write_text("epoch,lr\n1,fast\n")
    with pytest.raises(MetadataError, match="lr holds 'fast'"):
        runs.draw_runs([whole, damaged], tmp_path / "h.png", tmp_path / "s.png")
    assert not list(tmp_path.glob("*.png"))


def test_a_run_that_is_not_there_gets_no_folder(tmp_path):
    with pytest.raises(InputNotFoundError, match="no such run"):
        runs.draw_run(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_runs_of_one_name_are_called_by_their_paths(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(runs, "save", lambda figure, path: drawn.append(figure))
    folders = [write_run(tmp_path / parent / "run") for parent in ("a", "b")]
    runs.draw_runs([*folders, write_run(tmp_path / "other")], tmp_path / "h.png", tmp_path / "s.png")
    names = [text.get_text() for text in drawn[1].legends[0].get_texts()]
    assert [name[-10:] for name in names[2:]] == ["other"]
    assert names[0] != names[1]
