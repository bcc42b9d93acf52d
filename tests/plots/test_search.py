import pytest
from tiny_searches import write_search

from birdinfer.errors import MetadataError

search = pytest.importorskip("birdinfer.plots.search")

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def test_a_search_is_drawn_into_its_folder(tmp_path):
    study_dir = write_search(tmp_path / "a-tune", importance={"optim.lr": 1.0})
    written = search.draw_search(study_dir)
    assert written == [study_dir / "history.png", study_dir / "importance.png"]
    assert all(path.read_bytes().startswith(SIGNATURE) for path in written)


def test_values_are_left_out_where_none_differ(tmp_path):
    study_dir = write_search(tmp_path / "a-tune", [[0, "complete", 0.5, 1e-3]])
    assert search.draw_search(study_dir) == [study_dir / "history.png"]
    assert not (study_dir / "importance.png").exists()


def test_a_damaged_search_draws_nothing(tmp_path):
    study_dir = write_search(tmp_path / "a-tune")
    (study_dir / "importance.csv").write_text("key,importance\noptim.lr,much\n")
    with pytest.raises(MetadataError, match="importance holds 'much'"):
        search.draw_search(study_dir)
    assert not list(study_dir.glob("*.png"))


def test_the_pictures_go_where_they_are_asked_for(tmp_path):
    written = search.draw_search_as(write_search(tmp_path), tmp_path / "new" / "a.png", tmp_path / "b.png")
    assert written == [tmp_path / "new" / "a.png", tmp_path / "b.png"]
    assert all(path.is_file() for path in written)
