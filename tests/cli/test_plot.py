import sys
from pathlib import Path

import pytest
from tiny_runs import SPECIES, epochs, write_run
from tiny_searches import write_search

from birdinfer.cli.plot import picture_paths
from birdinfer.errors import OutputError


class TestPlot:
    def test_says_what_it_wrote(self, birdinfer, tmp_path):
        pytest.importorskip("matplotlib")
        run_dir = write_run(tmp_path / "run")
        code, out, err = birdinfer("plot", run_dir)
        assert (code, out.split(), err) == (0, [str(run_dir / "history.png"), str(run_dir / "species.png")], "")
        assert (run_dir / "species.png").is_file()

    def test_compares_several_runs(self, birdinfer, tmp_path):
        pytest.importorskip("matplotlib")
        runs = [write_run(tmp_path / name) for name in ("a", "b")]
        code, out, _ = birdinfer("plot", *runs, "-o", tmp_path / "both.png")
        assert (code, out.split()) == (0, [str(tmp_path / "both.png"), str(tmp_path / "both_species.png")])

    def test_says_that_there_is_no_picture_of_species(self, birdinfer, tmp_path):
        pytest.importorskip("matplotlib")
        run_dir = write_run(tmp_path / "run", (epochs(0.5),), (SPECIES[2:],))
        code, out, err = birdinfer("plot", run_dir, "-o", tmp_path / "pictures")
        assert (code, out.split()) == (0, [str(tmp_path / "pictures" / "history.png")])
        assert "no species was scored" in err

    def test_refuses_what_is_no_run_in_one_line(self, birdinfer, tmp_path):
        pytest.importorskip("matplotlib")
        code, out, err = birdinfer("plot", tmp_path / "none")
        assert (code, out) == (2, "")
        assert err.strip() == f"birdinfer: {tmp_path / 'none'}: no such run - name its folder, runs/NAME"

    def test_refuses_a_damaged_history_with_its_line(self, birdinfer, tmp_path):
        pytest.importorskip("matplotlib")
        run_dir = write_run(tmp_path / "run")
        with (run_dir / "fold1" / "history.csv").open("a") as file:
            file.write("3,0.1")
        code, _, err = birdinfer("plot", run_dir)
        assert code == 2
        assert "fold1/history.csv: row 4 has 2 cells, the header 8" in err

    def test_names_the_extra_that_is_missing(self, birdinfer, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "birdinfer.plots.training", None)
        code, _, err = birdinfer("plot", tmp_path)
        assert code == 2
        assert 'pip install "birdinfer[report]"' in err


class TestPlotOfASearch:
    def test_says_what_it_wrote(self, birdinfer, tmp_path):
        pytest.importorskip("matplotlib")
        study_dir = write_search(tmp_path / "a-tune")
        code, out, err = birdinfer("plot", study_dir)
        assert (code, out.split(), err) == (0, [str(study_dir / "history.png"), str(study_dir / "importance.png")], "")
        assert (study_dir / "importance.png").is_file()

    def test_says_that_there_is_no_picture_of_values(self, birdinfer, tmp_path):
        pytest.importorskip("matplotlib")
        study_dir = write_search(tmp_path / "a-tune", [[0, "complete", 0.5, 1e-3]])
        code, out, err = birdinfer("plot", study_dir, "-o", tmp_path / "x.png")
        assert (code, out.split()) == (0, [str(tmp_path / "x.png")])
        assert "no two trials with a score differ in a key: there is no picture of them" in err

    def test_that_has_not_begun_is_reported_in_one_line(self, birdinfer, tmp_path):
        pytest.importorskip("matplotlib")
        (tmp_path / "space.toml").write_text("optim.lr = {low = 1e-4, high = 1e-2}\n")
        code, out, err = birdinfer("plot", tmp_path)
        assert (code, out) == (2, "")
        assert err.strip() == f"birdinfer: {tmp_path}: holds no trial of a search yet - birdinfer tune makes them"

    def test_is_not_compared_with_runs(self, birdinfer, tmp_path):
        pytest.importorskip("matplotlib")
        code, _, err = birdinfer("plot", write_run(tmp_path / "run"), write_search(tmp_path / "a-tune"))
        assert code == 2
        assert err.strip() == "birdinfer: plot: a search is drawn by itself - name no other folder beside it"


class TestPicturePaths:
    def test_of_one_run_lie_in_it_and_of_several_beside_them(self):
        one = picture_paths([Path("runs/a")], None, "species")
        assert one == (Path("runs/a/history.png"), Path("runs/a/species.png"))
        several = picture_paths([Path("runs/a"), Path("other/b")], None, "species")
        assert several == (Path("runs/history.png").resolve(), Path("runs/species.png").resolve())

    def test_go_into_a_folder_or_are_named_after_a_file(self):
        assert picture_paths([Path("a")], Path("out"), "importance") == (
            Path("out/history.png"),
            Path("out/importance.png"),
        )
        assert picture_paths([Path("a")], Path("x.PNG"), "species") == (Path("x.PNG"), Path("x_species.PNG"))

    def test_a_folder_may_end_like_a_file(self, tmp_path):
        (tmp_path / "v2.png").mkdir()
        assert picture_paths([Path("a")], tmp_path / "v2.png", "species")[0] == tmp_path / "v2.png" / "history.png"
        assert picture_paths([Path("a")], Path("run.v2"), "species")[0] == Path("run.v2/history.png")

    def test_other_formats_are_refused(self):
        with pytest.raises(OutputError, match=r"a\.pdf: ends in \.pdf as a file does, .* - name a \.png or a folder"):
            picture_paths([Path("a")], Path("a.pdf"), "species")
