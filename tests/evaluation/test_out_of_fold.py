import numpy as np
import pytest

from birdinfer.errors import InputNotFoundError, LabelError, MetadataError
from birdinfer.evaluation.ablation import read_out_of_fold

FOLD0 = "filename,primary_label,0012,b\nb/1.ogg,b,0.25,0.5\n0012/2.ogg,0012,1,0\n"
FOLD1 = "filename,primary_label,0012,b\n0012/3.ogg,0012,0.75,1e-7\n"
FOLDS = (
    "filename,primary_label,group,fold\nb/1.ogg,b,rec1,0\n0012/2.ogg,0012,,0\n0012/3.ogg,0012,rec1,1\nx.ogg,b,r,-1\n"
)


@pytest.fixture
def run_dir(tmp_path):
    """Writes a run of folds, and folds.csv where there is one."""

    def write(*tables, folds=FOLDS):
        for fold, table in enumerate(tables):
            (tmp_path / f"fold{fold}").mkdir()
            (tmp_path / f"fold{fold}" / "oof.csv").write_text(table)
        if folds:
            (tmp_path / "folds.csv").write_text(folds)
        return tmp_path

    return write


def test_all_folds_become_one_table(run_dir):
    clips = read_out_of_fold(run_dir(FOLD0, FOLD1))
    assert clips.filenames == ("b/1.ogg", "0012/2.ogg", "0012/3.ogg")
    assert clips.labels == ("0012", "b")
    np.testing.assert_array_equal(clips.probabilities, np.array([[0.25, 0.5], [1, 0], [0.75, 1e-7]], np.float32))
    assert clips.truth.tolist() == [[False, True], [True, False], [True, False]]


def test_clips_of_one_recording_share_a_group_and_others_are_their_own(run_dir):
    assert read_out_of_fold(run_dir(FOLD0, FOLD1)).groups == ("rec1", "0012/2.ogg", "rec1")


@pytest.mark.parametrize("folds", ["", "filename,primary_label,fold\nb/1.ogg,b,0\n"])
def test_without_groups_each_clip_is_its_own(run_dir, folds):
    clips = read_out_of_fold(run_dir(FOLD0, folds=folds))
    assert clips.groups == clips.filenames


def test_a_fold_that_validated_nothing_is_passed_over(run_dir):
    assert len(read_out_of_fold(run_dir(FOLD0.splitlines()[0] + "\n", FOLD1)).filenames) == 1


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ([FOLD0, FOLD1.replace(",b\n", ",c\n")], r"fold1.oof.csv: has other columns than the fold before"),
        ([FOLD0, FOLD0], r"clip 'b/1.ogg' stands in two rows"),
        ([FOLD0.replace("0.25", "none")], r"oof.csv, line 2: holds 'none' - a probability from 0 to 1 is needed"),
        ([FOLD0.replace("0.25", "nan")], r"oof.csv, line 2: holds 'nan'"),
        ([FOLD0.replace("0.25", "1.5")], r"oof.csv, line 2: holds '1.5'"),
        ([FOLD0.replace("0.25,", "")], r"oof.csv: row 2 has 3 cells, the header 4"),
        ([FOLD0.replace("filename", "file")], r"does not begin with the columns filename, primary_label"),
        (["filename,primary_label\n"], r"has no column for any label"),
        ([""], r"has no column for any label"),
        ([FOLD0.splitlines()[0] + "\n"], r"its folds validated no clip"),
        ([FOLD0 + '"'], r"oof.csv: row 4 is not one of a CSV table \(unexpected end of data\)"),
        ([FOLD0.replace(",b\n", "," + "b" * 200_000 + "\n", 1)], r"row 1 is not one of a CSV table \(field larger"),
    ],
)
def test_a_damaged_table_is_refused_in_one_line(run_dir, tables, message):
    with pytest.raises(MetadataError, match=message) as caught:
        read_out_of_fold(run_dir(*tables))
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(run_dir):
    folder = run_dir(FOLD0)
    (folder / "fold0" / "oof.csv").write_bytes(FOLD0.encode() + b"\xff\xfe,b,1,0\n")
    with pytest.raises(MetadataError, match=r"row 4 holds what is no UTF-8"):
        read_out_of_fold(folder)


def test_a_column_that_stands_twice_is_refused(run_dir):
    with pytest.raises(LabelError, match=r"oof.csv: label 'b' stands twice"):
        read_out_of_fold(run_dir(FOLD0.replace(",0012,b\n", ",b,b\n")))


def test_a_folder_in_a_tables_place_is_no_table(tmp_path):
    (tmp_path / "fold0" / "oof.csv").mkdir(parents=True)
    with pytest.raises(InputNotFoundError, match=r"oof.csv: no such file"):
        read_out_of_fold(tmp_path)


def test_a_run_that_is_not_there_or_has_no_fold(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"holds no fold\*/oof.csv"):
        read_out_of_fold(tmp_path)
    with pytest.raises(InputNotFoundError, match=r"nowhere: no such folder"):
        read_out_of_fold(tmp_path / "nowhere")
