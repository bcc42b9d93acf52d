import re

import numpy as np
import pytest

from birdinfer.cli.blend import BlendSettings, How, blend_tables, parse_weights
from birdinfer.errors import ConfigError
from birdinfer.inference.bundle import save_manifest
from birdinfer.tables.scores import read_scores

ONE = "row_id,0012,x\na_5,0.1,0.2\na_10,0.9,0.4\nb_5,0.5,0.6\n"
TWO = "x,row_id,0012\n0.6,b_5,0.7\n0.8,a_10,0.1\n0,a_5,0.3\n"
"""The same rows and columns in another order."""
TAXONOMY = (
    "primary_label,inat_taxon_id,scientific_name,common_name,class_name\nx,1,Xus albus,X,Aves\n0012,2,Y,Z,Insecta\n"
)


@pytest.fixture
def tables(tmp_path):
    """Writes tables, one.csv and two.csv if none are given, and returns their paths."""

    def write(*texts):
        paths = [tmp_path / f"{name}.csv" for name in ("one", "two", "three")]
        for path, text in zip(paths, texts or (ONE, TWO), strict=False):
            path.write_text(text)
        return paths[: len(texts) or 2]

    return write


@pytest.fixture
def output(tmp_path):
    return tmp_path / "blended.csv"


def values_in(path):
    return read_scores(path).values


class TestTheCommand:
    def test_says_what_it_did_in_one_line(self, birdinfer, tables, output):
        code, printed, _ = birdinfer("blend", *tables(), "-o", output, "--how", "geometric")
        assert code == 0
        assert re.fullmatch(rf"{output}: 2 tables, 3 rows, 2 classes, geometric, \d+\.\d s\n", printed)

    def test_keeps_the_first_tables_order_and_weighs(self, birdinfer, tables, output):
        assert birdinfer("blend", *tables(), "-o", output, "--weights", "0.75,0.25")[0] == 0
        assert output.read_text().splitlines()[0] == "row_id,0012,x"
        assert read_scores(output).row_ids == ["a_5", "a_10", "b_5"]
        expected = [[0.15, 0.15], [0.7, 0.5], [0.55, 0.6]]
        np.testing.assert_allclose(values_in(output), expected, rtol=1e-6)

    def test_steps_see_one_file_at_a_time_in_time_order(self, birdinfer, tables, output):
        shuffled = "row_id,x\nb_10,0.5\na_10,0.4\na_5,0.2\nb_5,0.1\n"
        code, printed, _ = birdinfer("blend", *tables(shuffled), "-o", output, "--post", "smooth:kernel=0.25/0.5/0.25")
        assert code == 0
        assert "1 table, 4 rows, 1 classes, as it is, then smooth" in printed
        # At a file's ends the kernel's outer weight is left out: (0.5 x 0.4 + 0.25 x 0.2) / 0.75.
        expected = [1.1 / 3, 1 / 3, 0.8 / 3, 0.7 / 3]
        np.testing.assert_allclose(np.ravel(values_in(output)), expected, rtol=1e-6)

    @pytest.mark.parametrize("source", ["--bundle", "--taxonomy"])
    def test_steps_learn_what_the_columns_are(self, birdinfer, tables, output, tmp_path, make_bundle, source):
        step = "taxon_kernels:kernels.Aves=0/1/0,kernels.Insecta=0.25/0.5/0.25"
        paths = tables("row_id,0012,x\na_5,0.2,0.2\na_10,0.8,0.8\n")
        (tmp_path / "taxonomy.csv").write_text(TAXONOMY)
        where = tmp_path / "taxonomy.csv" if source == "--taxonomy" else make_bundle(labels=("0012", "x", "z"))
        if source == "--bundle":
            _give_classes(where, ("Insecta", "Aves", "Aves"))
        code, _, stderr = birdinfer("blend", *paths, "-o", output, "--post", step, source, where)
        assert code == 0, stderr
        np.testing.assert_allclose(values_in(output), [[0.4, 0.2], [0.6, 0.8]], rtol=1e-6)

    def test_steps_that_need_unknown_species_are_refused(self, birdinfer, tables, output):
        step = "taxon_kernels:kernels.Aves=0.25/0.5/0.25"
        code, _, stderr = birdinfer("blend", *tables(), "-o", output, "--post", step)
        assert code == 2
        assert "Aves" in stderr
        assert not output.exists()

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            (["--how", "gate"], "--how gate: needs to know who decides"),
            (["--how", "gate", "--gate", "2"], "--how gate: needs to know who decides"),
            (["--how", "gate", "--gate", "3", "--threshold", "0.5"], "--gate: is table 3, but there are 2"),
            (["--how", "gate", "--gate", "1", "--threshold", "1.5"], "threshold is 1.5, allowed are 0 to 1"),
            (
                ["--how", "gate", "--gate", "1", "--threshold", "0.5", "--weights", "1,0"],
                "no member is behind the gate",
            ),
            (["--gate", "1"], "--gate and --threshold: are of no effect on mean - give --how gate"),
            (["--threshold", "0.5"], "--gate and --threshold: are of no effect on mean"),
            (["--weights", "1,2,3"], "--weights: are 3 for 2 tables"),
            (["--weights", "1,x"], "--weights: '1,x': could not convert string to float: 'x'"),
            (["--weights", "1,-1"], "weights: are [1.0, -1.0] for 2 members"),
            (["--weights", "nan,1"], "weights: are [nan, 1.0] for 2 members"),
            (["--how", "rank", "--match"], "--match: changes no rank"),
            (["--taxonomy", "t.csv"], "--bundle and --taxonomy: are of no effect without steps"),
            (["--post", "smoth"], "--post: there is no step 'smoth'"),
            (["--post", "smooth", "--bundle", "b", "--taxonomy", "t.csv"], "--taxonomy: says what --bundle says"),
            (["--post", "smooth", "--taxonomy", "nothing.csv"], "nothing.csv: no such file"),
        ],
    )
    def test_what_does_not_fit_together_is_refused_in_one_line(self, birdinfer, tables, output, options, problem):
        code, _, stderr = birdinfer("blend", *tables(), "-o", output, *options)
        assert code == 2
        assert problem in stderr
        assert stderr.count("\n") == 1
        assert not output.exists()

    @pytest.mark.parametrize(
        ("texts", "options", "problem"),
        [
            ((ONE, TWO.replace("b_5", "b_10")), [], "two.csv: lacks 1 of 3 rows of"),
            ((ONE, TWO.replace("0012", "12")), [], "two.csv: lacks 1 of 2 columns of"),
            ((ONE, TWO.replace("0.8", "1.8")), [], "two.csv: row 'a_10', column 'x' holds 1.8, not a probability - "),
            ((ONE, TWO.replace("0.8", "")), [], "two.csv: row 'a_10', column 'x' is empty"),
            ((ONE.replace("a_5", "a"),), ["--post", "smooth"], "one.csv: row_id 'a' does not end in _<end second>"),
            ((ONE,), [], "TABLE: one alone would stay as it is"),
            ((ONE,), ["--how", "rms", "--post", "smooth"], "TABLE: one alone has nothing to be blended with"),
            ((ONE,), ["--match", "--post", "smooth"], "TABLE: one alone has nothing to be blended with"),
        ],
    )
    def test_a_bad_table_is_refused_and_an_older_result_stays(self, birdinfer, tables, output, texts, options, problem):
        output.write_text("row_id,of before")
        code, _, stderr = birdinfer("blend", *tables(*texts), "-o", output, *options)
        assert code == 2
        assert problem in stderr
        assert output.read_text() == "row_id,of before"


class TestBlendTables:
    def test_ranks_take_scores_of_any_kind(self, tables, output):
        logits = "row_id,0012,x\na_5,-7,2\na_10,9,3\nb_5,0,4\n"
        blend_tables(tables(ONE, logits), output, BlendSettings(how=How.rank, weights=(0.5, 0.5)))
        np.testing.assert_allclose(values_in(output), [[0, 0], [2 / 3, 1 / 3], [1 / 3, 2 / 3]], rtol=1e-6)

    def test_a_gate_is_the_table_of_that_number(self, tables, output):
        report = blend_tables(tables(), output, BlendSettings(how=How.gate, gate=2, threshold=0.6))
        # Table 1 where table 2 says 0.6 or more, else table 1 x table 2 / 0.6.
        expected = [[0.1 * 0.3 / 0.6, 0], [0.9 * 0.1 / 0.6, 0.4], [0.5, 0.6]]
        np.testing.assert_allclose(values_in(output), expected, rtol=1e-6)
        assert (report.tables, report.rows, report.classes, report.how, report.steps) == (2, 3, 2, "gate", ())

    def test_matching_brings_the_second_table_onto_the_first(self, tables, output):
        blend_tables(tables(), output, BlendSettings(weights=(0, 1), match=True))
        # Per class the second table's order and the first one's values.
        np.testing.assert_allclose(values_in(output), [[0.5, 0.2], [0.1, 0.6], [0.9, 0.4]], rtol=1e-6)

    @pytest.mark.parametrize("how", list(How))
    def test_the_order_of_rows_columns_and_files_does_not_matter(self, tables, output, how):
        gate = {"gate": 1, "threshold": 0.5} if how is How.gate else {}
        wanted = BlendSettings(how=how, post=("smooth:kernel=0.2/0.6/0.2",), **gate)
        paths = tables()
        blend_tables(paths, output, wanted)
        before = read_scores(output)
        paths[0].write_text("row_id,x,0012\nb_5,0.6,0.5\na_10,0.4,0.9\na_5,0.2,0.1\n")
        blend_tables(paths, output, wanted)
        after = read_scores(output)
        assert after.row_ids == ["b_5", "a_10", "a_5"]
        assert np.array_equal(after.values[::-1, ::-1], before.values)

    def test_a_result_that_cannot_be_written_is_known_before_tables_are_read(self, tmp_path):
        with pytest.raises(OSError, match="is a folder"):
            blend_tables([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path, BlendSettings())


def test_weights_are_numbers_between_commas():
    assert parse_weights("0.8, 0.2") == (0.8, 0.2)
    assert parse_weights(None) is None
    with pytest.raises(ConfigError, match=r"write them as 0\.8,0\.2"):
        parse_weights("")


def _give_classes(folder, classes):
    import msgspec

    from birdinfer.inference.bundle import Bundle

    manifest = Bundle.load(folder).manifest
    species = tuple(
        msgspec.structs.replace(one, class_name=name) for one, name in zip(manifest.species, classes, strict=True)
    )
    save_manifest(folder, msgspec.structs.replace(manifest, species=species))
