import pytest

from birdinfer.errors import MetadataError
from birdinfer.evaluation.ablation import read_out_of_fold


def write_folds(run, *names):
    for fold in range(2):
        (run / f"fold{fold}").mkdir(parents=True)
        rows = [f"{fold}.ogg,a,0.5,0.5", *(f"{name},,{0.2 + 0.4 * fold},0" for name in names)]
        (run / f"fold{fold}" / "oof.csv").write_text("\n".join(["filename,primary_label,a,b", *rows]) + "\n")
    return run


def test_read_out_of_fold_averages_what_every_fold_holds_out(tmp_path):
    found = read_out_of_fold(write_folds(tmp_path / "run", "@s/x.ogg#t=0_5"))
    assert found.filenames == ("0.ogg", "@s/x.ogg#t=0_5", "1.ogg")
    assert found.probabilities[1] == pytest.approx([0.4, 0])


def test_read_out_of_fold_refuses_a_clip_of_the_data_folder_twice(tmp_path):
    with pytest.raises(MetadataError, match="stands in two rows"):
        read_out_of_fold(write_folds(tmp_path / "run", "x.ogg"))
