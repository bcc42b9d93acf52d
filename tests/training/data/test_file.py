from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birdinfer.errors import InputNotFoundError, MetadataError, OutputError
from birdinfer.training.data.clip import Clip
from birdinfer.training.data.folds_file import LEFT_OUT, gone_clips, read_folds, write_folds

CLIPS = [Clip(f"0012/{name}.ogg", Path("x"), "0012", group="g") for name in ("a", "b, c", "\xe4")]
HEADER = "filename,primary_label,group,fold\n"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folds.csv"


class TestRoundTrip:
    def test_what_is_written_is_read_in_any_order(self, path):
        write_folds(path, CLIPS, [0, -1, LEFT_OUT])
        assert read_folds(path, CLIPS[::-1]) == [LEFT_OUT, -1, 0]
        assert path.read_bytes().startswith(HEADER.encode() + b"0012/a.ogg,0012,g,0\n")

    @given(folds=st.lists(st.integers(-3, 49), min_size=1, max_size=9))
    def test_any_folds(self, tmp_path_factory, folds):
        path = tmp_path_factory.mktemp("folds") / "folds.csv"
        clips = [Clip(f"{index}", Path("x"), "a") for index in range(len(folds))]
        write_folds(path, clips, folds)
        assert read_folds(path, clips) == folds

    def test_clips_that_are_gone_are_reported(self, path):
        write_folds(path, CLIPS, [0, 1, 2])
        assert read_folds(path, CLIPS[1:]) == [1, 2]
        assert gone_clips(path, CLIPS[2:]) == [f"2 clips of {path} are not in the data any more, first 0012/a.ogg"]
        assert gone_clips(path, CLIPS) == []

    def test_other_columns_are_passed_over(self, path):
        path.write_text("note,fold,filename,primary_label\nx, 1.0 ,0012/a.ogg,0012\n")
        assert read_folds(path, CLIPS[:1]) == [1]

    def test_a_write_that_fails_leaves_what_was_there(self, path):
        write_folds(path, CLIPS, [0, 1, 2])
        before = path.read_bytes()
        with pytest.raises(ValueError, match="zip"):
            write_folds(path, CLIPS, [0, 1])
        assert path.read_bytes() == before
        assert [each.name for each in path.parent.iterdir()] == ["folds.csv"]

    def test_a_place_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match="cannot be written"):
            write_folds(tmp_path / "file" / "folds.csv", CLIPS, [0, 1, 2])


class TestWhatIsRefused:
    def test_no_file(self, path):
        with pytest.raises(InputNotFoundError, match=r"folds\.csv: no such file of folds"):
            read_folds(path, CLIPS)

    @pytest.mark.parametrize("text", ["", "filename,fold\n"])
    def test_missing_columns(self, path, text):
        path.write_text(text)
        with pytest.raises(MetadataError, match=r"has no column .*primary_label"):
            read_folds(path, CLIPS)

    def test_no_table(self, path):
        path.write_text(HEADER + '"0012/a.ogg"x,0012,g,0\n')
        with pytest.raises(MetadataError, match="row 2 is not one of a CSV table"):
            read_folds(path, CLIPS)

    @pytest.mark.parametrize("fold", ["", "-5", "50", "1.5", "one"])
    def test_unknown_folds(self, path, fold):
        path.write_text(HEADER + f"0012/a.ogg,0012,g,{fold}\n")
        with pytest.raises(
            MetadataError, match=f"row 2 has the fold '{fold}' - allowed are 0 to 49, -1, -2, -3 and -4"
        ):
            read_folds(path, CLIPS[:1])

    def test_a_row_cut_short(self, path):
        path.write_text(HEADER + "0012/a.ogg,00")
        with pytest.raises(MetadataError, match="row 2 has 2 cells, the header 4"):
            read_folds(path, CLIPS[:1])

    def test_clips_without_a_row_are_counted(self, path):
        write_folds(path, CLIPS[:1], [0])
        with pytest.raises(MetadataError, match=r"no fold for 2 of 3 clips, first 0012/b, c\.ogg - leave data"):
            read_folds(path, CLIPS)

    def test_another_label(self, path):
        write_folds(path, [CLIPS[0]._replace(primary_label="12")], [0])
        with pytest.raises(MetadataError, match=r"labels 0012/a\.ogg '12', train\.csv '0012'"):
            read_folds(path, CLIPS[:1])

    def test_a_clip_named_twice(self, path):
        write_folds(path, [CLIPS[0], CLIPS[0]], [0, 1])
        with pytest.raises(MetadataError, match=r"row 3 names 0012/a\.ogg a second time"):
            read_folds(path, CLIPS[:1])
