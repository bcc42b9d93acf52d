import numpy as np
import pytest
from make_bundles import tone, write_sound

from birdinfer.cli.prior import PriorReport, count_priors
from birdinfer.errors import InputNotFoundError, LabelError, OutputError
from birdinfer.postprocess.priors import PriorShift
from birdinfer.species import Species
from birdinfer.tables.step_tables import Occasion, read_priors

S05, S08 = "BC2026_Train_0001_S05_20250227_010002", "BC2026_Train_0002_S08_20250227_230000"
LABELS = f"filename,start,end,primary_label\n{S05}.ogg,0,5,a;b\n{S08}.ogg,5,10,0012\nsoundscape_7.ogg,0,5,a\n"
TAXONOMY = "primary_label,scientific_name,class_name\nb,Turdus merula,Aves\na,Boana boans,Amphibia\nzz,,\n0012,,\n"


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(LABELS + LABELS.split("\n", 1)[1])
    return path


def write_soundscapes(folder):
    """S05 of 15 s; S08 is there, but no sound; soundscape_7 is not there; another has no labels."""
    folder.mkdir()
    write_sound(folder / f"{S05}.ogg", tone(15.0))
    (folder / f"{S08}.ogg").write_bytes(b"no sound at all")
    write_sound(folder / "unlabelled.ogg", tone(10.0))
    return folder


class TestCountPriors:
    def test_counts_the_rows_of_the_tables(self, labels, tmp_path):
        report = count_priors([labels], tmp_path / "prior.csv")
        assert report == PriorReport(
            windows=3,
            silent_windows=0,
            files=3,
            sites=2,
            hours=2,
            months=1,
            species=3,
            species_found=3,
            repeated_rows=3,
            nameless=("soundscape_7",),
            lengthless=(),
        )
        table = read_priors(tmp_path / "prior.csv")
        assert table.labels == ("0012", "a", "b")
        assert table.occasions == (Occasion(None, None), Occasion("S05", 1, 2), Occasion("S08", 23, 2))
        np.testing.assert_array_equal(table.windows, [1, 1, 1])
        np.testing.assert_array_equal(table.present, [[0, 1, 0], [0, 1, 1], [1, 0, 0]])

    def test_with_the_sound_at_hand_silence_counts(self, labels, tmp_path):
        report = count_priors([labels], tmp_path / "prior.csv", write_soundscapes(tmp_path / "sound"))
        assert (report.windows, report.silent_windows) == (5, 2)
        assert report.lengthless == (S08, "soundscape_7")
        table = read_priors(tmp_path / "prior.csv")
        assert dict(zip(table.occasions, table.windows, strict=True))[Occasion("S05", 1, 2)] == 3

    def test_a_taxonomy_gives_the_columns(self, labels, tmp_path):
        (tmp_path / "taxonomy.csv").write_text(TAXONOMY)
        report = count_priors([labels], tmp_path / "prior.csv", taxonomy=tmp_path / "taxonomy.csv")
        assert (report.species, report.species_found) == (4, 3)
        assert read_priors(tmp_path / "prior.csv").labels == ("b", "a", "zz", "0012")

    def test_a_label_that_the_taxonomy_lacks_is_named(self, labels, tmp_path):
        (tmp_path / "taxonomy.csv").write_text("primary_label,class_name\na,Aves\n")
        with pytest.raises(LabelError, match=r"names 2 species that .*taxonomy.csv lacks: 'b' .row 2., '0012'"):
            count_priors([labels], tmp_path / "prior.csv", taxonomy=tmp_path / "taxonomy.csv")
        assert not (tmp_path / "prior.csv").exists()

    def test_refuses_before_it_counts(self, labels, tmp_path):
        with pytest.raises(OutputError, match="is a folder"):
            count_priors([labels], tmp_path)
        with pytest.raises(InputNotFoundError, match="no such file or folder"):
            count_priors([labels], tmp_path / "prior.csv", tmp_path / "nowhere")

    def test_the_step_reads_what_the_command_writes(self, labels, tmp_path):
        count_priors([labels], tmp_path / "prior.csv")
        bound = PriorShift(table=str(tmp_path / "prior.csv"), shrinkage_windows=1).bind([Species("b"), Species("0012")])
        found = bound(np.float32([[0.3, 0.3]]), "BC2026_Test_0009_S05_20250301_013000")
        assert found[0, 0] > 0.3 > found[0, 1]


class TestPrior:
    def test_reports_what_it_counted_and_what_it_could_not(self, birdinfer, labels, tmp_path):
        sound = write_soundscapes(tmp_path / "sound")
        code, out, err = birdinfer("prior", labels, "-o", tmp_path / "prior.csv", "--soundscapes", sound)
        assert code == 0
        assert out.splitlines() == [
            "windows  5 of 3 files, 2 of them silent",
            "sites    2",
            "hours    2 of 24",
            "months   1 of 12",
            "species  3 found of 3",
            f"written  {tmp_path / 'prior.csv'}",
        ]
        assert err.splitlines() == [
            "3 rows repeat a window: it counts once",
            "1 of 3 files have neither site nor hour in their names (soundscape_7)",
            f"2 of 3 files have no readable sound: their silent windows are not counted ({S08}, soundscape_7)",
        ]

    def test_the_rows_of_a_truth_table_may_be_longer(self, birdinfer, tmp_path):
        (tmp_path / "truth.csv").write_text("row_id,a\nA_20250227_005950_20,1\n")
        birdinfer("prior", tmp_path / "truth.csv", "-o", tmp_path / "prior.csv", "--row-seconds", 20)
        assert read_priors(tmp_path / "prior.csv").occasions == (Occasion("A", 0, 2),)
        birdinfer("prior", tmp_path / "truth.csv", "-o", tmp_path / "prior.csv")
        assert read_priors(tmp_path / "prior.csv").occasions == (Occasion("A", 1, 2),)

    def test_what_is_no_table_is_one_line(self, birdinfer, tmp_path):
        (tmp_path / "labels.csv").write_text("what,is,this\n")
        code, out, err = birdinfer("prior", tmp_path / "labels.csv", "-o", tmp_path / "prior.csv")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "has no column of begins, ends, species" in err
